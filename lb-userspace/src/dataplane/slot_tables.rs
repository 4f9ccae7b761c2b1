//! The services' slot tables: arrays of two halves, one of which packets read.

use std::{
    collections::{BTreeMap, HashMap as Index},
    os::fd::AsFd as _,
    sync::atomic::{AtomicU64, Ordering},
};

use aya::maps::{Array, ArrayOfMaps, IterableMap as _, Map, MapData, MapError};
use lb_common::records::{self, MAX_SLOTS, pairs_in_half};
use tracing::debug;

use super::{
    DataPlaneError, Slot, batch, convert,
    kernel::map_data,
    mapped::{MappedArray, mapped},
    sys,
};
use crate::model::ServiceId;

/// Flags of arrays, as the program's templates have them.
const BPF_F_MMAPABLE: u32 = 1 << 10;
const BPF_F_INNER_MAP: u32 = 1 << 12;

/// Slot tables that are installed together: each is an open file until then.
const MOST_WAITING: usize = 128;

type SlotTable = Array<MapData, u64>;

/// Every service's table.
pub(super) struct SlotTables {
    /// Tables of [`MAX_SLOTS`] slots.
    full: Directory,
    /// Tables of fewer.
    small: Directory,
    tables: Index<ServiceId, Table>,
}

/// A service's table in memory: pairs of slots, two halves.
struct Table {
    pairs: MappedArray<AtomicU64>,
    slots: u32,
}

