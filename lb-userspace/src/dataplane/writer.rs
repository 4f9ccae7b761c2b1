//! Executes a plan's steps on the maps.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap as Index},
    io,
    net::SocketAddr,
    os::fd::AsFd as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use aya::maps::{Array, ArrayOfMaps, IterableMap as _, Map, MapData, MapError};
use lb_common::{
    reason::Reason,
    records::{self, BACKEND_LINES, LISTEN_LINES, MAX_BACKENDS, MAX_SERVICES, pairs_in_half},
};

use tracing::debug;

use super::{
    BackendRecord, DataPlaneError, MapWrite, ServiceRecord, Slot, Writer, batch, convert,
    counters::Counters,
    endpoints::{EndpointTable, ServiceAddresses},
    kernel::map_data,
    mapped::MappedArray,
    plain::{Plain, words},
    ports::PortTables,
    samples::Samples,
    snat::SnatWriter,
    sys,
    tx_ports::TxPorts,
};
use crate::model::{BackendIndex, Forwarding, ServiceId};

/// Words of a [`lb_common::records::Service`] that the packet path or a table swap writes too.
const SLOTS_AND_HALF: usize = 1;
const PORT_AND_UNTRACKED: usize = 7;
/// Word of a [`lb_common::records::Backend`] that holds the service id: 0 there means no record.
const BACKEND_SERVICE: usize = 6;

/// `BPF_F_MMAPABLE | BPF_F_INNER_MAP`, as the program's template has it.
const SLOT_TABLE_FLAGS: u32 = 1 << 10 | 1 << 12;

type SlotTable = Array<MapData, u64>;

/// Slot tables that are installed together: each is an open file until then.
const MOST_WAITING: usize = 128;

/// The aya side of [`Writer`].
pub struct KernelWriter {
    services: MappedArray<[AtomicU64; 8]>,
    backends: MappedArray<[AtomicU64; 8]>,
    slot_tables: ArrayOfMaps<MapData, SlotTable>,
    /// The same map, for what aya has no call for.
    slot_tables_data: MapData,
    tables: Index<ServiceId, Table>,
    /// Slot tables that are made, and installed before anything else is written.
    waiting: BTreeMap<ServiceId, SlotTable>,
    listens: EndpointTable,
    addresses: ServiceAddresses,
    repliers: EndpointTable,
    backend_counters: Counters<5>,
    reason_counters: Counters<1>,
    samples: Arc<Samples>,
    tx_ports: TxPorts,
    tunnels: Array<MapData, Plain<records::Tunnel>>,
    snat: SnatWriter,
}

/// A service's slot table in memory: pairs of slots, two halves.
struct Table {
    pairs: MappedArray<AtomicU64>,
    slots: u32,
}

impl KernelWriter {
    pub(super) fn new(
        open: &mut impl FnMut(&'static str) -> Result<Map, DataPlaneError>,
        ports: PortTables,
        samples: Arc<Samples>,
    ) -> Result<Self, DataPlaneError> {
        let opened = |name: &'static str| {
            move |error: MapError| DataPlaneError::new(format!("open map {name}"), error)
        };
        let services = map_data(open("SERVICES")?)?;
        let backends = map_data(open("BACKENDS")?)?;
        Ok(Self {
            services: mapped(&services, MAX_SERVICES, "SERVICES")?,
            backends: mapped(&backends, MAX_BACKENDS, "BACKENDS")?,
            slot_tables: open("SLOT_TABLES")?
                .try_into()
                .map_err(opened("SLOT_TABLES"))?,
            slot_tables_data: map_data(open("SLOT_TABLES")?)?,
            tables: Index::new(),
            waiting: BTreeMap::new(),
            listens: EndpointTable::new(open, ["LISTENS4", "LISTENS6"], LISTEN_LINES)?,
            addresses: ServiceAddresses::new(open)?,
            repliers: EndpointTable::new(open, ["REPLIERS4", "REPLIERS6"], BACKEND_LINES)?,
            backend_counters: Counters::new(open("BACKEND_COUNTERS")?)?,
            reason_counters: Counters::new(open("REASON_COUNTERS")?)?,
            samples,
            tx_ports: TxPorts::new(open(TxPorts::NAME)?)?,
            tunnels: open("TUNNELS")?.try_into().map_err(opened("TUNNELS"))?,
            snat: SnatWriter::new(open, ports)?,
        })
    }

