//! The data plane as the rest of the control plane sees it.
//!
//! [`Writer`] and [`Reader`] are all that the engine and the API know of it; the modules beside
//! this one implement both with aya, and are the only place that knows aya.

mod batch;
mod births;
mod bpffs;
mod clock;
mod convert;
mod counters;
pub mod decap;
mod ender;
mod endpoints;
mod flows;
mod interface;
mod kernel;
mod lab;
mod links;
mod mapped;
mod overflows;
mod pins;
mod plain;
mod ports;
mod programs;
mod reader;
mod removal;
mod samples;
mod slot_tables;
mod snat;
mod sys;
mod tx_ports;
mod writer;

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

pub use clock::Clock;
pub use convert::per_tick;
pub use ender::{Ended, EndedCounts, Ender, Endings, Prod};
pub use kernel::{DataPlane, OBJECT, Settings};
pub use lab::LAB_OBJECT;
pub use lb_common::records::BackendCounters;
pub use links::check_interfaces;
pub use overflows::Overflows;
pub use pins::PinsError;
pub use reader::KernelReader;
pub use removal::{Detached, detach};
pub use sys::{XdpOutcome, run_xdp};
pub use writer::KernelWriter;

use crate::model::{BackendIndex, Forwarding, NextHop, NoBackend, Scheduler, ServiceId, Tunnel};

/// One change to the kernel's maps. A plan is a list of these, applied in order.
#[derive(Clone, Debug, PartialEq)]
pub enum MapWrite {
    /// Makes the slot table of a service, all slots empty. Where it has none yet, it may be the next
    /// write of another kind that installs it, together with others: the kernel waits for an RCU
    /// grace period then.
    CreateTable {
        service: ServiceId,
        slots: u32,
    },
    /// Writes the idle half of a slot table and makes it the one in use, at one stroke.
    WriteTable {
        service: ServiceId,
        slots: Arc<[Slot]>,
    },
    /// Removes the slot table of a service.
    RemoveTable {
        service: ServiceId,
    },
    /// Writes the service record (everything but the slot table and which half is in use).
    WriteService {
        service: ServiceId,
        record: ServiceRecord,
    },
    /// Clears a service record and the service's counters.
    ClearService {
        service: ServiceId,
    },
    /// Packets for this address and port belong to this service from now on.
    Listen {
        address: SocketAddr,
        service: ServiceId,
    },
    /// They no longer do: they pass to the host's own stack.
    Unlisten {
        address: SocketAddr,
    },
    WriteBackend {
        backend: BackendIndex,
        record: BackendRecord,
    },
    /// Clears a backend record and the backend's counters.
    ClearBackend {
        backend: BackendIndex,
    },
    /// Packets from this address and port are replies of this backend, or of one of those chained
    /// behind it by [`BackendRecord::next_with_same_address`].
    BindEndpoint {
        address: SocketAddr,
        backend: BackendIndex,
    },
    UnbindEndpoint {
        address: SocketAddr,
    },
    /// Unlistens every address but these. The first step of an adoption: what an earlier life has
    /// left and nobody wants any more gets no packets from here on.
    PruneListens {
        keep: BTreeSet<SocketAddr>,
    },
    /// Removes every endpoint, then every backend record with its counters, then every service
    /// record with its counters and its slot table, but these. The last step of an adoption.
    PruneRecords {
        endpoints: BTreeSet<SocketAddr>,
        backends: BTreeSet<BackendIndex>,
        services: BTreeSet<ServiceId>,
    },
}

/// One slot of a service's table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// Where new connections go; `None` while no backend can take them.
    pub primary: Option<BackendIndex>,
    /// Where they would go if the primary could not take them.
    pub secondary: Option<BackendIndex>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceRecord {
    pub listen: SocketAddr,
    pub forwarding: Forwarding,
    pub scheduler: Scheduler,
    pub slots: u32,
    pub timeouts: Timeouts,
    /// Addresses that `full-nat` sends from.
    pub snat: Vec<IpAddr>,
    pub tunnel: Tunnel,
    pub no_backend: NoBackend,
}

/// Idle timeouts of a service's connections, complete (S-NAT-3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// No data seen yet: SYN sent, SYN received, or refused by the backend.
    pub half_open: Duration,
    pub established: Duration,
    /// One side has closed.
    pub fin_wait: Duration,
    /// Both sides have closed, the last ACK is outstanding.
    pub closing: Duration,
    pub time_wait: Duration,
    /// A RST of the client has passed.
    pub reset: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendRecord {
    pub service: ServiceId,
    /// Of the service: the packet path needs the difference between the two for its checksums.
    pub listen: SocketAddr,
    /// Of the service.
    pub forwarding: Forwarding,
    pub address: SocketAddr,
    /// Whether it may be given new connections: a retransmitted SYN leaves one that may not.
    pub accepts_new: bool,
    /// `None`: the packet path asks the kernel's FIB, packet by packet.
    pub next_hop: Option<NextHop>,
    /// Bytes of the largest IP packet that reaches it, without outer headers; 0: not known.
    pub max_packet: u16,
    /// The next backend record with the same address and port, in another service.
    pub next_with_same_address: Option<BackendIndex>,
    /// Whether there are other such records, before this one or behind it.
    pub shares_address: bool,
}

