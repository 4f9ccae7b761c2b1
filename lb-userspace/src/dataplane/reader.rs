//! Reads counters and connections.

use std::sync::{Arc, PoisonError, RwLock};

use aya::maps::{Array, Map, MapData};
use lb_common::{reason::Reason, records::Service, tcp::State};

use super::{
    AttachedInterface, BackendCounters, Connection, ConnectionTotals, DataPlaneError, Reader,
    ReasonCount, Sample, ServiceCounters, counters::Counters, flows::Tables, plain::Plain,
    samples::Samples,
};
use crate::model::{BackendIndex, ServiceId};

/// The aya side of [`Reader`].
pub struct KernelReader {
    services: Array<MapData, Plain<Service>>,
    backend_counters: Counters<5>,
    reason_counters: Counters<1>,
    tables: Tables,
    samples: Arc<Samples>,
    interfaces: RwLock<Vec<AttachedInterface>>,
}

impl KernelReader {
    pub(super) fn new(
        open: &mut impl FnMut(&'static str) -> Result<Map, DataPlaneError>,
        tables: Tables,
        samples: Arc<Samples>,
    ) -> Result<Self, DataPlaneError> {
        let failed = |error: aya::maps::MapError| DataPlaneError::new("open the services", error);
        Ok(Self {
            services: open("SERVICES")?.try_into().map_err(failed)?,
            backend_counters: Counters::new(open("BACKEND_COUNTERS")?)?,
            reason_counters: Counters::new(open("REASON_COUNTERS")?)?,
            tables,
            samples,
            interfaces: RwLock::default(),
        })
    }

    pub(super) fn set_interfaces(&self, interfaces: Vec<AttachedInterface>) {
        *self
            .interfaces
            .write()
            .unwrap_or_else(PoisonError::into_inner) = interfaces;
    }

    /// Every reason, with the packets of this service that were counted for it.
    fn row(
        &self,
        ServiceId(service): ServiceId,
    ) -> Result<impl Iterator<Item = (Reason, u64)>, DataPlaneError> {
        let first = u32::from(service) * Reason::ROW;
        let row = self
            .reason_counters
            .sums(first, Reason::ROW)
            .map_err(|error| DataPlaneError::new("read the reason counters", error))?;
        let packets = move |reason: Reason| row.get(reason as usize).map_or(0, |[count]| *count);
        Ok(Reason::ALL
            .iter()
            .map(move |&reason| (reason, packets(reason))))
    }
}

impl Reader for KernelReader {
    fn service_counters(&self, service: ServiceId) -> Result<ServiceCounters, DataPlaneError> {
        let mut counters = ServiceCounters::default();
        for (reason, packets) in self.row(service)? {
            if reason == Reason::Untracked {
                counters.untracked = packets;
            } else if reason.is_drop() {
                counters.drops += packets;
            }
        }
        Ok(counters)
    }

    fn backend_counters(&self, backend: BackendIndex) -> Result<BackendCounters, DataPlaneError> {
        let sums = self
            .backend_counters
            .sums(u32::from(backend.0), 1)
            .map_err(|error| DataPlaneError::new("read the backend counters", error))?;
        let [connections, packets_in, bytes_in, packets_out, bytes_out] =
            sums.first().copied().unwrap_or_default();
        Ok(BackendCounters {
            connections,
            packets_in,
            bytes_in,
            packets_out,
            bytes_out,
        })
    }

    fn reasons(&self, service: Option<ServiceId>) -> Result<Vec<ReasonCount>, DataPlaneError> {
        let row = self.row(service.unwrap_or(ServiceId(0)))?;
        let counted = row.filter(|(_, packets)| *packets > 0);
        Ok(counted
            .map(|(reason, packets)| ReasonCount {
                reason: reason.name(),
                description: reason.description(),
                dropped: reason.is_drop(),
                packets,
            })
            .collect())
    }

    fn connections(&self, visit: &mut dyn FnMut(Connection) -> bool) {
        let timeouts: Vec<_> = (0..self.services.len())
            .map(|id| {
                let record = self.services.get(&id, 0);
                record.map_or_else(|_| Default::default(), |Plain(record)| record.timeouts)
            })
            .collect();
        let timeout = |service: ServiceId, state: State| {
            timeouts
                .get(usize::from(service.0))
                .map_or(0, |timeouts| timeouts[state.timeout_class()])
        };
        self.tables.visit(&timeout, visit);
    }

    fn connection_totals(&self) -> ConnectionTotals {
        self.tables.sweep()
    }

    fn interfaces(&self) -> Vec<AttachedInterface> {
        self.interfaces
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn samples(&self) -> Vec<Sample> {
        self.samples.all()
    }
}
