//! Executes a plan's steps on the maps.

use std::{
    collections::BTreeSet,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use aya::maps::{Array, Map, MapData, MapError};
use lb_common::{
    reason::Reason,
    records::{self, BACKEND_LINES, LISTEN_LINES, MAX_BACKENDS, MAX_SERVICES},
};

use super::{
    BackendRecord, DataPlaneError, MapWrite, ServiceRecord, Slot, Writer, convert,
    counters::Counters,
    endpoints::{EndpointTable, ServiceAddresses},
    kernel::map_data,
    mapped::{MappedArray, mapped},
    plain::{Plain, words},
    ports::PortTables,
    samples::Samples,
    slot_tables::SlotTables,
    snat::SnatWriter,
    tx_ports::TxPorts,
};
use crate::model::{BackendIndex, Forwarding, ServiceId};

/// Words of a [`lb_common::records::Service`] that the packet path or a table swap writes too.
const SLOTS_AND_HALF: usize = 1;
const PORT_AND_UNTRACKED: usize = 7;
/// Word of a [`lb_common::records::Backend`] that holds the service id: 0 there means no record.
const BACKEND_SERVICE: usize = 6;

/// The aya side of [`Writer`].
pub struct KernelWriter {
    services: MappedArray<[AtomicU64; 8]>,
    backends: MappedArray<[AtomicU64; 8]>,
    slot_tables: SlotTables,
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

impl KernelWriter {
    pub(super) fn new(
        open: &mut impl FnMut(&'static str) -> Result<Map, DataPlaneError>,
        ports: PortTables,
        samples: Arc<Samples>,
    ) -> Result<Self, DataPlaneError> {
        let opened = |error: MapError| DataPlaneError::new("open map TUNNELS", error);
        let services = map_data(open("SERVICES")?)?;
        let backends = map_data(open("BACKENDS")?)?;
        Ok(Self {
            services: mapped(&services, MAX_SERVICES, "SERVICES")?,
            backends: mapped(&backends, MAX_BACKENDS, "BACKENDS")?,
            slot_tables: SlotTables::new(open)?,
            listens: EndpointTable::new(open, ["LISTENS4", "LISTENS6"], LISTEN_LINES)?,
            addresses: ServiceAddresses::new(open)?,
            repliers: EndpointTable::new(open, ["REPLIERS4", "REPLIERS6"], BACKEND_LINES)?,
            backend_counters: Counters::new(open("BACKEND_COUNTERS")?)?,
            reason_counters: Counters::new(open("REASON_COUNTERS")?)?,
            samples,
            tx_ports: TxPorts::new(open(TxPorts::NAME)?)?,
            tunnels: open("TUNNELS")?.try_into().map_err(opened)?,
            snat: SnatWriter::new(open, ports)?,
        })
    }

    /// Writes the half that no packet reads, then makes it the one in use.
    fn write_table(&mut self, service: ServiceId, slots: &[Slot]) -> Result<(), DataPlaneError> {
        let words = record(&self.services, service.0).ok_or_else(|| {
            DataPlaneError::new(format!("write service {}", service.0), "no such record")
        })?;
        let (slots_in_use, half) = split(words[SLOTS_AND_HALF].load(Ordering::Acquire));
        let idle = 1 - (half & 1);
        self.slot_tables.write(service, idle, slots)?;
        // A record that is in use goes over to a table of another size at the same stroke.
        let size = slots.len() as u32;
        let in_use = if slots_in_use == 0 { 0 } else { size };
        words[SLOTS_AND_HALF].store(join(in_use, idle), Ordering::Release);
        self.slot_tables.remove_other(service, size)
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
            self.slot_tables.install()?;
        }
        let failed = |error: MapError| DataPlaneError::new(format!("apply {write:?}"), error);
        let cannot_clear =
            |error: io::Error| DataPlaneError::new(format!("apply {write:?}"), error);
        match write {
            MapWrite::CreateTable { service, slots } => self.slot_tables.create(*service, *slots),
            MapWrite::WriteTable { service, slots } => self.write_table(*service, slots),
            MapWrite::RemoveTable { service } => self.slot_tables.remove(*service),
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