impl BackendRecord {
    /// Whether packets of the service's family can be sent to it. Connections of a backend that was
    /// removed may name it when its service is no longer a tunnel, which alone has a family of its
    /// own. The packet path then takes it for one that is not there; its counters stay.
    pub fn is_reachable(&self) -> bool {
        self.forwarding.is_tunnel() || self.listen.is_ipv4() == self.address.is_ipv4()
    }

    /// Whether packets from its address may be replies.
    pub fn is_in_chain(&self) -> bool {
        self.forwarding.sees_replies() && self.is_reachable()
    }
}

/// Why the kernel refused a read or a write of the data plane.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action}")]
pub struct DataPlaneError {
    /// What was being done, as in "write service 3".
    pub action: String,
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl DataPlaneError {
    pub fn new(
        action: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self {
            action: action.into(),
            source: source.into(),
        }
    }
}

/// Changes the data plane. The engine is its only user.
pub trait Writer: Send {
    /// Executes one step of a plan. Repeating a step is harmless.
    fn apply(&mut self, write: &MapWrite) -> Result<(), DataPlaneError>;
}

/// Reads what the data plane counts and holds; cheap enough for every request.
pub trait Reader: Send + Sync {
    fn service_counters(&self, service: ServiceId) -> Result<ServiceCounters, DataPlaneError>;
    fn backend_counters(&self, backend: BackendIndex) -> Result<BackendCounters, DataPlaneError>;
    /// Every reason that was counted at least once, for the packets of one service;
    /// `None` for those aimed at no service in particular.
    fn reasons(&self, service: Option<ServiceId>) -> Result<Vec<ReasonCount>, DataPlaneError>;
    /// Shows every living connection to `visit`, in no particular order, until it returns false.
    fn connections(&self, visit: &mut dyn FnMut(Connection) -> bool);
    /// Living connections by state, and by backend (index `BackendIndex.0`), in one sweep.
    fn connection_totals(&self) -> ConnectionTotals;
    fn interfaces(&self) -> Vec<AttachedInterface>;
    /// The last few refused packets of every service and reason, the newest first.
    fn samples(&self) -> Vec<Sample>;
}

/// Sums over all CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceCounters {
    /// New connections that found no place in the connection table, and were hashed.
    pub untracked: u64,
    pub drops: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReasonCount {
    /// As it stands in JSON and metrics, such as `ttl_expired`.
    pub reason: &'static str,
    /// For people.
    pub description: &'static str,
    /// False: it says what else became of the packets.
    pub dropped: bool,
    pub packets: u64,
}

/// A refused packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// `None`: aimed at no service in particular.
    pub service: Option<ServiceId>,
    /// As in [`ReasonCount`].
    pub reason: &'static str,
    /// Address, and port where it could be read.
    pub source: (IpAddr, Option<u16>),
    pub destination: (IpAddr, Option<u16>),
    /// The name of the one it came in by, or `#` and its index.
    pub interface: String,
    pub age: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    pub service: ServiceId,
    pub backend: BackendIndex,
    pub client: SocketAddr,
    pub state: &'static str,
    pub age: Duration,
    pub idle: Duration,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionTotals {
    /// Connections that there is room for: the flows that the tables were made for, of both address
    /// families, and as large a share of the ports of every address that `full-nat` sends from.
    pub capacity: u64,
    pub used: u64,
    pub established: u64,
    pub half_open: u64,
    pub closing: u64,
    /// Ended by the load balancer, and remembered for as long as either side may still speak.
    pub ended: u64,
    /// Records of each backend, whatever their state.
    pub by_backend: std::collections::HashMap<BackendIndex, u64>,
    /// Those of connections on which data can flow: established, or closed by one side only.
    pub active_by_backend: std::collections::HashMap<BackendIndex, u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachedInterface {
    pub name: String,
    pub ifindex: u32,
    pub mode: AttachMode,
    /// Why this mode and not the wanted one, for people; empty when there is nothing to say.
    pub note: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttachMode {
    Native,
    Generic,
}

impl std::fmt::Display for AttachMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Native => "native",
            Self::Generic => "generic",
        })
    }
}
