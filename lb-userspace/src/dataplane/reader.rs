//! Reads counters and connections.

use std::sync::{Arc, PoisonError, RwLock};

use aya::maps::{Array, Map, MapData, PerCpuArray};
use lb_common::{reason::Reason, records::Service, tcp::State};

use super::{
    AttachedInterface, BackendCounters, Connection, ConnectionTotals, DataPlaneError, Reader,
    ReasonCount, Sample, ServiceCounters, flows::Tables, plain::Plain, samples::Samples,
};
use crate::model::{BackendIndex, ServiceId};

/// The aya side of [`Reader`].
pub struct KernelReader {
    services: Array<MapData, Plain<Service>>,
    backend_counters: PerCpuArray<MapData, Plain<BackendCounters>>,
    reason_counters: PerCpuArray<MapData, u64>,
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
        let failed = |error: aya::maps::MapError| DataPlaneError::new("open the counters", error);
        Ok(Self {
            services: open("SERVICES")?.try_into().map_err(failed)?,
            backend_counters: open("BACKEND_COUNTERS")?.try_into().map_err(failed)?,
            reason_counters: open("REASON_COUNTERS")?.try_into().map_err(failed)?,
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

    fn reason(&self, service: u16, reason: Reason) -> Result<u64, DataPlaneError> {
        let index = u32::from(service) * Reason::ROW + reason as u32;
        let values = self
            .reason_counters
            .get(&index, 0)
            .map_err(|error| DataPlaneError::new("read the reason counters", error))?;
        Ok(values.iter().sum())
    }
}

impl Reader for KernelReader {
    fn service_counters(&self, service: ServiceId) -> Result<ServiceCounters, DataPlaneError> {
        let mut counters = ServiceCounters {
            untracked: self.reason(service.0, Reason::Untracked)?,
            drops: 0,
        };
        for reason in Reason::ALL.iter().filter(|reason| reason.is_drop()) {
            counters.drops += self.reason(service.0, *reason)?;
        }
        Ok(counters)
    }

    fn backend_counters(&self, backend: BackendIndex) -> Result<BackendCounters, DataPlaneError> {
        let values = self
            .backend_counters
            .get(&u32::from(backend.0), 0)
            .map_err(|error| DataPlaneError::new("read the backend counters", error))?;
        let mut sum = BackendCounters::default();
        for Plain(cpu) in values.iter() {
            sum += *cpu;
        }
        Ok(sum)
    }

    fn reasons(&self, service: Option<ServiceId>) -> Result<Vec<ReasonCount>, DataPlaneError> {
        let service = service.map_or(0, |service| service.0);
        let mut counts = Vec::new();
        for reason in Reason::ALL {
            let packets = self.reason(service, *reason)?;
            if packets > 0 {
                counts.push(ReasonCount {
                    reason: reason.name(),
                    description: reason.description(),
                    dropped: reason.is_drop(),
                    packets,
                });
            }
        }
        Ok(counts)
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