    fn create_table(&mut self, service: ServiceId, slots: u32) -> Result<(), DataPlaneError> {
        let entries = 2 * pairs_in_half(slots);
        let make = || {
            SlotTable::create(entries, SLOT_TABLE_FLAGS)
                .map_err(|error| DataPlaneError::new("make a slot table", error))
        };
        let table = match self.slot_tables.get(&u32::from(service.0), 0) {
            Ok(table) if table.len() == entries => table,
            Ok(_) => {
                let table = make()?;
                self.install_table(service, &table)?;
                table
            }
            Err(MapError::KeyNotFound) => {
                let table = make()?;
                let pairs = mapped(table.map(), entries, "slot table")?;
                self.tables.insert(service, Table { pairs, slots });
                self.waiting.insert(service, table);
                return if self.waiting.len() < MOST_WAITING {
                    Ok(())
                } else {
                    self.install_tables()
                };
            }
            Err(error) => return Err(DataPlaneError::new("find a slot table", error)),
        };
        let pairs = mapped(table.map(), entries, "slot table")?;
        self.tables.insert(service, Table { pairs, slots });
        Ok(())
    }

    /// Installs the tables that wait for it, so that the kernel waits for RCU once for all of them.
    fn install_tables(&mut self) -> Result<(), DataPlaneError> {
        if self.waiting.len() > 1 {
            let ids: Vec<_> = self.waiting.keys().map(|id| u32::from(id.0)).collect();
            let tables: Vec<_> = self
                .waiting
                .values()
                .map(|t| t.map().fd().as_fd())
                .collect();
            match batch::install_maps(self.slot_tables_data.fd().as_fd(), &ids, &tables) {
                Ok(()) => self.waiting.clear(),
                // Before Linux 5.19 there is no such call for maps of maps.
                Err(error) => debug!(%error, "slot tables are installed one by one"),
            }
        }
        while let Some((service, table)) = self.waiting.pop_first() {
            if let Err(error) = self.install_table(service, &table) {
                self.waiting.insert(service, table);
                return Err(error);
            }
        }
        Ok(())
    }

    fn install_table(
        &mut self,
        service: ServiceId,
        table: &SlotTable,
    ) -> Result<(), DataPlaneError> {
        self.slot_tables
            .set(u32::from(service.0), table, 0)
            .map_err(|error| DataPlaneError::new("install a slot table", error))
    }

    /// Writes the half that no packet reads, then makes it the one in use.
    fn write_table(&mut self, service: ServiceId, slots: &[Slot]) -> Result<(), DataPlaneError> {
        let missing =
            |what| DataPlaneError::new(format!("write the slots of service {}", service.0), what);
        let table = self
            .tables
            .get(&service)
            .ok_or_else(|| missing("there is no slot table"))?;
        if table.slots as usize != slots.len() {
            return Err(missing("the slot table has another size"));
        }
        let words = record(&self.services, service.0).ok_or_else(|| missing("no such record"))?;
        let word = words[SLOTS_AND_HALF].load(Ordering::Acquire);
        let (slots_in_use, half) = split(word);
        let idle = 1 - (half & 1);
        let start = (idle * pairs_in_half(table.slots)) as usize;
        let half_of_table = table.pairs.as_slice().iter().skip(start);
        for (pair, slots) in half_of_table.zip(slots.chunks(2)) {
            let first = convert::slot(&slots[0]);
            let second = slots.get(1).map(convert::slot).unwrap_or_default();
            pair.store(pair_word(first, second), Ordering::Relaxed);
        }
        words[SLOTS_AND_HALF].store(join(slots_in_use, idle), Ordering::Release);
        Ok(())
    }

    fn write_service(&mut self, service: ServiceId, wanted: &ServiceRecord) -> Option<()> {
        let words = record(&self.services, service.0)?;
        let new = words_of_service(wanted);
        for (n, (word, new)) in words.iter().zip(new).enumerate() {
            let kept = word.load(Ordering::Relaxed);
            let new = match n {
                SLOTS_AND_HALF => continue,
                PORT_AND_UNTRACKED => keep_second_half(new, kept),
                _ => new,
            };
            word.store(new, Ordering::Relaxed);
        }
        // Last, because a record is in use when its number of slots is not zero.
        let (_, half) = split(words[SLOTS_AND_HALF].load(Ordering::Relaxed));
        words[SLOTS_AND_HALF].store(join(wanted.slots, half), Ordering::Release);
        Some(())
    }

