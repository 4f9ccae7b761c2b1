use super::NOTHING;
use crate::{
    api::{BackendInfo, NextHopInfo},
    cli::{
        humane::{bytes, count},
        table::Table,
    },
};

pub(in crate::cli) fn backends(list: &[BackendInfo]) -> String {
    backend_table(list, true)
}

pub(super) fn backend_table(list: &[BackendInfo], with_service: bool) -> String {
    let headings = [
        "NAME",
        "ADDRESS",
        ">WEIGHT",
        "ADMIN",
        "HEALTH",
        ">SLOTS",
        ">ACTIVE",
        ">CONNECTIONS",
        ">PACKETS",
        ">BYTES",
        "NEXT-HOP",
        "REASON",
    ];
    let cells = |backend: &BackendInfo| {
        [
            backend.name.to_string(),
            backend.address.to_string(),
            backend.weight.to_string(),
            backend.admin.to_string(),
            backend.health.to_string(),
            backend.slots.to_string(),
            count(backend.active_connections),
            count(backend.counters.connections),
            count(backend.counters.packets),
            bytes(backend.counters.bytes),
            backend
                .next_hop
                .as_ref()
                .map_or_else(|| NOTHING.to_owned(), next_hop),
            reason_of(backend),
        ]
    };
    let service = with_service.then_some("SERVICE");
    let headings: Vec<_> = service.into_iter().chain(headings).collect();
    let mut table = Table::new(&headings);
    for backend in list {
        let service = with_service.then(|| backend.service.to_string());
        table.row(service.into_iter().chain(cells(backend)));
    }
    table.to_string()
}

/// What the probes say, and what keeps packets from being sent.
fn reason_of(backend: &BackendInfo) -> String {
    let no_hop = backend
        .next_hop_error
        .as_ref()
        .map(|error| format!("no next hop: {error}"));
    let parts: Vec<_> = Some(backend.reason.clone())
        .into_iter()
        .chain(no_hop)
        .filter(|part| !part.is_empty())
        .collect();
    parts.join("; ")
}

fn next_hop(hop: &NextHopInfo) -> String {
    let mut text = format!("{} via {}", hop.mac, hop.interface);
    for vlan in &hop.vlans {
        text += &format!(" vlan {vlan}");
    }
    text
}
