//! The lab itself: it comes, works, notices, and goes without a trace.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

mod cleanup;
mod daemon;
mod topology;
mod traffic;

const PORT: u16 = 8080;
const PATIENCE: Duration = Duration::from_secs(10);
