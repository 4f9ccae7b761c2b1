//! The documents that answer the reading requests, put together from [`parts`](super::parts).

use super::{
    ApiError, BackendInfo, BackendStats, ConntrackStats, Context, InterfaceInfo, InterfaceMode,
    RemovedInfo, ServiceDetail, ServiceInfo, ServiceStats, StatsInfo, StatusInfo,
    lookup::find_service,
    parts::{active, backend, check, is_healthy, reasons, service, timeouts_info},
    warnings::warnings,
};
use crate::{
    dataplane::{AttachMode, AttachedInterface, ConnectionTotals, DataPlaneError, Reader},
    engine::Snapshot,
};

pub(super) fn status(context: &Context) -> Result<StatusInfo, ApiError> {
    let snapshot = context.control.snapshot();
    let interfaces: Vec<_> = context
        .reader
        .interfaces()
        .into_iter()
        .map(interface)
        .collect();
    let totals = context.reader.connection_totals();
    let backends = || snapshot.services.iter().flat_map(|s| &s.backends);
    Ok(StatusInfo {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        uptime_s: context.started.elapsed().as_secs(),
        config: context.config_file.clone(),
        bpffs: context.settings.daemon.bpffs.clone(),
        services: snapshot.services.len(),
        backends: backends().count(),
        healthy: backends().filter(|b| is_healthy(b)).count(),
        conntrack: conntrack(&snapshot, context.reader.as_ref(), &totals)?,
        warnings: warnings(&snapshot, &interfaces),
        interfaces,
    })
}

pub(super) fn services(context: &Context) -> Result<Vec<ServiceInfo>, ApiError> {
    let snapshot = context.control.snapshot();
    let totals = context.reader.connection_totals();
    let mut list = Vec::with_capacity(snapshot.services.len());
    for view in &snapshot.services {
        list.push(service(view, context.reader.as_ref(), &totals)?);
    }
    Ok(list)
}

pub(super) fn service_detail(context: &Context, name: &str) -> Result<ServiceDetail, ApiError> {
    let snapshot = context.control.snapshot();
    let view = find_service(&snapshot, name)?;
    let reader = context.reader.as_ref();
    let totals = reader.connection_totals();
    let mut members = Vec::with_capacity(view.backends.len());
    for backend_view in &view.backends {
        members.push(backend(view, backend_view, reader, &totals)?);
    }
    Ok(ServiceDetail {
        service: service(view, reader, &totals)?,
        check: check(&view.service.check),
        timeouts: timeouts_info(context.settings.conntrack.profile, &view.service.timeouts),
        members,
        removed: RemovedInfo {
            backends: view.removed.len(),
            active_connections: active(&totals, &view.removed),
        },
        reasons: reasons(reader.reasons(Some(view.id))?),
    })
}

/// Backends of one service, or of all of them.
pub(super) fn backends(
    context: &Context,
    service: Option<&str>,
) -> Result<Vec<BackendInfo>, ApiError> {
    let snapshot = context.control.snapshot();
    let totals = context.reader.connection_totals();
    let views = match service {
        Some(name) => std::slice::from_ref(find_service(&snapshot, name)?),
        None => &snapshot.services,
    };
    let mut list = Vec::new();
    for view in views {
        for backend_view in &view.backends {
            list.push(backend(
                view,
                backend_view,
                context.reader.as_ref(),
                &totals,
            )?);
        }
    }
    Ok(list)
}

pub(super) fn conntrack_stats(context: &Context) -> Result<ConntrackStats, ApiError> {
    let reader = context.reader.as_ref();
    let totals = reader.connection_totals();
    Ok(conntrack(&context.control.snapshot(), reader, &totals)?)
}

pub(super) fn stats(context: &Context) -> Result<StatsInfo, ApiError> {
    let snapshot = context.control.snapshot();
    let reader = context.reader.as_ref();
    let totals = reader.connection_totals();
    let mut services = Vec::new();
    let mut backends = Vec::new();
    for view in &snapshot.services {
        let info = service(view, reader, &totals)?;
        services.push(ServiceStats {
            name: info.name,
            active_connections: info.active_connections,
            counters: info.counters,
            reasons: reasons(reader.reasons(Some(view.id))?),
        });
        for backend_view in &view.backends {
            let info = backend(view, backend_view, reader, &totals)?;
            backends.push(BackendStats {
                service: info.service,
                name: info.name,
                active_connections: info.active_connections,
                counters: info.counters,
            });
        }
    }
    Ok(StatsInfo {
        services,
        backends,
        reasons: reasons(reader.reasons(None)?),
    })
}

fn conntrack(
    snapshot: &Snapshot,
    reader: &dyn Reader,
    totals: &ConnectionTotals,
) -> Result<ConntrackStats, DataPlaneError> {
    let mut untracked_total = 0;
    for view in &snapshot.services {
        untracked_total += reader.service_counters(view.id)?.untracked;
    }
    Ok(ConntrackStats {
        capacity: totals.capacity,
        used: totals.used,
        established: totals.established,
        half_open: totals.half_open,
        closing: totals.closing,
        ended: totals.ended,
        untracked_total,
    })
}

fn interface(attached: AttachedInterface) -> InterfaceInfo {
    InterfaceInfo {
        name: attached.name,
        ifindex: attached.ifindex,
        mode: match attached.mode {
            AttachMode::Native => InterfaceMode::Native,
            AttachMode::Generic => InterfaceMode::Generic,
        },
        note: attached.note,
    }
}
