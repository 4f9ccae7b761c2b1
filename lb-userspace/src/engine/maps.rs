//! What the kernel's maps hold, as far as the engine has written it.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::SocketAddr,
    sync::Arc,
};

use crate::{
    dataplane::{BackendRecord, MapWrite, ServiceRecord, Slot},
    model::{BackendIndex, ServiceId},
};

/// The content of the maps that the engine writes. Whatever [`MapWrite`] does to the maps,
/// [`Maps::apply`] does here; so the engine knows at each moment what is really written, and a
/// test can hold each step of a plan against the rules.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Maps {
    pub services: BTreeMap<ServiceId, ServiceRecord>,
    pub tables: BTreeMap<ServiceId, Table>,
    pub listens: BTreeMap<SocketAddr, ServiceId>,
    pub backends: BTreeMap<BackendIndex, BackendRecord>,
    pub endpoints: BTreeMap<SocketAddr, BackendIndex>,
}

/// A slot table.
#[derive(Clone, Debug)]
pub struct Table {
    /// How many slots it was made for.
    pub size: u32,
    /// The half in use; `None`: as it was made, without an owner in any slot.
    pub slots: Option<Arc<[Slot]>>,
}

impl PartialEq for Table {
    fn eq(&self, other: &Self) -> bool {
        // Nearly always the very same ones, of which there is half a megabyte each; `Arc` looks
        // for that only where what it holds has a size.
        let same_slots = match (&self.slots, &other.slots) {
            (Some(ours), Some(theirs)) => Arc::ptr_eq(ours, theirs) || ours == theirs,
            (ours, theirs) => ours == theirs,
        };
        self.size == other.size && same_slots
    }
}

impl Maps {
    pub fn apply(&mut self, write: &MapWrite) {
        match write.clone() {
            MapWrite::CreateTable { service, slots } => {
                let made = Table {
                    size: slots,
                    slots: None,
                };
                match self.tables.entry(service) {
                    // The data plane keeps a table that has this size.
                    Entry::Occupied(kept) if kept.get().size == slots => {}
                    Entry::Occupied(mut replaced) => {
                        replaced.insert(made);
                    }
                    Entry::Vacant(free) => {
                        free.insert(made);
                    }
                }
            }
            MapWrite::WriteTable { service, slots } => {
                if let Some(table) = self.tables.get_mut(&service) {
                    table.slots = Some(slots);
                }
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
                self.endpoints
                    .retain(|address, _| endpoints.contains(address));
                self.backends.retain(|index, _| backends.contains(index));
                self.services.retain(|id, _| services.contains(id));
                self.tables.retain(|id, _| services.contains(id));
            }
        }
    }
}
