//! The connection table in the daemon's memory: listing, ageing, counting.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use aya::maps::MapData;
use lb_common::{
    flow::{self, Bucket, Bucket4, Bucket6, FlowKey4, FlowKey6, FlowValue, RECORDS},
    records::MAX_SERVICES,
    tcp::State,
};

use super::{
    Connection, ConnectionTotals, DataPlaneError,
    births::Births,
    clock::Moment,
    convert,
    mapped::{MappedArray, Shared, mapped},
    pins::Pins,
    ports::PortTables,
};
use crate::model::{BackendIndex, ServiceId};

/// What the tables and what belongs to them are called in messages.
pub(super) const NAME: &str = "the connection table";

/// Share of the records that living flows fill when there are as many as were asked for: one flow
/// in a thousand then finds no place ([`lb_common::flow::insert`]).
const LOAD: f64 = 0.7;

/// Buckets of a table for this many flows.
pub(super) fn buckets_for(capacity: u32) -> u32 {
    let buckets = f64::from(capacity) / LOAD / RECORDS as f64;
    (buckets.ceil() as u32).max(1)
}

/// Shared between the reader's users.
pub(super) type Tables = Arc<FlowTables>;

/// Both address families' connection tables.
pub(super) struct FlowTables {
    pub(super) v4: Table<Bucket4<AtomicU64>>,
    pub(super) v6: Table<Bucket6<AtomicU64>>,
    pub(super) ports: PortTables,
    /// Whose active connections are not forgotten when they expire, but ended
    /// ([`super::Ender`]).
    pub(super) ending: Arc<ServiceSet>,
}

/// A table, and when each of its records was first seen.
pub(super) struct Table<B> {
    pub(super) buckets: MappedArray<B>,
    births: Births,
}

/// A set of services that one thread changes and others read.
#[derive(Debug)]
pub(super) struct ServiceSet([AtomicU64; MAX_SERVICES as usize / 64]);

impl ServiceSet {
    pub(super) fn has(&self, ServiceId(id): ServiceId) -> bool {
        let word = self.0.get(usize::from(id) / 64);
        word.is_some_and(|word| word.load(Ordering::Relaxed) >> (id % 64) & 1 == 1)
    }

    pub(super) fn set(&self, services: &BTreeSet<ServiceId>) {
        for (n, word) in self.0.iter().enumerate() {
            let within = services.iter().filter(|id| usize::from(id.0) / 64 == n);
            let bits = within.fold(0, |bits, id| bits | 1 << (id.0 % 64));
            word.store(bits, Ordering::Relaxed);
        }
    }
}

impl Default for ServiceSet {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

/// A key as the daemon shows it.
pub(super) trait Key: Copy {
    fn client(self) -> SocketAddr;
    fn service(self) -> ServiceId;
}

impl Key for FlowKey4 {
    fn client(self) -> SocketAddr {
        (
            Ipv4Addr::from(Self::client(self)),
            u16::from_be_bytes(self.port()),
        )
            .into()
    }

    fn service(self) -> ServiceId {
        ServiceId(Self::service(self))
    }
}

impl Key for FlowKey6 {
    fn client(self) -> SocketAddr {
        let address = IpAddr::from(Ipv6Addr::from(Self::client(self)));
        (address, u16::from_be_bytes(self.port())).into()
    }

    fn service(self) -> ServiceId {
        ServiceId(Self::service(self))
    }
}

impl FlowTables {
    /// Maps both tables, with what an earlier life knew of their connections' births; beside them
    /// `ports`, whatever there are at the time.
    pub(super) fn new(
        v4: &MapData,
        buckets4: u32,
        v6: &MapData,
        buckets6: u32,
        pins: &Pins,
        ports: PortTables,
    ) -> Result<Self, DataPlaneError> {
        Ok(Self {
            v4: Table {
                buckets: mapped(v4, buckets4, NAME)?,
                births: Births::pinned(pins, "FLOW_BIRTHS4", buckets4)?,
            },
            v6: Table {
                buckets: mapped(v6, buckets6, NAME)?,
                births: Births::pinned(pins, "FLOW_BIRTHS6", buckets6)?,
            },
            ending: ports.ending.clone(),
            ports,
        })
    }

