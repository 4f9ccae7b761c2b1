//! The tables of the ports that `full-nat` sends from, in the daemon's memory: records like those
//! of the connection table, whose place is the port.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock, atomic::AtomicU64},
};

use aya::{
    Pod,
    maps::{Array, IterableMap as _, MapData},
};
use lb_common::{
    flow::{Bucket4, Bucket6},
    snat::BUCKETS,
    tcp::State,
};

use super::{
    Connection, ConnectionTotals, DataPlaneError,
    clock::Moment,
    flows::{NAME, ServiceSet, Table},
    mapped::mapped,
};
use crate::model::ServiceId;

/// By index of the address. Shared between the engine, which makes tables, and the readers.
#[derive(Clone, Default)]
pub(super) struct PortTables {
    tables: Arc<RwLock<Tables>>,
    /// [`super::flows::FlowTables::ending`]
    pub(super) ending: Arc<ServiceSet>,
}

type Tables = BTreeMap<u16, Arc<PortTable>>;

pub(super) enum PortTable {
    V4(Table<Bucket4<AtomicU64>>),
    V6(Table<Bucket6<AtomicU64>>),
}

impl PortTables {
    pub(super) fn add4<V: Pod>(
        &self,
        index: u16,
        ports: &Array<MapData, V>,
    ) -> Result<(), DataPlaneError> {
        let buckets = mapped(ports.map(), BUCKETS, NAME)?;
        self.add(index, PortTable::V4(Table::unpinned(buckets)));
        Ok(())
    }

    pub(super) fn add6<V: Pod>(
        &self,
        index: u16,
        ports: &Array<MapData, V>,
    ) -> Result<(), DataPlaneError> {
        let buckets = mapped(ports.map(), BUCKETS, NAME)?;
        self.add(index, PortTable::V6(Table::unpinned(buckets)));
        Ok(())
    }

    fn add(&self, index: u16, table: PortTable) {
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        tables.insert(index, Arc::new(table));
    }

    pub(super) fn remove(&self, index: u16) {
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        tables.remove(&index);
    }

    /// Whether no living connection is sent from this address.
    pub(super) fn is_idle(&self, index: u16) -> bool {
        let mut totals = ConnectionTotals::default();
        if let Some(table) = self.current().get(&index) {
            table.sweep(Moment::now(), &self.ending, &mut totals);
        }
        totals.used == 0
    }

    /// Forgets what has expired and adds the rest to `totals`; how many records there are.
    pub(super) fn sweep(&self, now: Moment, totals: &mut ConnectionTotals) -> u64 {
        let tables = self.current();
        tables
            .values()
            .for_each(|table| table.sweep(now, &self.ending, totals));
        tables.values().map(|table| table.records()).sum()
    }

    /// Whether `visit` wants more.
    pub(super) fn visit(
        &self,
        now: Moment,
        timeout: &dyn Fn(ServiceId, State) -> u32,
        visit: &mut dyn FnMut(Connection) -> bool,
    ) -> bool {
        self.current().values().all(|table| match &**table {
            PortTable::V4(table) => table.visit(now, timeout, visit),
            PortTable::V6(table) => table.visit(now, timeout, visit),
        })
    }

    /// The one of an address.
    pub(super) fn of(&self, index: u16) -> Option<Arc<PortTable>> {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        tables.get(&index).cloned()
    }

    /// A visitor may take its time: the lock is not held meanwhile.
    pub(super) fn current(&self) -> Tables {
        self.tables
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl PortTable {
    fn sweep(&self, now: Moment, ending: &ServiceSet, totals: &mut ConnectionTotals) {
        match self {
            Self::V4(table) => table.sweep(now, ending, totals),
            Self::V6(table) => table.sweep(now, ending, totals),
        }
    }

    fn records(&self) -> u64 {
        match self {
            Self::V4(table) => table.records(),
            Self::V6(table) => table.records(),
        }
    }
}
