//! Services and backends, as the maps are told of them.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use lb_userspace::{
    dataplane::{BackendRecord, MapWrite, ServiceRecord, Slot},
    model::{BackendIndex, ServiceId},
};

/// A service with its table.
#[derive(Clone, Debug)]
pub struct Service {
    pub id: ServiceId,
    pub record: ServiceRecord,
    pub slots: Arc<[Slot]>,
}

#[derive(Clone, Debug, Default)]
pub struct Config {
    services: BTreeMap<ServiceId, ServiceRecord>,
    tables: BTreeMap<ServiceId, Arc<[Slot]>>,
    listens: BTreeMap<SocketAddr, ServiceId>,
    backends: BTreeMap<BackendIndex, BackendRecord>,
    endpoints: BTreeMap<SocketAddr, BackendIndex>,
}

impl Config {
    pub(super) fn apply(&mut self, write: &MapWrite) {
        match write.clone() {
            MapWrite::CreateTable { service, slots } => {
                let slots = vec![Slot::default(); slots as usize];
                self.tables.insert(service, slots.into());
            }
            MapWrite::WriteTable { service, slots } => {
                self.tables.insert(service, slots);
            }
            MapWrite::RemoveTable { service } => {
                self.tables.remove(&service);
            }
            MapWrite::WriteService { service, record } => {
                self.services.insert(service, record);
            }
            MapWrite::ClearService { service } => {
                self.services.remove(&service);
            }
            MapWrite::Listen { address, service } => {
                self.listens.insert(address, service);
            }
            MapWrite::Unlisten { address } => {
                self.listens.remove(&address);
            }
            MapWrite::WriteBackend { backend, record } => {
                self.backends.insert(backend, record);
            }
            MapWrite::ClearBackend { backend } => {
                self.backends.remove(&backend);
            }
            MapWrite::BindEndpoint { address, backend } => {
                self.endpoints.insert(address, backend);
            }
            MapWrite::UnbindEndpoint { address } => {
                self.endpoints.remove(&address);
            }
            MapWrite::PruneListens { keep } => {
                self.listens.retain(|address, _| keep.contains(address));
            }
            MapWrite::PruneRecords {
                endpoints,
                backends,
                services,
            } => {
                self.endpoints.retain(|at, _| endpoints.contains(at));
                self.backends.retain(|index, _| backends.contains(index));
                self.services.retain(|id, _| services.contains(id));
                self.tables.retain(|id, _| services.contains(id));
            }
        }
    }

    /// The service that listens here, if its record is there, too.
    pub fn service_at(&self, listen: SocketAddr) -> Option<Service> {
        self.service(*self.listens.get(&listen)?)
    }

    pub fn service(&self, id: ServiceId) -> Option<Service> {
        Some(Service {
            id,
            record: self.services.get(&id)?.clone(),
            slots: self.tables.get(&id)?.clone(),
        })
    }

    pub fn services(&self) -> impl Iterator<Item = (ServiceId, &ServiceRecord)> {
        self.services.iter().map(|(id, record)| (*id, record))
    }

    /// Whether any service listens on this address.
    pub(super) fn listens_on(&self, address: IpAddr) -> bool {
        self.listens.keys().any(|listen| listen.ip() == address)
    }

    pub fn backend(&self, index: BackendIndex) -> Option<&BackendRecord> {
        self.backends.get(&index)
    }

    pub fn backends(&self) -> impl Iterator<Item = (BackendIndex, &BackendRecord)> {
        self.backends.iter().map(|(index, record)| (*index, record))
    }

    pub fn endpoints(&self) -> impl Iterator<Item = SocketAddr> {
        self.endpoints.keys().copied()
    }

    /// The backends that share this address and port, in their order.
    pub(super) fn chain(&self, endpoint: SocketAddr) -> Vec<(BackendIndex, BackendRecord)> {
        let mut next = self.endpoints.get(&endpoint).copied();
        let mut chain = Vec::new();
        while let Some(index) = next {
            let Some(record) = self.backend(index) else {
                break;
            };
            next = record.next_with_same_address;
            chain.push((index, record.clone()));
        }
        chain
    }
}