    /// Forgets what has expired and counts the rest.
    pub(super) fn sweep(&self) -> ConnectionTotals {
        let now = Moment::now();
        let mut totals = ConnectionTotals::default();
        self.v4.sweep(now, &self.ending, &mut totals);
        self.v6.sweep(now, &self.ending, &mut totals);
        let ports = self.ports.sweep(now, &mut totals);
        let records = self.v4.records() + self.v6.records() + ports;
        totals.capacity = (records as f64 * LOAD) as u64;
        totals
    }

    /// `timeout` says how long a connection of a service in a state may be idle.
    pub(super) fn visit(
        &self,
        timeout: &dyn Fn(ServiceId, State) -> u32,
        visit: &mut dyn FnMut(Connection) -> bool,
    ) {
        let now = Moment::now();
        let _ = self.v4.visit(now, timeout, visit)
            && self.v6.visit(now, timeout, visit)
            && self.ports.visit(now, timeout, visit);
    }
}

impl<B: Bucket<Word = AtomicU64> + Shared> Table<B>
where
    B::Key: Key,
{
    /// A table of no map.
    #[cfg(test)]
    pub(super) fn in_memory(buckets: u32) -> Self {
        Self::unpinned(MappedArray::in_memory(buckets).unwrap())
    }

    /// One whose births are forgotten with the daemon: ages of connections that it finds begin with
    /// how long they have been idle.
    pub(super) fn unpinned(buckets: MappedArray<B>) -> Self {
        let births = Births::of_this_process(buckets.as_slice().len());
        Self { buckets, births }
    }

    pub(super) fn records(&self) -> u64 {
        (self.buckets.as_slice().len() * RECORDS) as u64
    }

    pub(super) fn sweep(&self, now: Moment, ending: &ServiceSet, totals: &mut ConnectionTotals) {
        for (index, bucket) in self.buckets.as_slice().iter().enumerate() {
            for slot in 0..RECORDS {
                let Some(word) = bucket.value(slot) else {
                    continue;
                };
                let value = FlowValue::from_bits(word.load(Ordering::Acquire));
                let mut state = value.state();
                if !state.is_live() {
                    continue;
                }
                let service = || bucket.key(slot).map(Key::service);
                let is_due = value.is_expired(now.tick()) && state.is_active();
                if is_due && service().is_some_and(|service| ending.has(service)) {
                    // As good as ended: another sweep does it.
                    state = State::ENDED;
                } else if flow::expire(word, now.tick()) {
                    continue;
                }
                self.births.age(index * RECORDS + slot, value, now);
                totals.used += 1;
                match state {
                    State::ESTABLISHED => totals.established += 1,
                    State::ENDED => totals.ended += 1,
                    state if state.is_half_open() => totals.half_open += 1,
                    _ => totals.closing += 1,
                }
                let backend = BackendIndex(value.backend());
                *totals.by_backend.entry(backend).or_default() += 1;
                if state.is_active() {
                    *totals.active_by_backend.entry(backend).or_default() += 1;
                }
            }
        }
    }

    /// Whether `visit` wants more.
    pub(super) fn visit(
        &self,
        now: Moment,
        timeout: &dyn Fn(ServiceId, State) -> u32,
        visit: &mut dyn FnMut(Connection) -> bool,
    ) -> bool {
        for (index, bucket) in self.buckets.as_slice().iter().enumerate() {
            for slot in 0..RECORDS {
                let Some(connection) = self.connection(bucket, index, slot, now, timeout) else {
                    continue;
                };
                if !visit(connection) {
                    return false;
                }
            }
        }
        true
    }

    fn connection(
        &self,
        bucket: &B,
        index: usize,
        slot: usize,
        now: Moment,
        timeout: &dyn Fn(ServiceId, State) -> u32,
    ) -> Option<Connection> {
        let (key, value) = bucket.at(slot)?;
        if value.is_expired(now.tick()) {
            return None;
        }
        let service = key.service();
        let left = value.expires().since(now.tick());
        let idle = timeout(service, value.state()).saturating_sub(left);
        let age = self.births.age(index * RECORDS + slot, value, now);
        Some(Connection {
            service,
            backend: BackendIndex(value.backend()),
            client: key.client(),
            state: value.state().name(),
            age: convert::duration(age.max(idle)),
            idle: convert::duration(idle),
        })
    }
}
