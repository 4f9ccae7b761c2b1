//! What goes over the socket, shared by the daemon and `lbctl`.
//!
//! These are the JSON documents of `lbctl -o json`, which scripts rely on: fields are added, never
//! renamed or removed.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use crate::dataplane::Detached;
use crate::model::{
    Admin, Forwarding, Health, Name, NoBackend, OnBackendDown, OnExpiry, Profile, Protocol,
    Scheduler, Weight,
};

/// Header of the answer to `GET /conntrack`: how many connections match, whatever the limit.
pub const MATCHING_HEADER: &str = "lb-matching";

/// The daemon and what it does at the moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusInfo {
    pub version: String,
    pub pid: u32,
    /// Seconds since the daemon was started; the data plane may be older.
    pub uptime_s: u64,
    /// The daemon's own configuration file.
    pub config: PathBuf,
    /// Directory of the data plane's pins.
    pub bpffs: PathBuf,
    pub interfaces: Vec<InterfaceInfo>,
    pub services: usize,
    pub backends: usize,
    /// Backends that are not down.
    pub healthy: usize,
    pub conntrack: ConntrackStats,
    /// What an operator should look at, one sentence each.
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceInfo {
    pub name: String,
    pub ifindex: u32,
    pub mode: InterfaceMode,
    /// Why this mode and not the wanted one; empty when there is nothing to say.
    pub note: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InterfaceMode {
    Native,
    Generic,
}

/// A service in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceInfo {
    pub name: Name,
    pub listen: SocketAddr,
    pub protocol: Protocol,
    pub forwarding: Forwarding,
    pub scheduler: Scheduler,
    pub backends: usize,
    /// Backends that are not down.
    pub healthy: usize,
    pub table: TableInfo,
    pub active_connections: u64,
    pub counters: ServiceTotals,
    /// Addresses that `full-nat` sends from; empty in other modes.
    #[serde(default)]
    pub snat: Vec<IpAddr>,
    /// Of `ipip` and `gue`.
    #[serde(default)]
    pub tunnel: Option<TunnelInfo>,
    #[serde(default)]
    pub no_backend: NoBackend,
    #[serde(default)]
    pub on_expiry: OnExpiry,
    #[serde(default)]
    pub on_backend_down: OnBackendDown,
}

/// What the outer headers of a service's packets say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelInfo {
    /// Prefixes that the outer source is taken from, IPv4 and IPv6.
    pub sources: [IpNet; 2],
    /// UDP destination port; `gue` only.
    pub port: Option<u16>,
}

/// A service's slot table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableInfo {
    pub slots: u32,
    /// Of the table in use, as 16 hexadecimal digits (a JSON number would lose bits).
    pub checksum: String,
    /// Of the table with every backend usable; equal to `checksum` while they all are.
    pub base_checksum: String,
}

/// Sums of a service since it was made, with those of its former backends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceTotals {
    #[serde(flatten)]
    pub traffic: Traffic,
    pub drops: u64,
    /// New connections that found no place in the connection table, and were hashed.
    pub untracked: u64,
}

/// Forwarded traffic; bytes are those of the IP packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    pub connections: u64,
    /// Both directions.
    pub packets: u64,
    /// Both directions.
    pub bytes: u64,
    /// From clients.
    pub packets_in: u64,
    pub packets_out: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

/// All there is to say about one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceDetail {
    #[serde(flatten)]
    pub service: ServiceInfo,
    pub check: CheckInfo,
    pub timeouts: TimeoutsInfo,
    /// The backends; `backends` is their number.
    pub members: Vec<BackendInfo>,
    pub removed: RemovedInfo,
    pub reasons: Vec<ReasonInfo>,
}

/// Durations are written as in the configuration file, `1s500ms`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckInfo {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    pub interval: String,
    pub timeout: String,
    pub rise: u16,
    pub fall: u16,
}

/// Idle timeouts in force, written as in the configuration file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeoutsInfo {
    /// Where those come from that the service does not set itself.
    #[serde(default)]
    pub profile: Profile,
    pub half_open: String,
    pub established: String,
    pub fin_wait: String,
    pub closing: String,
    pub time_wait: String,
    pub reset: String,
}

