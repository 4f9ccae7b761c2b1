//! Executes a plan's steps on the maps.

use std::{
    collections::{BTreeSet, HashMap as Index},
    net::SocketAddr,
    os::fd::AsFd as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use aya::maps::{
    Array, ArrayOfMaps, IterableMap as _, Map, MapData, MapError, PerCpuArray, PerCpuValues,
};
use lb_common::{
    reason::Reason,
    records::{
        self, BACKEND_LINES, BackendCounters, LISTEN_LINES, MAX_BACKENDS, MAX_SERVICES,
        pairs_in_half,
    },
};

use super::{
    BackendRecord, DataPlaneError, MapWrite, ServiceRecord, Slot, Writer, convert,
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

/// The aya side of [`Writer`].
pub struct KernelWriter {
    services: MappedArray<[AtomicU64; 8]>,
    backends: MappedArray<[AtomicU64; 8]>,
    slot_tables: ArrayOfMaps<MapData, SlotTable>,
    /// The same map, for what aya has no call for.
    slot_tables_data: MapData,
    tables: Index<ServiceId, Table>,
    listens: EndpointTable,
    addresses: ServiceAddresses,
    repliers: EndpointTable,
    backend_counters: PerCpuArray<MapData, Plain<BackendCounters>>,
    reason_counters: PerCpuArray<MapData, u64>,
    samples: Arc<Samples>,
    tx_ports: TxPorts,
    tunnels: Array<MapData, Plain<records::Tunnel>>,
    snat: SnatWriter,
    cpus: usize,
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
        let cpus = aya::util::nr_cpus()
            .map_err(|(_, error)| DataPlaneError::new("count the CPUs", error))?;
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
            listens: EndpointTable::new(open, ["LISTENS4", "LISTENS6"], LISTEN_LINES)?,
            addresses: ServiceAddresses::new(open)?,
            repliers: EndpointTable::new(open, ["REPLIERS4", "REPLIERS6"], BACKEND_LINES)?,
            backend_counters: open("BACKEND_COUNTERS")?
                .try_into()
                .map_err(opened("BACKEND_COUNTERS"))?,
            reason_counters: open("REASON_COUNTERS")?
                .try_into()
                .map_err(opened("REASON_COUNTERS"))?,
            samples,
            tx_ports: TxPorts::new(open(TxPorts::NAME)?)?,
            tunnels: open("TUNNELS")?.try_into().map_err(opened("TUNNELS"))?,
            snat: SnatWriter::new(open, ports)?,
            cpus,
        })
    }

    fn create_table(&mut self, service: ServiceId, slots: u32) -> Result<(), DataPlaneError> {
        let entries = 2 * pairs_in_half(slots);
        let index = u32::from(service.0);
        let table = match self.slot_tables.get(&index, 0) {
            Ok(table) if table.len() == entries => table,
            Ok(_) | Err(MapError::KeyNotFound) => {
                let table = SlotTable::create(entries, SLOT_TABLE_FLAGS)
                    .map_err(|error| DataPlaneError::new("make a slot table", error))?;
                self.slot_tables
                    .set(index, &table, 0)
                    .map_err(|error| DataPlaneError::new("install a slot table", error))?;
                table
            }
            Err(error) => return Err(DataPlaneError::new("find a slot table", error)),
        };
        let data = table.map();
        let pairs = mapped(data, entries, "slot table")?;
        self.tables.insert(service, Table { pairs, slots });
        Ok(())
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

    fn clear_service(&mut self, service: ServiceId) -> Result<(), MapError> {
        if let Some(words) = record(&self.services, service.0) {
            words[SLOTS_AND_HALF].store(0, Ordering::Release);
            for word in words {
                word.store(0, Ordering::Relaxed);
            }
        }
        for reason in 0..Reason::ROW {
            let index = u32::from(service.0) * Reason::ROW + reason;
            self.reason_counters
                .set(index, PerCpuValues::try_from(vec![0; self.cpus])?, 0)?;
        }
        self.samples.forget(service);
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

    fn clear_backend(&mut self, backend: BackendIndex) -> Result<(), MapError> {
        if let Some(words) = record(&self.backends, backend.0) {
            words[BACKEND_SERVICE].store(0, Ordering::Release);
            for word in words {
                word.store(0, Ordering::Relaxed);
            }
        }
        let zero = vec![Plain(BackendCounters::default()); self.cpus];
        self.backend_counters
            .set(u32::from(backend.0), PerCpuValues::try_from(zero)?, 0)
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
    fn prune_backends(&mut self, keep: &BTreeSet<BackendIndex>) -> Result<(), MapError> {
        (1..MAX_BACKENDS as u16)
            .map(BackendIndex)
            .filter(|index| !keep.contains(index))
            .try_for_each(|index| self.clear_backend(index))
    }

    fn prune_services(&mut self, keep: &BTreeSet<ServiceId>) -> Result<(), DataPlaneError> {
        (1..MAX_SERVICES as u16)
            .map(ServiceId)
            .filter(|id| !keep.contains(id))
            .try_for_each(|service| {
                self.apply(&MapWrite::RemoveTable { service })?;
                self.apply(&MapWrite::ClearService { service })
            })
    }
}

impl Writer for KernelWriter {
    fn apply(&mut self, write: &MapWrite) -> Result<(), DataPlaneError> {
        let failed = |error: MapError| DataPlaneError::new(format!("apply {write:?}"), error);
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
                self.clear_service(*service).map_err(failed)?;
                self.snat.clear_pool(*service)
            }
            MapWrite::Listen { address, service } => self.listen(*address, *service),
            MapWrite::Unlisten { address } => self.unlisten(*address),
            MapWrite::WriteBackend { backend, record } => self.write_backend(*backend, record),
            MapWrite::ClearBackend { backend } => self.clear_backend(*backend).map_err(failed),
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
                self.prune_backends(backends).map_err(failed)?;
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

/// Two slots as they stand in a [`lb_common::records::SlotPair`].
fn pair_word(first: records::Slot, second: records::Slot) -> u64 {
    let bytes = |number: u16| number.to_ne_bytes();
    let [a, b] = bytes(first.primary);
    let [c, d] = bytes(first.secondary);
    let [e, f] = bytes(second.primary);
    let [g, h] = bytes(second.secondary);
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}
