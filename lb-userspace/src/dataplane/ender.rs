//! Ends connections in the connection table (S-CT-6).
//!
//! A record that is marked as ended has whatever is sent on its connection answered with a RST. An
//! idle connection sends nothing, so its ends are prodded ([`crate::endings`]); the records say
//! whom, and which way.

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::atomic::{AtomicU64, Ordering},
};

use aya::maps::{Array, Map, MapData, MapError};
use lb_common::{
    flow::{self, Bucket, FlowValue, RECORDS, Tick},
    records::{Backend, Hop, Service, forwarding},
    tcp::{State, TimeoutClass},
};

use super::{
    DataPlaneError, clock,
    flows::{Key, Table, Tables},
    mapped::Shared,
    plain::Plain,
    ports::PortTable,
};
use crate::model::{BackendIndex, ServiceId};

/// Which connections are to be ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endings {
    /// Services whose established connections are reset when they expire.
    pub expiring: BTreeSet<ServiceId>,
    /// Backends all of whose connections are to be reset, but for half-open ones: a retransmitted
    /// SYN leaves such a backend by itself.
    pub backends: BTreeSet<BackendIndex>,
}

impl Endings {
    pub fn is_empty(&self) -> bool {
        self.expiring.is_empty() && self.backends.is_empty()
    }
}

/// How many connections a sweep has ended, and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndedCounts {
    pub expired: u64,
    pub of_backends: u64,
}

/// A connection that was ended, for as long as its record is in that state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    table: TableId,
    /// Number of the record in its table.
    record: u32,
    value: FlowValue,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TableId {
    V4,
    V6,
    /// Of the ports of the address with this index (`full-nat`).
    Ports(u16),
}

/// What makes one end of a connection speak: a segment from the other end, or from whom it takes
/// for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prod {
    pub hop: Hop,
    pub from: SocketAddr,
    pub to: SocketAddr,
}

/// The aya side of [`crate::endings`].
pub struct Ender {
    services: Array<MapData, Plain<Service>>,
    backends: Array<MapData, Plain<Backend>>,
    last_hops: Array<MapData, Plain<Hop>>,
    snat_addresses: Array<MapData, [u8; 16]>,
    tables: Tables,
}

