use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::{Backend, Check, Name};

/// The services as they are wanted: the file's, with what `lbctl` changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Desired {
    pub services: Vec<Service>,
}

impl Desired {
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|s| s.name.as_str() == name)
    }

    pub fn service_mut(&mut self, name: &str) -> Option<&mut Service> {
        self.services.iter_mut().find(|s| s.name.as_str() == name)
    }
}

/// A virtual address and the backends behind it, as wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    pub name: Name,
    pub listen: SocketAddr,
    pub protocol: Protocol,
    pub forwarding: Forwarding,
    pub scheduler: Scheduler,
    pub table_size: TableSize,
    pub check: Check,
    pub timeouts: TimeoutOverrides,
    /// Addresses that `full-nat` sends from; empty in every other mode.
    #[serde(default)]
    pub snat: Vec<IpAddr>,
    #[serde(default)]
    pub tunnel: Tunnel,
    #[serde(default)]
    pub no_backend: NoBackend,
    #[serde(default)]
    pub on_expiry: OnExpiry,
    #[serde(default)]
    pub on_backend_down: OnBackendDown,
    pub backends: Vec<Backend>,
}

impl Service {
    pub fn backend(&self, name: &str) -> Option<&Backend> {
        self.backends.iter().find(|b| b.name.as_str() == name)
    }

    pub fn backend_mut(&mut self, name: &str) -> Option<&mut Backend> {
        self.backends.iter_mut().find(|b| b.name.as_str() == name)
    }

    /// Whether replies of a backend with this address come back through the load balancer.
    pub fn sees_replies_of(&self, backend: IpAddr) -> bool {
        self.forwarding.sees_replies() && self.can_reach(backend)
    }

    /// Whether packets of this service's family can be sent to a backend with this address: a
    /// tunnel alone has a family of its own.
    pub fn can_reach(&self, backend: IpAddr) -> bool {
        self.forwarding.is_tunnel() || self.listen.is_ipv4() == backend.is_ipv4()
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    #[default]
    Tcp,
}

/// How a packet reaches its backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Forwarding {
    /// The destination is rewritten, and the source of replies rewritten back.
    #[default]
    Nat,
    /// Destination and source are rewritten.
    FullNat,
    /// The Ethernet address is rewritten; the backend answers the client itself.
    Dsr,
    /// An outer IP header is put in front; the backend answers the client itself.
    Ipip,
    /// Outer IP and UDP headers are put in front (GUE variant 1); likewise.
    Gue,
}

impl Forwarding {
    /// Whether replies come back through the load balancer.
    pub fn sees_replies(self) -> bool {
        matches!(self, Self::Nat | Self::FullNat)
    }

    /// Whether the backend gets packets for the service's own address and port.
    pub fn keeps_destination(self) -> bool {
        !self.sees_replies()
    }

    /// Whether connections that were opened in this mode end when their service changes to `other`:
    /// between modes that leave addresses and ports alone, a backend sees no difference.
    pub fn breaks_connections_for(self, other: Self) -> bool {
        self != other && !(self.keeps_destination() && other.keeps_destination())
    }

    pub fn is_tunnel(self) -> bool {
        matches!(self, Self::Ipip | Self::Gue)
    }

    /// Bytes that are put in front of a packet for a backend with this address.
    pub fn overhead(self, backend: IpAddr) -> u16 {
        let ip = if backend.is_ipv4() { 20 } else { 40 };
        match self {
            Self::Nat | Self::FullNat | Self::Dsr => 0,
            Self::Ipip => ip,
            Self::Gue => ip + 8,
        }
    }
}

/// What the outer headers of a tunnel say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tunnel {
    /// The outer source towards IPv4 backends; the host bits, at most 16 of them, are set by the
    /// flow's hash, so that receivers spread flows over their queues (S-DSR-2).
    pub source_ipv4: Ipv4Net,
    /// Towards IPv6 backends, likewise.
    pub source_ipv6: Ipv6Net,
    /// UDP destination port of `gue`.
    pub port: u16,
}

impl Tunnel {
    /// The port that IANA has assigned to GUE.
    pub const GUE_PORT: u16 = 6080;
    /// Most host bits that a flow's hash sets.
    pub const ENTROPY_BITS: u8 = 16;
}

impl Default for Tunnel {
    fn default() -> Self {
        Self {
            source_ipv4: Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 0, 0), 16),
            // The discard-only prefix (RFC 6666): nobody answers to it, nobody owns it.
            source_ipv6: Ipv6Net::new_assert(Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 0), 112),
            port: Self::GUE_PORT,
        }
    }
}

