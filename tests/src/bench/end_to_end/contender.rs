//! The ways from the client to the servers.

use std::fmt;

use lb_userspace::model::Forwarding;

/// A way from the client to the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contender {
    /// A wire of their own, past the balancer.
    Direct,
    /// The balancer's kernel routes, and nothing else is done with a packet.
    Routed,
    /// Netfilter's destination NAT with connection tracking.
    Nftables,
    /// In TCP mode.
    Haproxy,
    /// nginx's module `stream`.
    NginxStream,
    Lb(Forwarding),
}

impl Contender {
    /// In the order in which they take their turns.
    pub(super) const ALL: [Self; 10] = [
        Self::Direct,
        Self::Routed,
        Self::Nftables,
        Self::Haproxy,
        Self::NginxStream,
        Self::Lb(Forwarding::Nat),
        Self::Lb(Forwarding::FullNat),
        Self::Lb(Forwarding::Dsr),
        Self::Lb(Forwarding::Ipip),
        Self::Lb(Forwarding::Gue),
    ];

    /// The modes of the load balancer.
    pub(super) fn modes() -> impl Iterator<Item = Forwarding> {
        Self::ALL
            .into_iter()
            .filter_map(|contender| match contender {
                Self::Lb(forwarding) => Some(forwarding),
                _ => None,
            })
    }

    /// Position in [`Contender::ALL`].
    pub(super) fn index(self) -> usize {
        let position = Self::ALL.iter().position(|&other| other == self);
        position.unwrap_or_default()
    }
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct => f.pad("direct"),
            Self::Routed => f.pad("routed"),
            Self::Nftables => f.pad("nftables"),
            Self::Haproxy => f.pad("HAProxy"),
            Self::NginxStream => f.pad("nginx stream"),
            Self::Lb(forwarding) => f.pad(&format!("lb {forwarding}")),
        }
    }
}
