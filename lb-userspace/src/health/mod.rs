//! Active health checks: is there somebody who answers at a backend's address?
//!
//! ```text
//! Checker ── one task per target ──┐
//!    schedule ─ when → probe ─ outcome → judge ─ verdict → Event
//!    (pure)            (I/O)             (pure)
//! ```
//!
//! * **[`Checker`]** compares the targets that are wanted with those that are watched, and starts
//!   and stops tasks accordingly.
//! * **schedule** spreads the probes: a random phase at first, ±10 % on every wait.
//! * **probe** asks once, over a fresh connection, within the check's timeout.
//! * **legs** puts two results together: where replies do not come back through this host, a
//!   connection to the backend's own address says little, and **path** sends a SYN by the way that
//!   traffic takes.
//! * **judge** counts consecutive results and decides when a backend goes up or down.
//!
//! A probe that fails for want of something on *this* host (file descriptors, memory) says nothing
//! about the backend: it is logged, and counts neither way. Otherwise a daemon that runs out of
//! descriptors would take every backend down at once.

mod checker;
mod http;
mod judge;
mod legs;
mod path;
mod probe;
mod schedule;
#[cfg(test)]
mod testing;
mod watch;

use std::net::SocketAddr;

pub use self::{
    checker::Checker,
    path::{Path, Way},
};

use crate::model::{Check, Health, Name};

/// A backend of a service, and how it is to be probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub service: Name,
    pub backend: Name,
    pub address: SocketAddr,
    pub check: Check,
    /// `None`: replies come back through this host.
    pub path: Option<Path>,
    /// What is believed until probes have said otherwise: the health from before a restart or a
    /// change of the check, or [`Health::Unknown`].
    pub initial: Health,
}

/// What the probes have found out about a target.
///
/// The first one comes with the first result that confirms or changes the target's initial
/// health; every later one is a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub service: Name,
    pub backend: Name,
    /// [`Health::Up`] or [`Health::Down`].
    pub health: Health,
    /// Why, for people: `3 of 3 probes failed: HTTP 503 from GET /healthz`.
    pub reason: String,
}