/// What a client is told whose connection no backend can take (S-CT-7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NoBackend {
    /// A RST.
    #[default]
    Rst,
    /// Nothing.
    Drop,
    /// ICMP "port unreachable".
    Icmp,
}

/// What becomes of an established connection that has been idle for too long (S-CT-6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnExpiry {
    /// It is forgotten: its next packet, if there is one, goes where its slot leads.
    #[default]
    Forget,
    /// Both ends get a RST.
    Reset,
}

/// What becomes of the connections of a backend that goes down (S-CT-6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnBackendDown {
    /// They stay with it: it may be back before they time out.
    #[default]
    Keep,
    /// Both ends get a RST.
    Reset,
}

/// How a new connection finds its backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheduler {
    /// Weighted Maglev hashing of the client's address and port.
    #[default]
    Maglev,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "tcp",
        })
    }
}

impl fmt::Display for Forwarding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Nat => "nat",
            Self::FullNat => "full-nat",
            Self::Dsr => "dsr",
            Self::Ipip => "ipip",
            Self::Gue => "gue",
        })
    }
}

impl fmt::Display for NoBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Rst => "rst",
            Self::Drop => "drop",
            Self::Icmp => "icmp",
        })
    }
}

impl fmt::Display for OnExpiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Forget => "forget",
            Self::Reset => "reset",
        })
    }
}

impl fmt::Display for OnBackendDown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Keep => "keep",
            Self::Reset => "reset",
        })
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Edge => "edge",
            Self::Rfc => "rfc",
        })
    }
}

impl fmt::Display for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Maglev => "maglev",
        })
    }
}

/// Slots of a service's table: a prime from 251 to 65 537.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct TableSize(u32);

impl TableSize {
    pub const MAX: u32 = 65_537;
    pub const MIN: u32 = 251;

    pub fn slots(self) -> u32 {
        self.0
    }
}

impl Default for TableSize {
    fn default() -> Self {
        Self(Self::MAX)
    }
}

impl TryFrom<u32> for TableSize {
    type Error = String;

    fn try_from(slots: u32) -> Result<Self, String> {
        let prime = |n: u32| {
            n > 1
                && (2..)
                    .take_while(|d| d * d <= n)
                    .all(|d| !n.is_multiple_of(d))
        };
        if !(Self::MIN..=Self::MAX).contains(&slots) {
            return Err(format!(
                "a table has {} to {} slots, not {slots}",
                Self::MIN,
                Self::MAX
            ));
        }
        if !prime(slots) {
            let nearest = (slots..=Self::MAX).find(|&n| prime(n)).unwrap_or(Self::MAX);
            return Err(format!(
                "the number of slots must be prime: {slots} is not, {nearest} is"
            ));
        }
        Ok(Self(slots))
    }
}

impl From<TableSize> for u32 {
    fn from(size: TableSize) -> Self {
        size.0
    }
}

/// The set of idle timeouts that a service starts from (S-NAT-3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Short ones for half-open and closing connections: for a balancer that faces the Internet.
    #[default]
    Edge,
    /// RFC 5382 REQ-5: established ≥ 2 h 4 min, everything else ≥ 4 min.
    Rfc,
}

/// Idle timeouts that a service sets for itself; the rest come from a [`Profile`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeoutOverrides {
    /// Where the rest come from; `None`: from the profile of `[conntrack]`.
    #[serde(default)]
    pub profile: Option<Profile>,
    pub half_open: Option<Duration>,
    pub established: Option<Duration>,
    pub fin_wait: Option<Duration>,
    pub closing: Option<Duration>,
    pub time_wait: Option<Duration>,
    pub reset: Option<Duration>,
}

impl TimeoutOverrides {
    /// Each as the configuration calls it.
    pub fn by_key(&self) -> [(&'static str, Option<Duration>); 6] {
        [
            ("half_open", self.half_open),
            ("established", self.established),
            ("fin_wait", self.fin_wait),
            ("closing", self.closing),
            ("time_wait", self.time_wait),
            ("reset", self.reset),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_size_is_prime_and_bounded() {
        assert_eq!(TableSize::try_from(65_537).unwrap().slots(), 65_537);
        assert_eq!(TableSize::try_from(251).unwrap().slots(), 251);
        assert!(TableSize::try_from(1000).unwrap_err().contains("1009"));
        assert!(TableSize::try_from(65_539).is_err());
        assert!(TableSize::try_from(3).is_err());
    }
}
