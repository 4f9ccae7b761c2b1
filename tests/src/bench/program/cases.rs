//! What is measured.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use lb_common::lab::{Dnat, FIRST_PORT};
use lb_userspace::model::Forwarding;

use super::{
    balancer::Counts,
    frame::{ACK, Maker, SYN, Template},
    generator::{DROP, Flows, NOTHING, PASS, TX},
    handshake::{listed_reply, request},
    service::Service,
};
use crate::bench::section::Goal;

/// Established connections that replies are measured of, all with the first backend.
pub(super) const REPLIED_TO: u32 = 1 << 10;
/// Established connections that hits are measured of, at most; and those of a service that has more
/// of them than others ([`has_more`]).
pub(super) const MOST: u32 = 64 << 10;
pub(super) const MOST_WITH_MORE: u32 = 512 << 10;

/// One line of the table.
pub(super) struct Case {
    pub(super) name: String,
    pub(super) subject: Subject,
    pub(super) template: Template,
    pub(super) flows: Packets,
    /// What fills the caches beforehand.
    pub(super) before: Option<Traffic>,
    /// For a template whose flows are in the list.
    pub(super) list: Vec<u32>,
    /// Verdict on each packet.
    pub(super) verdict: u32,
    /// What one packet adds to the services' counters.
    pub(super) counts: Counts,
    pub(super) goal: Option<Goal>,
}

/// The program behind the generator.
#[derive(Clone, Debug)]
pub(super) enum Subject {
    Floor(&'static str),
    /// The balancer, and the services that the packets are counted for.
    Balancer(Vec<Service>),
}

/// Whose packets they are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Packets {
    Established(Flows),
    /// Each of a client never seen before.
    New,
}

/// Packets of established connections.
#[derive(Clone, Debug)]
pub(super) struct Traffic {
    pub(super) template: Template,
    pub(super) flows: Flows,
    pub(super) packets: u32,
}

/// So many flows and more fill the caches before they are measured: with how many packets each, and
/// with how many at most.
const COLD: u32 = (1 << 10) + 1;
const TO_WARM_A_FLOW: u32 = 2;
const MOST_TO_WARM: u32 = 200_000;

/// Networks that clients come from.
pub(in crate::bench) struct Clients {
    pub(in crate::bench) established: IpAddr,
    pub(super) replied_to: IpAddr,
    pub(in crate::bench) new: IpAddr,
    /// Not a client, nor a service.
    pub(in crate::bench) stranger: IpAddr,
}

pub(super) const CLIENTS4: Clients = Clients {
    established: IpAddr::V4(Ipv4Addr::new(10, 1, 0, 0)),
    replied_to: IpAddr::V4(Ipv4Addr::new(10, 2, 0, 0)),
    new: IpAddr::V4(Ipv4Addr::new(10, 64, 0, 0)),
    stranger: IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)),
};
pub(super) const CLIENTS6: Clients = Clients {
    established: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0)),
    replied_to: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0)),
    new: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 3, 0, 0, 0, 0, 0)),
    stranger: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xfe, 0, 0, 0, 0, 1)),
};

impl Clients {
    pub(in crate::bench) const fn of(service_is_ipv4: bool) -> &'static Self {
        if service_is_ipv4 {
            &CLIENTS4
        } else {
            &CLIENTS6
        }
    }
}

/// Whether this is the service that has more connections than others.
pub(super) fn has_more(service: &Service) -> bool {
    service.is_ipv4() && service.forwarding == Forwarding::Nat
}

/// Name of the floor that ratios refer to.
pub(super) const REFERENCE: &str = "floor: MAC swap, TX";

pub(super) fn floors() -> Vec<Case> {
    let (address, port) = Dnat::FROM;
    let floor = |name: &str, program, verdict| Case {
        name: name.to_owned(),
        subject: Subject::Floor(program),
        template: Template {
            maker: Maker::Request,
            clients: CLIENTS4.established,
            port: FIRST_PORT,
            other: SocketAddr::from((address, u16::from_be_bytes(port))),
            flags: ACK,
        },
        flows: Packets::Established(Flows::Random(1 << 10)),
        before: None,
        list: Vec::new(),
        verdict,
        counts: Counts::default(),
        goal: None,
    };
    vec![
        floor("floor: DROP", NOTHING, DROP),
        floor("floor: PASS", "floor_pass", PASS),
        floor(REFERENCE, "floor_swap_tx", TX),
        floor("floor: constant DNAT, TX", "floor_dnat", TX),
    ]
}

/// What is for none of the services, among which there is this one.
pub(super) fn not_ours(service: &Service) -> Case {
    let hit = hit(service, 1 << 10);
    Case {
        name: format!("{} not ours, PASS", family(service)),
        template: Template {
            maker: Maker::Request,
            other: SocketAddr::new(Clients::of(service.is_ipv4()).stranger, 80),
            ..hit.template
        },
        verdict: PASS,
        counts: Counts::default(),
        goal: service.is_ipv4().then_some(Goal::Value(12.0)),
        ..hit
    }
}

/// Packets of established connections.
pub(super) fn hits(service: &Service) -> Vec<Case> {
    let more = has_more(service).then_some(MOST_WITH_MORE);
    [1, 1 << 10, MOST]
        .into_iter()
        .chain(more)
        .map(|flows| hit(service, flows))
        .collect()
}

