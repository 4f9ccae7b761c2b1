use super::NOTHING;
use crate::{
    api::{ReasonInfo, StatsInfo},
    cli::{
        humane::{bytes, count},
        table::Table,
    },
};

pub(in crate::cli) fn stats(stats: &StatsInfo) -> String {
    let mut services = Table::new(&[
        "SERVICE",
        ">ACTIVE",
        ">CONNECTIONS",
        ">PACKETS-IN",
        ">BYTES-IN",
        ">PACKETS-OUT",
        ">BYTES-OUT",
        ">DROPS",
        ">UNTRACKED",
    ]);
    for service in &stats.services {
        let traffic = &service.counters.traffic;
        services.row([
            service.name.to_string(),
            count(service.active_connections),
            count(traffic.connections),
            count(traffic.packets_in),
            bytes(traffic.bytes_in),
            count(traffic.packets_out),
            bytes(traffic.bytes_out),
            count(service.counters.drops),
            count(service.counters.untracked),
        ]);
    }
    let mut backends = Table::new(&[
        "SERVICE",
        "BACKEND",
        ">ACTIVE",
        ">CONNECTIONS",
        ">PACKETS-IN",
        ">BYTES-IN",
        ">PACKETS-OUT",
        ">BYTES-OUT",
    ]);
    for backend in &stats.backends {
        let traffic = &backend.counters;
        backends.row([
            backend.service.to_string(),
            backend.name.to_string(),
            count(backend.active_connections),
            count(traffic.connections),
            count(traffic.packets_in),
            bytes(traffic.bytes_in),
            count(traffic.packets_out),
            bytes(traffic.bytes_out),
        ]);
    }
    let mut reasons = Table::new(&["SERVICE", "REASON", "VERDICT", ">PACKETS", "DESCRIPTION"]);
    let of_services = stats.services.iter().flat_map(|service| {
        let name = service.name.as_str();
        service.reasons.iter().map(move |reason| (name, reason))
    });
    let of_none = stats.reasons.iter().map(|reason| (NOTHING, reason));
    for (service, reason) in of_services.chain(of_none) {
        reasons.row([
            service.to_owned(),
            reason.reason.clone(),
            verdict(reason).to_owned(),
            count(reason.packets),
            reason.description.clone(),
        ]);
    }
    format!("{services}\n{backends}\n{reasons}")
}

/// What a reason counts beside drops has no verdict of its own: such packets were sent on, or are answers.
pub(super) fn verdict(reason: &ReasonInfo) -> &'static str {
    if reason.dropped { "dropped" } else { "-" }
}
