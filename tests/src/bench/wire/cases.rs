//! What is measured on the wire.

use std::net::IpAddr;

use crate::bench::{
    balancer::{Balancer, Service},
    cases::{CLIENTS4, CLIENTS6},
    frame::{ACK, Direction, Template},
    section::Goal,
};

/// Established connections of each kind.
pub(super) const CONNECTIONS: u32 = 64 << 10;
/// Name of the figure that ratios refer to.
pub(super) const REFERENCE: &str = "floor: MAC swap, TX";

const FEW: u32 = 1 << 10;

pub(super) struct Case {
    pub(super) name: String,
    pub(super) subject: Subject,
    pub(super) out: Out,
    pub(super) template: Template,
    /// Established connections that the packets belong to, at random.
    pub(super) flows: u32,
    pub(super) goal: Option<Goal>,
}

/// The program at the balancer's interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    Floor(&'static str),
    Balancer,
}

/// Where packets go from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Out {
    Nowhere,
    /// Out of the interface that they came in by.
    Back,
    /// Out of the other one.
    Through,
}

pub(super) fn all(balancer: &Balancer) -> Vec<Case> {
    let floor = |name: &str, program, out| Case {
        name: name.to_owned(),
        subject: Subject::Floor(program),
        out,
        template: template(&balancer.ipv4, CLIENTS4.established),
        flows: FEW,
        goal: None,
    };
    let ours = |name: &str, service: &Service, clients, flows| Case {
        name: name.to_owned(),
        subject: Subject::Balancer,
        out: Out::Back,
        template: template(service, clients),
        flows,
        goal: None,
    };
    let (ipv4, ipv6) = (CLIENTS4.established, CLIENTS6.established);
    vec![
        floor("floor: DROP", "floor_drop", Out::Nowhere),
        floor(REFERENCE, "floor_swap_tx", Out::Back),
        floor("floor: redirect, two arms", "floor_redirect", Out::Through),
        Case {
            goal: Some(Goal::Ratio(1.35)),
            ..ours("IPv4 nat, 1 k flows", &balancer.ipv4, ipv4, FEW)
        },
        Case {
            goal: Some(Goal::Ratio(1.9)),
            ..ours("IPv4 nat, 64 k flows", &balancer.ipv4, ipv4, CONNECTIONS)
        },
        ours("IPv6 nat, 1 k flows", &balancer.ipv6, ipv6, FEW),
        ours("IPv6 nat, 64 k flows", &balancer.ipv6, ipv6, CONNECTIONS),
        ours("IPv4 ipip, 1 k flows", &balancer.ipip, ipv4, FEW),
        ours("IPv4 ipip, 64 k flows", &balancer.ipip, ipv4, CONNECTIONS),
        Case {
            out: Out::Through,
            ..ours("IPv4 nat, 1 k flows, two arms", &balancer.ipv4, ipv4, FEW)
        },
        Case {
            out: Out::Through,
            ..ours(
                "IPv4 nat, 64 k flows, two arms",
                &balancer.ipv4,
                ipv4,
                CONNECTIONS,
            )
        },
    ]
}

fn template(service: &Service, clients: IpAddr) -> Template {
    Template {
        direction: Direction::Request,
        clients,
        other: service.listen,
        flags: ACK,
    }
}
