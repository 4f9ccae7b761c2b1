//! The real `lbctl` against the real API server over canned state.

#![expect(
    clippy::unwrap_used,
    reason = "clippy takes only functions marked #[test] for tests, not their helpers"
)]

mod changes;
mod contract;
mod failures;
mod fake;
mod http;
mod tables;