/// Backends that were removed and still carry connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedInfo {
    pub backends: usize,
    pub active_connections: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendInfo {
    pub service: Name,
    pub name: Name,
    pub address: SocketAddr,
    pub weight: Weight,
    pub admin: Admin,
    pub health: Health,
    /// Of `health`: what the last probes said.
    pub reason: String,
    /// Of the table in use.
    pub slots: u32,
    /// Established, or closed by one side only.
    pub active_connections: u64,
    pub counters: Traffic,
    pub next_hop: Option<NextHopInfo>,
    /// Why there is no next hop.
    pub next_hop_error: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextHopInfo {
    pub interface: String,
    pub mac: String,
    /// VLAN ids, outermost first.
    pub vlans: Vec<u16>,
    pub mtu: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionInfo {
    pub service: Name,
    /// `null`: the backend was removed.
    pub backend: Option<Name>,
    pub client: SocketAddr,
    pub vip: SocketAddr,
    pub state: String,
    pub age_s: u64,
    pub idle_s: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConntrackStats {
    /// Connections that there is room for: the flows that the tables were made for, of both address
    /// families, and as large a share of the ports of every address that `full-nat` sends from.
    pub capacity: u64,
    pub used: u64,
    pub established: u64,
    pub half_open: u64,
    pub closing: u64,
    /// Ended by the load balancer, which answers what is still sent on them with a RST.
    pub ended: u64,
    /// New connections that found no place and were hashed, of the services that exist.
    pub untracked_total: u64,
}

/// Every counter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatsInfo {
    pub services: Vec<ServiceStats>,
    pub backends: Vec<BackendStats>,
    /// Of packets aimed at no service in particular.
    pub reasons: Vec<ReasonInfo>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStats {
    pub name: Name,
    pub active_connections: u64,
    pub counters: ServiceTotals,
    pub reasons: Vec<ReasonInfo>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendStats {
    pub service: Name,
    pub name: Name,
    pub active_connections: u64,
    pub counters: Traffic,
}

/// Packets that were dropped, or forwarded or answered in a way worth a count, for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReasonInfo {
    pub reason: String,
    pub description: String,
    /// False: this says what else became of them.
    pub dropped: bool,
    pub packets: u64,
}

/// Packets that were counted for one reason, and the last few of them that were dropped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DropInfo {
    /// `null`: aimed at no service in particular.
    pub service: Option<Name>,
    #[serde(flatten)]
    pub reason: ReasonInfo,
    /// The newest first.
    pub samples: Vec<SampleInfo>,
}

/// A refused packet. Source and destination are an address and a port, or the address alone where
/// the port could not be read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SampleInfo {
    pub source: String,
    pub destination: String,
    /// The one it came in by.
    pub interface: String,
    /// Seconds since it was refused.
    pub age_s: f64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddBackend {
    /// Its address and port where none is given.
    #[serde(default)]
    pub name: Option<Name>,
    pub address: SocketAddr,
    #[serde(default)]
    pub weight: Option<Weight>,
}

/// One thing to change about a backend: `{"weight": 5}` or `{"admin": "drain"}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EditBackend {
    Weight(Weight),
    Admin(Admin),
}

/// A file on the daemon's host, as an absolute path; the daemon's own configuration where none is
/// given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRequest {
    #[serde(default)]
    pub file: Option<PathBuf>,
}

/// One line per thing that was changed; empty when everything was as wanted already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    pub changes: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// The file that was read.
    pub file: PathBuf,
    pub changes: Vec<String>,
    /// Settings that differ from those the daemon runs with, and wait for its restart.
    pub restart: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    pub file: PathBuf,
}

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorInfo {
    pub error: String,
    pub code: ErrorCode,
    /// How to mend it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// The kind of a refusal, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request itself makes no sense to the daemon.
    InvalidRequest,
    NotFound,
    /// What is asked for contradicts what there is.
    Conflict,
    InvalidConfig,
    /// The daemon is ending.
    Stopping,
    #[serde(other)]
    Failed,
}
