//! Whole behaviour: real clients, real servers, the real daemon, in network namespaces.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

mod ask;
mod config;
mod setup;

mod answers;
mod backends;
mod bystanders;
mod conntrack;
mod decap;
mod desired;
mod detach;
mod endings;
mod flood;
mod full_nat;
mod health;
mod icmp;
mod life;
mod modes;
mod neighbours;
mod one_way;
mod path_probes;
mod refusals;
mod spread;
mod topologies;

/// Port of the backends' servers.
const PORT: u16 = 8080;
/// How long anything may take that does take time.
const PATIENCE: Duration = Duration::from_secs(15);