    /// Clears the records of `count` services from `first` on, and all that was counted for them.
    fn clear_services(&mut self, ServiceId(first): ServiceId, count: u16) -> io::Result<()> {
        for id in first..first + count {
            if let Some(words) = record(&self.services, id) {
                words[SLOTS_AND_HALF].store(0, Ordering::Release);
                for word in words {
                    word.store(0, Ordering::Relaxed);
                }
            }
        }
        let row = |services: u16| u32::from(services) * Reason::ROW;
        self.reason_counters.clear(row(first), row(count))?;
        (first..first + count).for_each(|id| self.samples.forget(ServiceId(id)));
        Ok(())
    }

    fn write_backend(
        &mut self,
        backend: BackendIndex,
        wanted: &BackendRecord,
    ) -> Result<(), DataPlaneError> {
        if let Some(hop) = &wanted.next_hop {
            self.tx_ports.allow(hop.ifindex)?;
        }
        let words = record(&self.backends, backend.0).ok_or_else(|| {
            DataPlaneError::new(format!("write backend {}", backend.0), "no such record")
        })?;
        let new = words_of_backend(wanted);
        for (n, (word, new)) in words.iter().zip(new).enumerate() {
            if n != BACKEND_SERVICE {
                word.store(new, Ordering::Relaxed);
            }
        }
        words[BACKEND_SERVICE].store(new[BACKEND_SERVICE], Ordering::Release);
        Ok(())
    }

    /// Clears the records of `count` backends from `first` on, and all that was counted for them.
    fn clear_backends(&mut self, BackendIndex(first): BackendIndex, count: u16) -> io::Result<()> {
        for index in first..first + count {
            if let Some(words) = record(&self.backends, index) {
                words[BACKEND_SERVICE].store(0, Ordering::Release);
                for word in words {
                    word.store(0, Ordering::Relaxed);
                }
            }
        }
        self.backend_counters
            .clear(u32::from(first), u32::from(count))
    }

    fn listen(&mut self, address: SocketAddr, service: ServiceId) -> Result<(), DataPlaneError> {
        // The address first: a packet for it that is not for a port of ours still passes.
        self.addresses.insert(address.ip())?;
        self.listens.insert(address, service.0)
    }

    fn unlisten(&mut self, address: SocketAddr) -> Result<(), DataPlaneError> {
        self.listens.remove(address);
        if self.listens.has_address(address.ip()) {
            return Ok(());
        }
        self.addresses.remove(address.ip())
    }

    fn prune_listens(&mut self, keep: &BTreeSet<SocketAddr>) -> Result<(), DataPlaneError> {
        self.listens.keep_only(keep);
        self.addresses
            .keep_only(&keep.iter().map(SocketAddr::ip).collect())
    }

    /// Also those without a record: an earlier life may have ended before it cleared the counters.
    fn prune_backends(&mut self, keep: &BTreeSet<BackendIndex>) -> io::Result<()> {
        gaps(MAX_BACKENDS as u16, keep.iter().map(|index| index.0))
            .try_for_each(|(first, count)| self.clear_backends(BackendIndex(first), count))
    }

    fn prune_services(&mut self, keep: &BTreeSet<ServiceId>) -> Result<(), DataPlaneError> {
        let failed = |error| DataPlaneError::new("clear what no service has", error);
        for (first, count) in gaps(MAX_SERVICES as u16, keep.iter().map(|id| id.0)) {
            for service in (first..first + count).map(ServiceId) {
                self.apply(&MapWrite::RemoveTable { service })?;
                self.snat.clear_pool(service)?;
            }
            self.clear_services(ServiceId(first), count)
                .map_err(failed)?;
        }
        Ok(())
    }
}