impl Ender {
    pub(super) fn new(
        open: &mut impl FnMut(&'static str) -> Result<Map, DataPlaneError>,
        tables: Tables,
    ) -> Result<Self, DataPlaneError> {
        let failed = |error: MapError| DataPlaneError::new("open the maps of the way back", error);
        Ok(Self {
            services: open("SERVICES")?.try_into().map_err(failed)?,
            backends: open("BACKENDS")?.try_into().map_err(failed)?,
            last_hops: open("LAST_HOPS")?.try_into().map_err(failed)?,
            snat_addresses: open("SNAT_ADDRESSES")?.try_into().map_err(failed)?,
            tables,
        })
    }

    /// The packet path's time.
    pub fn now(&self) -> Tick {
        clock::now()
    }

    /// From now on expired connections of these services are left for [`Ender::end`].
    pub fn keep_expired(&self, services: &BTreeSet<ServiceId>) {
        self.tables.ending.set(services);
    }

    /// Marks what is to be ended, and says how much it was. After `room` records it leaves the
    /// rest for the next time. Shows to `ended` what is worth a prod: where both sides have sent a
    /// FIN, nobody waits for anything.
    ///
    /// The record of the `n`th is kept for its service's reset timeout and `patience(n)` ticks.
    pub fn end(
        &self,
        endings: &Endings,
        room: usize,
        patience: &dyn Fn(u64) -> u32,
        ended: &mut dyn FnMut(Ended),
    ) -> EndedCounts {
        let mut known = HashMap::new();
        let mut reset_timeout = |service: ServiceId| {
            *known.entry(service).or_insert_with(|| {
                let record = self.services.get(&u32::from(service.0), 0);
                record.map_or(0, |Plain(record)| {
                    record.timeouts[TimeoutClass::Reset as usize]
                })
            })
        };
        let now = clock::now();
        let mut sweep = Sweep {
            now,
            endings,
            room: room as u64,
            expires: &mut |service, count| now.after(reset_timeout(service) + patience(count)),
            counts: EndedCounts::default(),
        };
        sweep.table(&self.tables.v4, TableId::V4, ended);
        sweep.table(&self.tables.v6, TableId::V6, ended);
        for (index, ports) in self.tables.ports.current() {
            match &*ports {
                PortTable::V4(table) => sweep.table(table, TableId::Ports(index), ended),
                PortTable::V6(table) => sweep.table(table, TableId::Ports(index), ended),
            }
        }
        sweep.counts
    }

    /// What is marked: an earlier life may not have come to prod it.
    pub fn ended(&self, each: &mut dyn FnMut(Ended)) {
        let now = clock::now();
        marked(&self.tables.v4, TableId::V4, now, each);
        marked(&self.tables.v6, TableId::V6, now, each);
        for (index, ports) in self.tables.ports.current() {
            match &*ports {
                PortTable::V4(table) => marked(table, TableId::Ports(index), now, each),
                PortTable::V6(table) => marked(table, TableId::Ports(index), now, each),
            }
        }
    }

    /// How to make the client and, where it answers through the load balancer, the backend speak.
    /// Nothing where the record is another's by now, and nothing towards whom no way is known.
    pub fn prods(&self, ended: Ended) -> [Option<Prod>; 2] {
        let key = match ended.table {
            TableId::V4 => still_marked(&self.tables.v4, ended),
            TableId::V6 => still_marked(&self.tables.v6, ended),
            TableId::Ports(index) => match self.tables.ports.of(index).as_deref() {
                Some(PortTable::V4(table)) => still_marked(table, ended),
                Some(PortTable::V6(table)) => still_marked(table, ended),
                None => None,
            },
        };
        let Some((client, ServiceId(id))) = key else {
            return [None; 2];
        };
        let is_ipv6 = client.is_ipv6();
        let Ok(Plain(service)) = self.services.get(&u32::from(id), 0) else {
            return [None; 2];
        };
        if service.slots == 0 {
            return [None; 2];
        }
        let listen = address(is_ipv6, service.address, service.port);
        let back = u32::from(ended.value.last_hop());
        let to_client = self.last_hops.get(&back, 0).ok().map(|Plain(hop)| Prod {
            hop,
            from: listen,
            to: client,
        });
        // Whom the backend takes for the client; other modes' backends do not answer through here.
        let from = match (service.forwarding, ended.table) {
            (forwarding::NAT, TableId::V4 | TableId::V6) => Some(client),
            (forwarding::FULL_NAT, TableId::Ports(index)) => {
                let snat = self.snat_addresses.get(&u32::from(index), 0).ok();
                // A record's place is its port.
                let port = (ended.record as u16).to_be_bytes();
                snat.map(|snat| address(is_ipv6, snat, port))
            }
            _ => None,
        };
        let backend = u32::from(ended.value.backend());
        let backend = self.backends.get(&backend, 0).ok();
        let backend = backend.filter(|Plain(backend)| backend.service == id);
        let to_backend = from.zip(backend).map(|(from, Plain(backend))| Prod {
            hop: backend.hop,
            from,
            to: address(is_ipv6, backend.address, backend.port),
        });
        [to_client, to_backend].map(|prod| prod.filter(|prod| prod.hop.ifindex() != 0))
    }
}

impl Ended {
    fn new(table: TableId, record: usize, value: FlowValue) -> Self {
        Self {
            table,
            record: record as u32,
            value,
        }
    }
}

/// One walk through the tables.
struct Sweep<'a> {
    now: Tick,
    endings: &'a Endings,
    /// How many may be ended.
    room: u64,
    /// When the record of the so-many-th, of this service, is to be forgotten.
    expires: &'a mut dyn FnMut(ServiceId, u64) -> Tick,
    counts: EndedCounts,
}

