//! What readers see of the engine: a picture that does not change under their eyes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use super::{
    effective::{Effective, Inputs, Resolution},
    state::Retired,
};
use crate::{
    dataplane::{BackendCounters, Endings},
    health,
    model::{
        Admin, Backend, BackendIndex, Health, Name, OnBackendDown, OnExpiry, Service, ServiceId,
    },
};

/// The state as it is wanted and observed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// In the order of the configuration.
    pub services: Vec<ServiceView>,
    /// Everything that was removed and whose index connections may still name, also the backends
    /// of services that were removed.
    pub lingering: Vec<LingeringBackend>,
}

/// A backend that was removed, and may still have connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LingeringBackend {
    pub index: BackendIndex,
    /// As it was last called.
    pub name: Name,
    pub address: SocketAddr,
    pub service: ServiceId,
    pub service_name: Name,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ServiceView {
    pub id: ServiceId,
    /// As wanted.
    pub service: Service,
    /// Of the slot table in use; the base's where every backend with slots takes connections.
    pub checksum: u64,
    pub base_checksum: u64,
    /// Of the table.
    pub slots: u32,
    /// In the order of the configuration.
    pub backends: Vec<BackendView>,
    /// Those of [`Snapshot::lingering`] that were this service's.
    pub removed: Vec<BackendIndex>,
    /// Sums of the backends whose indices have been freed since.
    pub retired: BackendCounters,
}

#[derive(Clone, Debug, PartialEq)]
pub struct BackendView {
    pub index: BackendIndex,
    /// As wanted.
    pub backend: Backend,
    pub health: Health,
    /// For the health.
    pub reason: String,
    /// Slots whose new connections it takes.
    pub slots: u32,
    pub next_hop: Resolution,
}

impl Snapshot {
    pub(super) fn new(
        inputs: Inputs<'_>,
        effective: &Effective,
        retired: impl Fn(ServiceId) -> Retired,
    ) -> Self {
        let lingering = inputs.allocation.lingering(inputs.desired);
        let ids = inputs.allocation.wanted(inputs.desired);
        let mut services: Vec<ServiceView> = ids
            .into_iter()
            .filter_map(|(id, service)| {
                let table = effective.services.get(&id)?.table.as_ref()?;
                let backend_view = |backend: &Backend| {
                    let index = inputs.allocation.backend_index(id, backend.address)?;
                    let verdict = inputs.observed.verdict(service, index);
                    Some(BackendView {
                        index,
                        backend: backend.clone(),
                        health: verdict.health,
                        reason: verdict.reason,
                        slots: table.shares.get(&index).copied().unwrap_or(0),
                        next_hop: inputs.observed.next_hop(backend.address.ip()),
                    })
                };
                let removed = lingering.iter().filter(|&(_, &service)| service == id);
                Some(ServiceView {
                    id,
                    service: service.clone(),
                    checksum: table.checksum,
                    base_checksum: table.base_checksum,
                    slots: service.table_size.slots(),
                    backends: service.backends.iter().filter_map(backend_view).collect(),
                    removed: removed.map(|(&index, _)| index).collect(),
                    retired: retired(id).0,
                })
            })
            .collect();
        let order = |view: &ServiceView| {
            let services = &inputs.desired.services;
            services.iter().position(|s| s.name == view.service.name)
        };
        services.sort_by_cached_key(order);
        Self {
            services,
            lingering: lingering_backends(inputs, &lingering),
        }
    }
}

fn lingering_backends(
    inputs: Inputs<'_>,
    lingering: &BTreeMap<BackendIndex, ServiceId>,
) -> Vec<LingeringBackend> {
    let allocated = inputs.allocation.services().iter();
    let backends = allocated.flat_map(|(&service, known)| {
        known
            .backends
            .iter()
            .map(move |(&address, backend)| LingeringBackend {
                index: backend.index,
                name: backend.name.clone(),
                address,
                service,
                service_name: known.last_wanted.name.clone(),
            })
    });
    backends
        .filter(|backend| lingering.contains_key(&backend.index))
        .collect()
}

/// What is to be probed: every backend but those in maintenance.
pub fn targets(snapshot: &Snapshot) -> Vec<health::Target> {
    let of_service = |view: &ServiceView| -> Vec<health::Target> {
        let ServiceView {
            service, backends, ..
        } = view;
        let probed = backends
            .iter()
            .filter(|view| view.backend.admin != Admin::Maint);
        probed
            .map(|view| health::Target {
                service: service.name.clone(),
                backend: view.backend.name.clone(),
                address: view.backend.address,
                check: service.check.clone(),
                path: health::Way::of(service).map(|way| health::Path {
                    way,
                    next_hop: view.next_hop.clone(),
                }),
                initial: view.health,
            })
            .collect()
    };
    snapshot.services.iter().flat_map(of_service).collect()
}

/// Whose next hops are to be known: also those of removed backends, while connections go on.
pub fn wanted_addresses(snapshot: &Snapshot) -> BTreeSet<IpAddr> {
    let wanted = snapshot.services.iter().flat_map(|view| &view.backends);
    let lingering = snapshot.lingering.iter().map(|backend| backend.address);
    wanted
        .map(|view| view.backend.address)
        .chain(lingering)
        .map(|address| address.ip())
        .collect()
}

/// Which connections are to be ended: of services and backends that are still wanted.
pub fn endings(snapshot: &Snapshot) -> Endings {
    let services = || snapshot.services.iter();
    let expiring = services().filter(|view| view.service.on_expiry == OnExpiry::Reset);
    let down = services()
        .filter(|view| view.service.on_backend_down == OnBackendDown::Reset)
        .flat_map(|view| &view.backends)
        .filter(|view| view.health == Health::Down);
    Endings {
        expiring: expiring.map(|view| view.id).collect(),
        backends: down.map(|view| view.index).collect(),
    }
}
