//! The daemon's answers as text for people, a file per kind of answer. Scripts use JSON.

mod backend;
mod conntrack;
mod decap;
mod drops;
mod outcome;
mod service;
mod stats;
mod status;

pub(super) use backend::backends;
pub(super) use conntrack::{connections, conntrack_stats};
pub(super) use decap::{decap_attached, decap_status};
pub(super) use drops::drops;
pub(super) use outcome::{changed, detached, reloaded, saved};
pub(super) use service::{service, services};
pub(super) use stats::stats;
pub(super) use status::status;

/// What stands where there is nothing to show.
const NOTHING: &str = "-";