impl Sweep<'_> {
    fn table<B: Bucket<Word = AtomicU64> + Shared>(
        &mut self,
        table: &Table<B>,
        id: TableId,
        ended: &mut dyn FnMut(Ended),
    ) where
        B::Key: Key,
    {
        for (index, bucket) in table.buckets.as_slice().iter().enumerate() {
            for slot in 0..RECORDS {
                if self.counts.expired + self.counts.of_backends >= self.room {
                    return;
                }
                if let Some((before, value)) = self.record(bucket, slot)
                    && (before.is_active() || before == State::RESET)
                {
                    ended(Ended::new(id, index * RECORDS + slot, value));
                }
            }
        }
    }

    /// Ends this record if it is one to be ended; its state before, and its new value.
    fn record<B: Bucket<Word = AtomicU64>>(
        &mut self,
        bucket: &B,
        slot: usize,
    ) -> Option<(State, FlowValue)>
    where
        B::Key: Key,
    {
        /// Packets change a record once a tick, so the second try meets no other.
        const TRIES: usize = 3;
        let Endings { expiring, backends } = self.endings;
        let word = bucket.value(slot)?;
        for _ in 0..TRIES {
            let seen = FlowValue::from_bits(word.load(Ordering::Acquire));
            let state = seen.state();
            let expired = seen.is_expired(self.now);
            let candidate = if expired {
                state.is_active() && !expiring.is_empty()
            } else {
                state.is_live() && backends.contains(&BackendIndex(seen.backend()))
            };
            if !candidate {
                return None;
            }
            let service = bucket.key(slot)?.service();
            if expired && !expiring.contains(&service) {
                return None;
            }
            let counts = &mut self.counts;
            let expires = (self.expires)(service, counts.expired + counts.of_backends);
            if flow::end(word, seen, expires) {
                *(if expired {
                    &mut counts.expired
                } else {
                    &mut counts.of_backends
                }) += 1;
                return Some((state, seen.renewed(State::ENDED, expires)));
            }
        }
        None
    }
}

fn marked<B: Bucket<Word = AtomicU64> + Shared>(
    table: &Table<B>,
    id: TableId,
    now: Tick,
    each: &mut dyn FnMut(Ended),
) {
    for (index, bucket) in table.buckets.as_slice().iter().enumerate() {
        for (slot, word) in (0..RECORDS).filter_map(|slot| Some((slot, bucket.value(slot)?))) {
            let value = FlowValue::from_bits(word.load(Ordering::Acquire));
            if value.state() == State::ENDED && !value.is_expired(now) {
                each(Ended::new(id, index * RECORDS + slot, value));
            }
        }
    }
}

/// Client and service of a record that is what it was when it was marked.
fn still_marked<B: Bucket<Word = AtomicU64> + Shared>(
    table: &Table<B>,
    ended: Ended,
) -> Option<(SocketAddr, ServiceId)>
where
    B::Key: Key,
{
    let record = ended.record as usize;
    let bucket = table.buckets.as_slice().get(record / RECORDS)?;
    let slot = record % RECORDS;
    let key = bucket.key(slot)?;
    // The key is the value's only if the value has not changed after the key was read.
    let word: &AtomicU64 = bucket.value(slot)?;
    let same = word.load(Ordering::Acquire) == ended.value.bits();
    same.then(|| (key.client(), key.service()))
}

/// An address and port as they stand in the maps.
fn address(is_ipv6: bool, address: [u8; 16], port: [u8; 2]) -> SocketAddr {
    let ip = if is_ipv6 {
        IpAddr::from(Ipv6Addr::from(address))
    } else {
        let [a, b, c, d, ..] = address;
        IpAddr::from(Ipv4Addr::new(a, b, c, d))
    };
    SocketAddr::new(ip, u16::from_be_bytes(port))
}

#[cfg(test)]
mod tests;
