//! What is measured on the wire.

use lb_userspace::model::{Forwarding, Scheduler};

use crate::bench::{
    program::{
        cases::Clients,
        frame::{ACK, Template},
        handshake::request,
        service::Service,
    },
    section::Goal,
};

/// Established connections of each service.
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

/// Those that connections are opened with, each by its name.
pub(super) fn services() -> Vec<(&'static str, Service)> {
    let services = [
        ("IPv4 nat", true, Forwarding::Nat),
        ("IPv6 nat", false, Forwarding::Nat),
        ("IPv4 ipip", true, Forwarding::Ipip),
    ];
    (0..)
        .zip(services)
        .map(|(number, (name, ipv4, forwarding))| {
            let service = Service::new(number, ipv4, forwarding, Scheduler::default());
            (name, service)
        })
        .collect()
}

pub(super) fn all(services: &[(&'static str, Service)]) -> Vec<Case> {
    let hits = |name: &str, service: &Service, out| {
        [("1 k flows", FEW), ("64 k flows", CONNECTIONS)].map(|(many, flows)| Case {
            name: match out {
                Out::Through => format!("{name}, {many}, two arms"),
                Out::Back | Out::Nowhere => format!("{name}, {many}"),
            },
            subject: Subject::Balancer,
            out,
            template: hit(service),
            flows,
            goal: None,
        })
    };
    let mut cases = Vec::new();
    if let Some((name, first)) = services.first() {
        let floor = |name: &str, program, out| Case {
            name: name.to_owned(),
            subject: Subject::Floor(program),
            out,
            template: hit(first),
            flows: FEW,
            goal: None,
        };
        cases.extend([
            floor("floor: DROP", "floor_drop", Out::Nowhere),
            floor(REFERENCE, "floor_swap_tx", Out::Back),
            floor("floor: redirect, two arms", "floor_redirect", Out::Through),
        ]);
        let goals = [1.35, 1.9].map(Goal::Ratio);
        let with_goals = hits(name, first, Out::Back).into_iter().zip(goals);
        cases.extend(with_goals.map(|(case, goal)| Case {
            goal: Some(goal),
            ..case
        }));
        cases.extend(hits(name, first, Out::Through));
    }
    for (name, service) in services.iter().skip(1) {
        cases.extend(hits(name, service, Out::Back));
    }
    cases
}

fn hit(service: &Service) -> Template {
    let clients = Clients::of(service.is_ipv4()).established;
    request(service, clients, ACK)
}
