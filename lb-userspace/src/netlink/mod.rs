//! Where wanted addresses are reached: route, interface, VLAN tags and neighbour, kept current from
//! the kernel's own notifications (rtnetlink(7)).
//!
//! ```text
//! notice ──→ pending ──→ wire ────→ decode ───→ resolve ──→ changes of next hops
//! (what is   (when to    (asks the  (answers →  (pure)
//!  outdated)  look)       kernel)    Tables)       └─────→ asks ──→ wire
//!                                                          (which neighbours to resolve, when)
//! ```
//!
//! The kernel stays the only authority: no table of it is mirrored from notifications, whose order
//! relative to answers is undefined and which may get lost. A notification only says what to ask
//! again, so that a lost or a misread one delays a change and never falsifies it.

mod addresses;
mod asks;
mod decode;
mod follow;
mod notice;
mod pending;
mod resolve;
mod wire;

use std::{collections::BTreeSet, io, net::IpAddr};

use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

pub use self::addresses::{own_addresses, source_addresses};
use self::{follow::Follower, wire::Connections};
use crate::model::{NextHop, Unresolved};

/// The next hop towards an address, or why there is none.
pub type Resolution = Result<NextHop, Unresolved>;

/// Why netlink cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    #[error("open a netlink socket")]
    Open(#[source] io::Error),
    #[error("{action}")]
    Request {
        /// What was being done, as in "look up the route to 192.0.2.1".
        action: String,
        #[source]
        failure: RequestFailure,
    },
    #[error("the kernel's notifications ended")]
    NoticesEnded,
}

/// Why a netlink request has no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum RequestFailure {
    #[error("the kernel refused")]
    Refused(#[source] io::Error),
    #[error("the kernel did not answer in time")]
    NoAnswer,
    #[error("the kernel's answer is not one to this request")]
    Unexpected,
    #[error("the connection was closed")]
    Closed,
}

/// Starts a task that resolves the addresses of `wanted` in this thread's network namespace, and
/// sends each resolution to `found` when it is first known and whenever it has changed.
///
/// Must be called within a tokio runtime. The task ends when the other end of either channel is
/// dropped; netlink failing under way is logged, and tried again. [`Unresolved::Pending`] is never
/// sent. An address that leaves `wanted` is forgotten, and reported anew when it comes back; one
/// that comes back before the task has looked did not leave.
///
/// # Errors
///
/// When the netlink sockets cannot be opened.
pub fn spawn(
    wanted: watch::Receiver<BTreeSet<IpAddr>>,
    found: mpsc::Sender<(IpAddr, Resolution)>,
) -> Result<JoinHandle<()>, NetlinkError> {
    let connections = Connections::open()?;
    Ok(tokio::spawn(Follower::new(wanted, found).run(connections)))
}
