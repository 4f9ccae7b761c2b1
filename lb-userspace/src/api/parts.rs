//! Services and backends as the documents of [`types`](super::types): what the engine knows of
//! them with what the data plane counts.

use super::{
    BackendInfo, CheckInfo, NextHopInfo, ReasonInfo, ServiceInfo, ServiceTotals, TableInfo,
    TimeoutsInfo, Traffic, TunnelInfo,
};
use crate::{
    config::timeouts,
    dataplane::{BackendCounters, ConnectionTotals, DataPlaneError, Reader, ReasonCount},
    engine::{BackendView, ServiceView},
    model::{
        BackendIndex, Check, CheckKind, Forwarding, Health, NextHop, Profile, Service,
        TimeoutOverrides, format_duration,
    },
};

pub(super) fn service(
    view: &ServiceView,
    reader: &dyn Reader,
    totals: &ConnectionTotals,
) -> Result<ServiceInfo, DataPlaneError> {
    let indices: Vec<_> = view
        .backends
        .iter()
        .map(|b| b.index)
        .chain(view.removed.iter().copied())
        .collect();
    let mut sums = view.retired;
    for index in &indices {
        sums += reader.backend_counters(*index)?;
    }
    let own = reader.service_counters(view.id)?;
    Ok(ServiceInfo {
        name: view.service.name.clone(),
        listen: view.service.listen,
        protocol: view.service.protocol,
        forwarding: view.service.forwarding,
        scheduler: view.service.scheduler,
        backends: view.backends.len(),
        healthy: view.backends.iter().filter(|b| is_healthy(b)).count(),
        table: TableInfo {
            slots: view.slots,
            checksum: hexadecimal(view.checksum),
            base_checksum: hexadecimal(view.base_checksum),
        },
        active_connections: active(totals, &indices),
        counters: ServiceTotals {
            traffic: traffic(sums),
            drops: own.drops,
            untracked: own.untracked,
        },
        snat: view.service.snat.clone(),
        tunnel: tunnel(&view.service),
        no_backend: view.service.no_backend,
        on_expiry: view.service.on_expiry,
        on_backend_down: view.service.on_backend_down,
    })
}

fn tunnel(service: &Service) -> Option<TunnelInfo> {
    let Service {
        forwarding, tunnel, ..
    } = service;
    forwarding.is_tunnel().then_some(TunnelInfo {
        sources: [tunnel.source_ipv4.into(), tunnel.source_ipv6.into()],
        port: (*forwarding == Forwarding::Gue).then_some(tunnel.port),
    })
}

pub(super) fn backend(
    service: &ServiceView,
    view: &BackendView,
    reader: &dyn Reader,
    totals: &ConnectionTotals,
) -> Result<BackendInfo, DataPlaneError> {
    let (next_hop, next_hop_error) = match &view.next_hop {
        Ok(hop) => (Some(next_hop_info(hop)), None),
        Err(unresolved) => (None, Some(unresolved.to_string())),
    };
    Ok(BackendInfo {
        service: service.service.name.clone(),
        name: view.backend.name.clone(),
        address: view.backend.address,
        weight: view.backend.weight,
        admin: view.backend.admin,
        health: view.health,
        reason: view.reason.clone(),
        slots: view.slots,
        active_connections: active(totals, &[view.index]),
        counters: traffic(reader.backend_counters(view.index)?),
        next_hop,
        next_hop_error,
    })
}

/// A backend that no probe has found down: one that is not probed counts as healthy.
pub(super) fn is_healthy(backend: &BackendView) -> bool {
    backend.health != Health::Down
}

pub(super) fn active(totals: &ConnectionTotals, indices: &[BackendIndex]) -> u64 {
    indices
        .iter()
        .filter_map(|index| totals.active_by_backend.get(index))
        .sum()
}

fn traffic(counters: BackendCounters) -> Traffic {
    let BackendCounters {
        connections,
        packets_in,
        bytes_in,
        packets_out,
        bytes_out,
    } = counters;
    Traffic {
        connections,
        packets: packets_in + packets_out,
        bytes: bytes_in + bytes_out,
        packets_in,
        packets_out,
        bytes_in,
        bytes_out,
    }
}

fn hexadecimal(checksum: u64) -> String {
    format!("{checksum:016x}")
}

pub(super) fn check(check: &Check) -> CheckInfo {
    let (kind, path, host) = match &check.kind {
        CheckKind::None => ("none", None, None),
        CheckKind::Tcp => ("tcp", None, None),
        CheckKind::Http { path, host } => ("http", Some(path.clone()), host.clone()),
    };
    CheckInfo {
        kind: kind.to_owned(),
        path,
        host,
        interval: format_duration(check.interval),
        timeout: format_duration(check.timeout),
        rise: check.rise,
        fall: check.fall,
    }
}

/// `profile` is that of services which name none.
pub(super) fn timeouts_info(profile: Profile, overrides: &TimeoutOverrides) -> TimeoutsInfo {
    let timeouts = timeouts(profile, overrides);
    TimeoutsInfo {
        profile: overrides.profile.unwrap_or(profile),
        half_open: format_duration(timeouts.half_open),
        established: format_duration(timeouts.established),
        fin_wait: format_duration(timeouts.fin_wait),
        closing: format_duration(timeouts.closing),
        time_wait: format_duration(timeouts.time_wait),
        reset: format_duration(timeouts.reset),
    }
}

fn next_hop_info(hop: &NextHop) -> NextHopInfo {
    const VLAN_ID: u16 = 0x0fff;
    NextHopInfo {
        interface: hop.interface.clone(),
        mac: hop.destination_mac.to_string(),
        vlans: hop.vlan.iter().map(|tag| tag.tci & VLAN_ID).collect(),
        mtu: hop.mtu,
    }
}

pub(super) fn reasons(counts: Vec<ReasonCount>) -> Vec<ReasonInfo> {
    counts
        .into_iter()
        .map(|count| ReasonInfo {
            reason: count.reason.to_owned(),
            description: count.description.to_owned(),
            dropped: count.dropped,
            packets: count.packets,
        })
        .collect()
}