impl SlotTables {
    pub(super) fn new(
        open: &mut impl FnMut(&'static str) -> Result<Map, DataPlaneError>,
    ) -> Result<Self, DataPlaneError> {
        Ok(Self {
            full: Directory::new(open, "SLOT_TABLES", BPF_F_MMAPABLE)?,
            small: Directory::new(open, "SMALL_SLOT_TABLES", BPF_F_MMAPABLE | BPF_F_INNER_MAP)?,
            tables: Index::new(),
        })
    }

    /// Provides a service with a table of this size: the one that it has, or one whose slots are all
    /// empty. A new one may have to be [installed](Self::install).
    pub(super) fn create(&mut self, service: ServiceId, slots: u32) -> Result<(), DataPlaneError> {
        let pairs = self.own_and_other(slots).0.provide(service, slots)?;
        self.tables.insert(service, Table { pairs, slots });
        Ok(())
    }

    /// Where a table of this size belongs, and where not.
    fn own_and_other(&mut self, slots: u32) -> (&mut Directory, &mut Directory) {
        match slots {
            MAX_SLOTS => (&mut self.full, &mut self.small),
            _ => (&mut self.small, &mut self.full),
        }
    }

    /// Installs the tables that wait for it.
    pub(super) fn install(&mut self) -> Result<(), DataPlaneError> {
        self.full.install_waiting()?;
        self.small.install_waiting()
    }

    /// Writes one half of a service's table, 0 or 1.
    pub(super) fn write(
        &self,
        service: ServiceId,
        half: u32,
        slots: &[Slot],
    ) -> Result<(), DataPlaneError> {
        let missing =
            |what| DataPlaneError::new(format!("write the slots of service {}", service.0), what);
        let table = self
            .tables
            .get(&service)
            .ok_or_else(|| missing("there is no slot table"))?;
        if table.slots as usize != slots.len() {
            return Err(missing("the slot table has another size"));
        }
        let start = (half * pairs_in_half(table.slots)) as usize;
        let half_of_table = table.pairs.as_slice().iter().skip(start);
        for (pair, slots) in half_of_table.zip(slots.chunks(2)) {
            let first = convert::slot(&slots[0]);
            let second = slots.get(1).map(convert::slot).unwrap_or_default();
            pair.store(pair_word(first, second), Ordering::Relaxed);
        }
        Ok(())
    }

    /// Removes what was the service's table before it had one of this size.
    pub(super) fn remove_other(
        &mut self,
        service: ServiceId,
        slots: u32,
    ) -> Result<(), DataPlaneError> {
        let other = self.own_and_other(slots).1;
        match other.find(service)? {
            Some(_) => other.remove(service),
            None => Ok(()),
        }
    }

    /// Removes a service's table, if it has one.
    pub(super) fn remove(&mut self, service: ServiceId) -> Result<(), DataPlaneError> {
        self.tables.remove(&service);
        self.full.remove(service)?;
        self.small.remove(service)
    }
}

/// A map of slot tables, by service id.
struct Directory {
    tables: ArrayOfMaps<MapData, SlotTable>,
    /// The same map, for what aya has no call for.
    data: MapData,
    /// Of a table in it.
    flags: u32,
    /// Tables that are made, and installed before anything else is written.
    waiting: BTreeMap<ServiceId, SlotTable>,
}

impl Directory {
    fn new(
        open: &mut impl FnMut(&'static str) -> Result<Map, DataPlaneError>,
        name: &'static str,
        flags: u32,
    ) -> Result<Self, DataPlaneError> {
        Ok(Self {
            tables: open(name)?.try_into().map_err(|error: MapError| {
                DataPlaneError::new(format!("open map {name}"), error)
            })?,
            data: map_data(open(name)?)?,
            flags,
            waiting: BTreeMap::new(),
        })
    }

    fn find(&self, service: ServiceId) -> Result<Option<SlotTable>, DataPlaneError> {
        match self.tables.get(&u32::from(service.0), 0) {
            Ok(table) => Ok(Some(table)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(DataPlaneError::new("find a slot table", error)),
        }
    }

    fn provide(
        &mut self,
        service: ServiceId,
        slots: u32,
    ) -> Result<MappedArray<AtomicU64>, DataPlaneError> {
        let entries = 2 * pairs_in_half(slots);
        let in_memory = |table: &SlotTable| mapped(table.map(), entries, "slot table");
        let found = self.find(service)?;
        if let Some(table) = found.as_ref().filter(|table| table.len() == entries) {
            return in_memory(table);
        }
        let table = SlotTable::create(entries, self.flags)
            .map_err(|error| DataPlaneError::new("make a slot table", error))?;
        let pairs = in_memory(&table)?;
        if found.is_some() {
            self.install(service, &table)?;
        } else {
            self.waiting.insert(service, table);
            if self.waiting.len() >= MOST_WAITING {
                self.install_waiting()?;
            }
        }
        Ok(pairs)
    }

    /// All at once, so that the kernel waits for RCU once for all of them.
    fn install_waiting(&mut self) -> Result<(), DataPlaneError> {
        if self.waiting.len() > 1 {
            let ids: Vec<_> = self.waiting.keys().map(|id| u32::from(id.0)).collect();
            let tables: Vec<_> = self
                .waiting
                .values()
                .map(|t| t.map().fd().as_fd())
                .collect();
            match batch::install_maps(self.data.fd().as_fd(), &ids, &tables) {
                Ok(()) => self.waiting.clear(),
                // Before Linux 5.19 there is no such call for maps of maps.
                Err(error) => debug!(%error, "slot tables are installed one by one"),
            }
        }
        while let Some((service, table)) = self.waiting.pop_first() {
            if let Err(error) = self.install(service, &table) {
                self.waiting.insert(service, table);
                return Err(error);
            }
        }
        Ok(())
    }

    fn install(&mut self, service: ServiceId, table: &SlotTable) -> Result<(), DataPlaneError> {
        self.tables
            .set(u32::from(service.0), table, 0)
            .map_err(|error| DataPlaneError::new("install a slot table", error))
    }

    fn remove(&self, service: ServiceId) -> Result<(), DataPlaneError> {
        sys::delete_element(self.data.fd().as_fd(), u32::from(service.0))
            .map_err(|error| DataPlaneError::new("remove a slot table", error))
    }
}

/// Two slots as they stand in a [`lb_common::records::SlotPair`].
fn pair_word(first: records::Slot, second: records::Slot) -> u64 {
    let bytes = |number: u16| number.to_ne_bytes();
    let [a, b] = bytes(first.primary);
    let [c, d] = bytes(first.secondary);
    let [e, f] = bytes(second.primary);
    let [g, h] = bytes(second.secondary);
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}
