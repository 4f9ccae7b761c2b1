//! The domain: services, backends, weights, checks. No I/O, no tokio.
//!
//! Every value here has been parsed: a [`Weight`] is in range, a [`Name`] can be printed, a
//! [`TableSize`] is prime. Whoever holds one need not check it again.

mod address;
mod backend;
mod check;
mod conflict;
mod duration;
mod ids;
mod name;
mod next_hop;
mod service;
mod suggest;

pub use address::AddressFault;
pub use backend::{Admin, Backend, Health, Weight};
pub use check::{Check, CheckKind};
pub use conflict::{
    Conflict, ConflictKind, MAX_BACKENDS, MAX_SERVICES, MAX_SERVICES_PER_ENDPOINT,
    MAX_SNAT_ADDRESSES, MAX_SNAT_PER_SERVICE,
};
pub use duration::{DurationError, format_duration, parse_duration};
pub use ids::{BackendIndex, ServiceId};
pub use name::{Name, NameError};
pub use next_hop::{MacAddr, NextHop, Unresolved, VlanTag};
pub use service::{
    Desired, Forwarding, NoBackend, OnBackendDown, OnExpiry, Profile, Protocol, Scheduler, Service,
    TableSize, TimeoutOverrides, Tunnel,
};
pub use suggest::nearest;