fn hit(service: &Service, flows: u32) -> Case {
    let count = match flows {
        1 => "1 flow".to_owned(),
        flows => format!("{} k flows", flows >> 10),
    };
    let goal = match (service.is_ipv4(), service.forwarding, flows >> 10) {
        (true, Forwarding::Nat, 1) => Some(40.0),
        (true, Forwarding::Nat, 64) => Some(90.0),
        (true, Forwarding::Nat, 512) => Some(160.0),
        (true, Forwarding::Ipip, 64) => Some(100.0),
        (false, Forwarding::Nat, 64) => Some(120.0),
        _ => None,
    };
    let template = request(service, Clients::of(service.is_ipv4()).established, ACK);
    let before = (flows >= COLD).then(|| Traffic {
        template,
        flows: Flows::Random(flows),
        packets: flows.saturating_mul(TO_WARM_A_FLOW).min(MOST_TO_WARM),
    });
    Case {
        name: format!("{} hit, {count}", label(service)),
        subject: Subject::Balancer(vec![service.clone()]),
        template,
        flows: Packets::Established(Flows::Random(flows)),
        before,
        list: Vec::new(),
        verdict: TX,
        counts: Counts {
            packets_in: 1,
            ..Counts::default()
        },
        goal: goal.map(Goal::Value),
    }
}

/// Replies of the first backend, which has [`REPLIED_TO`] connections. With `full-nat` they are sent
/// to `sent_from`.
pub(super) fn reply(service: &Service, sent_from: &[u32]) -> Option<Case> {
    // All with the same backend: a reply names its backend, and the generator makes one frame.
    let &(_, backend) = service.backends.first()?;
    let template = match service.forwarding {
        Forwarding::Nat => Template {
            maker: Maker::Reply,
            other: backend,
            ..request(service, Clients::of(service.is_ipv4()).replied_to, ACK)
        },
        Forwarding::FullNat => listed_reply(service, backend, ACK),
        _ => return None,
    };
    Some(Case {
        name: format!("{} reply, 1 k flows", label(service)),
        template,
        list: sent_from.to_vec(),
        counts: Counts {
            packets_out: 1,
            ..Counts::default()
        },
        goal: None,
        ..hit(service, REPLIED_TO)
    })
}

/// SYNs that make records.
pub(super) fn new_flow(service: &Service) -> Case {
    let is_first = service.is_ipv4() && service.forwarding == Forwarding::Nat;
    Case {
        name: format!("{} new flow, tracked", label(service)),
        template: request(service, Clients::of(service.is_ipv4()).new, SYN),
        flows: Packets::New,
        counts: Counts {
            connections: 1,
            packets_in: 1,
            ..Counts::default()
        },
        goal: is_first.then_some(Goal::Value(170.0)),
        ..hit(service, 1)
    }
}

/// Lets a packet of each of the first `flows` established connections of `service` come first, as they
/// do between new ones on a busy machine.
pub(super) fn amid(service: &Service, flows: u32, case: Case) -> Case {
    Case {
        before: Some(Traffic {
            template: request(service, Clients::of(service.is_ipv4()).established, ACK),
            flows: Flows::From(0),
            packets: flows,
        }),
        ..case
    }
}

/// The same with another connection table, or another number of connections in it.
pub(super) fn new_flow_where(service: &Service, circumstances: &str) -> Case {
    let new = new_flow(service);
    Case {
        name: format!("{}, {circumstances}", new.name),
        goal: None,
        ..new
    }
}

/// The same for a service that is there for its scheduler's sake.
pub(super) fn scheduled(service: &Service) -> Case {
    Case {
        name: format!("{} SYN, scheduler {}", label(service), service.scheduler),
        goal: None,
        ..new_flow(service)
    }
}

/// SYNs in a flood: hashed and not recorded.
pub(super) fn flooded(service: &Service) -> Case {
    let new = new_flow(service);
    Case {
        name: format!("{} new flow, untracked in a flood", label(service)),
        counts: Counts {
            unrecorded: 1,
            ..new.counts
        },
        goal: None,
        ..new
    }
}

/// Hits on connections of one client that are spread evenly over these services.
pub(super) fn spread(services: &[Service], client: Ipv4Addr) -> Option<Case> {
    let hit = hit(services.first()?, SPREAD);
    let over = match services.len() {
        1 => "1 service".to_owned(),
        count => format!("{count} services"),
    };
    Some(Case {
        name: format!("IPv4 nat hit, 1 k flows over {over}"),
        subject: Subject::Balancer(services.to_vec()),
        template: Template {
            maker: Maker::Spread,
            clients: client.into(),
            ..hit.template
        },
        list: (0..SPREAD)
            .map(|flow| {
                let (service, port) = spread_flow(flow, services.len());
                service as u32 | u32::from(port) << 16
            })
            .collect(),
        goal: None,
        ..hit
    })
}

/// Flows of [`spread`].
pub(super) const SPREAD: u32 = 1 << 10;

/// Which of so many services a flow belongs to, and its number there: what is added to its port.
pub(super) fn spread_flow(flow: u32, services: usize) -> (usize, u16) {
    let flow = flow as usize;
    (flow % services, (flow / services) as u16)
}

fn family(service: &Service) -> &'static str {
    if service.is_ipv4() { "IPv4" } else { "IPv6" }
}

fn label(service: &Service) -> String {
    format!("{} {}", family(service), service.forwarding)
}