impl Writer for KernelWriter {
    fn apply(&mut self, write: &MapWrite) -> Result<(), DataPlaneError> {
        if !matches!(write, MapWrite::CreateTable { .. }) {
            self.install_tables()?;
        }
        let failed = |error: MapError| DataPlaneError::new(format!("apply {write:?}"), error);
        let cannot_clear =
            |error: io::Error| DataPlaneError::new(format!("apply {write:?}"), error);
        match write {
            MapWrite::CreateTable { service, slots } => self.create_table(*service, *slots),
            MapWrite::WriteTable { service, slots } => self.write_table(*service, slots),
            MapWrite::RemoveTable { service } => {
                self.tables.remove(service);
                sys::delete_element(self.slot_tables_data.fd().as_fd(), u32::from(service.0))
                    .map_err(|error| DataPlaneError::new("remove a slot table", error))
            }
            MapWrite::WriteService { service, record } => {
                let tunnel = Plain(convert::tunnel(&record.tunnel));
                self.tunnels
                    .set(u32::from(service.0), tunnel, 0)
                    .map_err(failed)?;
                match record.forwarding {
                    Forwarding::FullNat => self.snat.write_pool(*service, &record.snat)?,
                    _ => self.snat.clear_pool(*service)?,
                }
                self.write_service(*service, record).ok_or_else(|| {
                    DataPlaneError::new(format!("write service {}", service.0), "no such record")
                })
            }
            MapWrite::ClearService { service } => {
                self.clear_services(*service, 1).map_err(cannot_clear)?;
                self.snat.clear_pool(*service)
            }
            MapWrite::Listen { address, service } => self.listen(*address, *service),
            MapWrite::Unlisten { address } => self.unlisten(*address),
            MapWrite::WriteBackend { backend, record } => self.write_backend(*backend, record),
            MapWrite::ClearBackend { backend } => {
                self.clear_backends(*backend, 1).map_err(cannot_clear)
            }
            MapWrite::BindEndpoint { address, backend } => {
                self.repliers.insert(*address, backend.0)
            }
            MapWrite::UnbindEndpoint { address } => {
                self.repliers.remove(*address);
                Ok(())
            }
            MapWrite::PruneListens { keep } => self.prune_listens(keep),
            MapWrite::PruneRecords {
                endpoints,
                backends,
                services,
            } => {
                self.repliers.keep_only(endpoints);
                self.prune_backends(backends)
                    .map_err(|error| DataPlaneError::new("clear what no backend has", error))?;
                self.prune_services(services)
            }
        }
    }
}

fn mapped<T: super::mapped::Shared>(
    data: &MapData,
    entries: u32,
    name: &str,
) -> Result<MappedArray<T>, DataPlaneError> {
    MappedArray::new(data.fd().as_fd(), entries)
        .map_err(|error| DataPlaneError::new(format!("map {name} into memory"), error))
}

fn record(records: &MappedArray<[AtomicU64; 8]>, index: u16) -> Option<&[AtomicU64; 8]> {
    records.as_slice().get(usize::from(index))
}

fn words_of_service(wanted: &ServiceRecord) -> [u64; 8] {
    words(convert::service(wanted))
}

fn words_of_backend(wanted: &BackendRecord) -> [u64; 8] {
    words(convert::backend(wanted))
}

/// The halves of a word as they stand in memory.
fn split(word: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = word.to_ne_bytes();
    (
        u32::from_ne_bytes([a, b, c, d]),
        u32::from_ne_bytes([e, f, g, h]),
    )
}

fn join(first: u32, second: u32) -> u64 {
    let [a, b, c, d] = first.to_ne_bytes();
    let [e, f, g, h] = second.to_ne_bytes();
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

/// The first half of `new` with the second of `kept`.
fn keep_second_half(new: u64, kept: u64) -> u64 {
    join(split(new).0, split(kept).1)
}

/// What of `1..end` is not in `keep`, which ascends: where each stretch begins, and how many.
fn gaps(end: u16, keep: impl Iterator<Item = u16>) -> impl Iterator<Item = (u16, u16)> {
    let mut next = 1;
    keep.chain([end])
        .map(move |kept| {
            let gap = (next, kept.saturating_sub(next));
            next = kept.saturating_add(1).max(next);
            gap
        })
        .filter(|(_, count)| *count > 0)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_all_that_is_not_kept() {
        let gaps = |end, keep: &[u16]| gaps(end, keep.iter().copied()).collect::<Vec<_>>();
        assert_eq!(gaps(8, &[]), [(1, 7)]);
        assert_eq!(gaps(8, &[1, 2, 5]), [(3, 2), (6, 2)]);
        assert_eq!(gaps(8, &[4, 7]), [(1, 3), (5, 2)]);
        assert_eq!(gaps(3, &[1, 2]), []);
    }
}
