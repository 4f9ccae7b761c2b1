//! The tables of the ports that `full-nat` sends from, in the daemon's memory: records like those
//! of the connection table, whose place is the port.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
    sync::{Arc, PoisonError, RwLock, atomic::AtomicU64},
};

use aya::{
    Pod,
    maps::{Array, IterableMap as _, MapData},
};
use lb_common::{
    flow::{Bucket4, Bucket6, Tick},
    snat::BUCKETS,
    tcp::State,
};

use super::{
    Connection, ConnectionTotals, DataPlaneError,
    flows::{ServiceSet, Table, mapped, now},
};
use crate::model::ServiceId;

/// By index of the address. Shared between the engine, which makes tables, and the readers.
#[derive(Clone, Default)]
pub(super) struct PortTables(Arc<RwLock<Tables>>);

type Tables = BTreeMap<u16, Arc<PortTable>>;

/// The ports of one address: the number of a record in its table is its port.
pub(super) enum PortTable {
    V4(Ipv4Addr, Table<Bucket4<AtomicU64>>),
    V6(Ipv6Addr, Table<Bucket6<AtomicU64>>),
}

impl PortTables {
    pub(super) fn add4<V: Pod>(
        &self,
        index: u16,
        address: Ipv4Addr,
        ports: &Array<MapData, V>,
    ) -> Result<(), DataPlaneError> {
        let buckets = mapped(ports.map(), BUCKETS)?;
        self.add(index, PortTable::V4(address, Table::unpinned(buckets)));
        Ok(())
    }

    pub(super) fn add6<V: Pod>(
        &self,
        index: u16,
        address: Ipv6Addr,
        ports: &Array<MapData, V>,
    ) -> Result<(), DataPlaneError> {
        let buckets = mapped(ports.map(), BUCKETS)?;
        self.add(index, PortTable::V6(address, Table::unpinned(buckets)));
        Ok(())
    }

    fn add(&self, index: u16, table: PortTable) {
        let mut tables = self.0.write().unwrap_or_else(PoisonError::into_inner);
        tables.insert(index, Arc::new(table));
    }

    pub(super) fn remove(&self, index: u16) {
        let mut tables = self.0.write().unwrap_or_else(PoisonError::into_inner);
        tables.remove(&index);
    }

    /// Whether no living connection is sent from this address.
    pub(super) fn is_idle(&self, index: u16) -> bool {
        let mut totals = ConnectionTotals::default();
        if let Some(table) = self.current().get(&index) {
            table.sweep(now(), &ServiceSet::new(), &mut totals);
        }
        totals.used == 0
    }

    /// Forgets what has expired and adds the rest to `totals`; how many records there are.
    pub(super) fn sweep(
        &self,
        now: Tick,
        ending: &ServiceSet,
        totals: &mut ConnectionTotals,
    ) -> u64 {
        let tables = self.current();
        tables
            .values()
            .for_each(|table| table.sweep(now, ending, totals));
        tables.values().map(|table| table.records()).sum()
    }

    /// Whether `visit` wants more.
    pub(super) fn visit(
        &self,
        now: Tick,
        timeout: &dyn Fn(ServiceId, State) -> u32,
        visit: &mut dyn FnMut(Connection) -> bool,
    ) -> bool {
        self.current().values().all(|table| match &**table {
            PortTable::V4(_, table) => table.visit(now, timeout, visit),
            PortTable::V6(_, table) => table.visit(now, timeout, visit),
        })
    }

    /// Those there are at the moment. A visitor may take its time: the lock is not held meanwhile.
    pub(super) fn current(&self) -> Tables {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl PortTable {
    fn sweep(&self, now: Tick, ending: &ServiceSet, totals: &mut ConnectionTotals) {
        match self {
            Self::V4(_, table) => table.sweep(now, ending, totals),
            Self::V6(_, table) => table.sweep(now, ending, totals),
        }
    }

    fn records(&self) -> u64 {
        match self {
            Self::V4(_, table) => table.records(),
            Self::V6(_, table) => table.records(),
        }
    }
}
