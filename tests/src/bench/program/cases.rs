//! What is measured.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{
    balancer::{Balancer, Counts},
    frame::{ACK, Direction, SYN, Template},
    generator::{DROP, Flows, NOTHING, PASS, TX},
};

/// Established connections for the measured hits.
pub(super) const CONNECTIONS: u32 = 64 << 10;
/// Established connections, all with the first backend, for the measured replies.
pub(super) const REPLIED_TO: u32 = 1 << 10;

/// One line of the table.
pub(super) struct Case {
    pub(super) name: String,
    pub(super) subject: Subject,
    pub(super) template: Template,
    pub(super) flows: Packets,
    /// Verdict on each packet.
    pub(super) verdict: u32,
    /// What one packet adds to the balancer's counters.
    pub(super) counts: Counts,
}

/// The program behind the generator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    Floor(&'static str),
    Balancer,
}

/// Whose packets they are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Packets {
    Established(Flows),
    /// Each of a client never seen before.
    New,
}

/// Networks that clients come from.
pub(super) struct Clients {
    pub(super) established: IpAddr,
    pub(super) replied_to: IpAddr,
    new: IpAddr,
}

pub(super) const CLIENTS4: Clients = Clients {
    established: IpAddr::V4(Ipv4Addr::new(10, 1, 0, 0)),
    replied_to: IpAddr::V4(Ipv4Addr::new(10, 2, 0, 0)),
    new: IpAddr::V4(Ipv4Addr::new(10, 3, 0, 0)),
};
pub(super) const CLIENTS6: Clients = Clients {
    established: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0)),
    replied_to: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0)),
    new: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 3, 0, 0, 0, 0, 0)),
};

const STRANGER4: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1));
const STRANGER6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xfe, 0, 0, 0, 0, 1));

pub(super) fn all(balancer: &Balancer) -> Vec<Case> {
    let mut cases = floors(&balancer.ipv4.listen);
    cases.extend(family(balancer, true));
    cases.extend(family(balancer, false));
    cases
}

/// Name of the floor that ratios refer to.
pub(super) const REFERENCE: &str = "floor: MAC swap, TX";

fn floors(listen: &SocketAddr) -> Vec<Case> {
    let floor = |name: &str, program, verdict| Case {
        name: name.to_owned(),
        subject: Subject::Floor(program),
        template: Template {
            direction: Direction::Request,
            clients: CLIENTS4.established,
            other: *listen,
            flags: ACK,
        },
        flows: Packets::Established(Flows::Random(1 << 10)),
        verdict,
        counts: Counts::default(),
    };
    vec![
        floor("floor: DROP", NOTHING, DROP),
        floor("floor: PASS", "floor_pass", PASS),
        floor(REFERENCE, "floor_swap_tx", TX),
    ]
}

fn family(balancer: &Balancer, ipv4: bool) -> Vec<Case> {
    let service = balancer.service(ipv4);
    let (label, clients, stranger) = if ipv4 {
        ("IPv4", CLIENTS4, STRANGER4)
    } else {
        ("IPv6", CLIENTS6, STRANGER6)
    };
    let hit = Case {
        name: String::new(),
        subject: Subject::Balancer,
        template: Template {
            direction: Direction::Request,
            clients: clients.established,
            other: service.listen,
            flags: ACK,
        },
        flows: Packets::Established(Flows::Random(1)),
        verdict: TX,
        counts: Counts {
            packets_in: 1,
            ..Counts::default()
        },
    };
    let mut cases = vec![Case {
        name: format!("{label} not ours, PASS"),
        template: Template {
            other: SocketAddr::new(stranger, 80),
            ..hit.template
        },
        flows: Packets::Established(Flows::Random(1 << 10)),
        verdict: PASS,
        counts: Counts::default(),
        ..hit
    }];
    for (count, flows) in [
        ("1 flow", 1),
        ("1 k flows", 1 << 10),
        ("64 k flows", CONNECTIONS),
    ] {
        cases.push(Case {
            name: format!("{label} nat hit, {count}"),
            flows: Packets::Established(Flows::Random(flows)),
            ..hit
        });
    }
    // All with the same backend: a reply names its backend, and the generator makes one frame.
    if let Some(&(_, backend)) = service.backends.first() {
        cases.push(Case {
            name: format!("{label} nat reply, 1 k flows"),
            template: Template {
                direction: Direction::Reply,
                clients: clients.replied_to,
                other: backend,
                flags: ACK,
            },
            flows: Packets::Established(Flows::Random(REPLIED_TO)),
            counts: Counts {
                packets_out: 1,
                ..Counts::default()
            },
            ..hit
        });
    }
    cases.push(Case {
        name: format!("{label} nat new flow, tracked"),
        template: Template {
            clients: clients.new,
            flags: SYN,
            ..hit.template
        },
        flows: Packets::New,
        counts: Counts {
            connections: 1,
            packets_in: 1,
            ..Counts::default()
        },
        ..hit
    });
    cases
}
