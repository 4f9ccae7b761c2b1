use std::fmt;

use serde::{Deserialize, Serialize};

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MacAddr(pub [u8; 6]);

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// An 802.1Q (`0x8100`) or 802.1ad (`0x88a8`) tag, both fields in host order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VlanTag {
    pub tpid: u16,
    pub tci: u16,
}

/// Where a backend's packets leave this host: everything that the packet path writes into the
/// Ethernet header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// The interface that transmits: for a VLAN device its parent.
    pub ifindex: u32,
    /// Its name, for people.
    pub interface: String,
    pub source_mac: MacAddr,
    pub destination_mac: MacAddr,
    /// Outermost first; at most two.
    pub vlan: Vec<VlanTag>,
    /// MTU of the route, in bytes of the IP packet.
    pub mtu: u16,
}

/// Why a backend has no next hop.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    #[error("not yet resolved")]
    Pending,
    #[error("no route to {0}")]
    NoRoute(std::net::IpAddr),
    #[error("{address} is an address of this host")]
    Local { address: std::net::IpAddr },
    #[error("no neighbour answers for {address} on {interface}")]
    NoNeighbour {
        address: std::net::IpAddr,
        interface: String,
    },
    #[error("interface {0} is down")]
    InterfaceDown(String),
    #[error("interface {0} is not Ethernet")]
    NotEthernet(String),
    /// There is a way out that the kernel could take and the packet path cannot.
    #[error("the packet path cannot send through {interface}: {reason}")]
    Unsupported {
        interface: String,
        reason: &'static str,
    },
}
