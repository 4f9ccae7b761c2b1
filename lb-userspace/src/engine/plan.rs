//! From what the maps hold to what they should hold: a list of writes, each with its reason.
//!
//! Packets flow while a plan is carried out, and the daemon may be killed after any step of it. So
//! after each step, every number that the packet path may follow leads to something that exists:
//!
//! 1. addresses that nobody listens on any more are unlistened;
//! 2. records of services that become tunnels are written;
//! 3. backend records in chains are written, then the endpoints that lead to them, then the records
//!    of other backends;
//! 4. the slot tables that services have not had before are made, empty; then, per service, its
//!    table is written, which names backends, then its record;
//! 5. addresses are listened on;
//! 6. what nothing leads to any more is removed: endpoints, tables, backends, services.
//!
//! **Modes.** A service's mode is in its record, and changes at one stroke; a backend's record is
//! good for every mode, but for its chain (below) and for one thing: an address of another family
//! than the service's can be reached through a tunnel only. So a service becomes a tunnel before
//! its backends of the other family are written, and is none any more only after its table names
//! none of them and their records are closed ([`BackendRecord::is_reachable`]).
//!
//! **Chains.** Backends that share an address are chained by index, ascending. Records are written
//! from the highest index down, so a new one has its way on before anything leads to it, and one
//! that goes keeps its way on until it is cleared. As the order of those that stay is the same
//! before and after, a packet that follows a chain reaches every one of them at any moment. One that
//! leaves its chain, as its service sees no replies any more, keeps its record until the endpoints
//! lead around it.
//!
//! [`BackendRecord::is_reachable`]: crate::dataplane::BackendRecord::is_reachable

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::{Effective, reason::Reasons};
use crate::{
    dataplane::{BackendRecord, MapWrite, ServiceRecord},
    model::{BackendIndex, ServiceId},
};

/// One write, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    pub write: MapWrite,
    /// As an operator would say it.
    pub reason: String,
}

/// The steps from `old` to `new`; none where the maps would not change.
pub fn plan(old: &Effective, new: &Effective) -> Vec<Step> {
    let mut plan = Planner {
        old,
        new,
        reasons: Reasons { old, new },
        tunnels: BTreeMap::new(),
        steps: Vec::new(),
    };
    plan.unlisten();
    plan.begin_tunnels();
    plan.write_backends(BackendRecord::is_in_chain);
    plan.bind_endpoints();
    plan.write_backends(|record| record.is_reachable() && !record.is_in_chain());
    plan.write_services();
    plan.listen();
    plan.remove();
    plan.steps
}

/// The steps that make maps of unknown content hold what `known` says, without disturbing traffic
/// that `known` provides for: everything is written again as it most likely stands there already,
/// in the order of [`plan`], and what `known` does not have is removed.
pub fn adopt(known: &Effective) -> Vec<Step> {
    let maps = &known.maps;
    let reason = || "taken over from an earlier run".to_owned();
    let step = |write| Step {
        write,
        reason: reason(),
    };
    let mut steps = vec![step(MapWrite::PruneListens {
        keep: maps.listens.keys().copied().collect(),
    })];
    let mut written = plan(&Effective::default(), known);
    for step in &mut written {
        step.reason = reason();
    }
    steps.append(&mut written);
    // Of a removed service, the table may have been left.
    for service in maps.services.keys() {
        if !maps.tables.contains_key(service) {
            steps.push(step(MapWrite::RemoveTable { service: *service }));
        }
    }
    steps.push(step(MapWrite::PruneRecords {
        endpoints: maps.endpoints.keys().copied().collect(),
        backends: maps.backends.keys().copied().collect(),
        services: maps.services.keys().copied().collect(),
    }));
    steps
}

/// What a plan does, for people: its reasons, each said once, and none that another one only says
/// in more words.
pub fn summary(steps: &[Step]) -> Vec<String> {
    let reasons: BTreeSet<&str> = steps.iter().map(|step| step.reason.as_str()).collect();
    let continued = |line: &str| {
        let longer = format!("{line}: ");
        let next = reasons.range(longer.as_str()..).next();
        next.is_some_and(|next| next.starts_with(&longer))
    };
    let mut said = HashSet::new();
    steps
        .iter()
        .map(|step| step.reason.as_str())
        .filter(|reason| said.insert(*reason) && !continued(reason))
        .map(str::to_owned)
        .collect()
}

struct Planner<'a> {
    old: &'a Effective,
    new: &'a Effective,
    reasons: Reasons<'a>,
    /// Records that [`Self::begin_tunnels`] has written.
    tunnels: BTreeMap<ServiceId, ServiceRecord>,
    steps: Vec<Step>,
}

impl Planner<'_> {
    fn push(&mut self, write: MapWrite, reason: String) {
        self.steps.push(Step { write, reason });
    }

    fn unlisten(&mut self) {
        for (&address, &service) in &self.old.maps.listens {
            if !self.new.maps.listens.contains_key(&address) {
                let reason = self.reasons.service_removed(service);
                self.push(MapWrite::Unlisten { address }, reason);
            }
        }
    }

    /// Of a service that has a table, the record goes on to match it.
    fn begin_tunnels(&mut self) {
        for (&service, record) in &self.new.maps.services {
            let before = self.old.maps.services.get(&service);
            if !record.forwarding.is_tunnel() || before.is_some_and(|b| b.forwarding.is_tunnel()) {
                continue;
            }
            let record = ServiceRecord {
                slots: before.map_or(record.slots, |before| before.slots),
                ..record.clone()
            };
            self.tunnels.insert(service, record.clone());
            let reason = self.reasons.service_written(service);
            self.push(MapWrite::WriteService { service, record }, reason);
        }
    }

    /// Those that `which` is true of.
    fn write_backends(&mut self, which: impl Fn(&BackendRecord) -> bool) {
        for (&backend, record) in self.new.maps.backends.iter().rev() {
            if which(record) {
                self.write_backend(backend, record);
            }
        }
    }

    fn write_backend(&mut self, backend: BackendIndex, record: &BackendRecord) {
        let before = self.old.maps.backends.get(&backend);
        if before != Some(record) {
            let reason = self.reasons.backend_written(backend);
            let record = record.clone();
            self.push(MapWrite::WriteBackend { backend, record }, reason);
        }
    }

    fn bind_endpoints(&mut self) {
        for (&address, &backend) in &self.new.maps.endpoints {
            if self.old.maps.endpoints.get(&address) != Some(&backend) {
                let reason = self.reasons.endpoint_bound(address, backend);
                self.push(MapWrite::BindEndpoint { address, backend }, reason);
            }
        }
    }

    fn write_services(&mut self) {
        let mut closed: BTreeMap<ServiceId, Vec<BackendIndex>> = BTreeMap::new();
        for (&backend, record) in self.new.maps.backends.iter().rev() {
            if !record.is_reachable() {
                closed.entry(record.service).or_default().push(backend);
            }
        }
        for &service in self.new.maps.services.keys() {
            self.create_first_table(service);
        }
        for (&service, record) in &self.new.maps.services {
            self.write_table(service);
            for &backend in closed.get(&service).into_iter().flatten() {
                self.write_backend(backend, &self.new.maps.backends[&backend]);
            }
            let before = self
                .tunnels
                .get(&service)
                .or(self.old.maps.services.get(&service));
            if before != Some(record) {
                let reason = self.reasons.service_written(service);
                let record = record.clone();
                self.push(MapWrite::WriteService { service, record }, reason);
            }
        }
    }

    /// One after another, as what waits for RCU can then wait for all of them.
    fn create_first_table(&mut self, service: ServiceId) {
        if self.old.maps.tables.contains_key(&service) {
            return;
        }
        if let Some(table) = self.new.maps.tables.get(&service) {
            let slots = table.size;
            let reason = self.reasons.table_created(service, slots);
            self.push(MapWrite::CreateTable { service, slots }, reason);
        }
    }

    fn write_table(&mut self, service: ServiceId) {
        let before = self.old.maps.tables.get(&service);
        let Some(table) = self.new.maps.tables.get(&service) else {
            return;
        };
        let size = table.size;
        if before.is_some_and(|before| before.size != size) {
            let reason = self.reasons.table_created(service, size);
            let write = MapWrite::CreateTable {
                service,
                slots: size,
            };
            self.push(write, reason);
        }
        if before != Some(table)
            && let Some(slots) = table.slots.clone()
        {
            let reason = self.reasons.table_written(service);
            self.push(MapWrite::WriteTable { service, slots }, reason);
        }
    }

    fn listen(&mut self) {
        for (&address, &service) in &self.new.maps.listens {
            if self.old.maps.listens.get(&address) != Some(&service) {
                let reason = self.reasons.listening(service, address);
                self.push(MapWrite::Listen { address, service }, reason);
            }
        }
    }

    fn remove(&mut self) {
        let (old, new) = (&self.old.maps, &self.new.maps);
        for (&address, &backend) in &old.endpoints {
            if !new.endpoints.contains_key(&address) {
                let reason = self.reasons.endpoint_unbound(backend);
                self.push(MapWrite::UnbindEndpoint { address }, reason);
            }
        }
        for &service in old.tables.keys() {
            if !new.tables.contains_key(&service) {
                let reason = self.reasons.service_removed(service);
                self.push(MapWrite::RemoveTable { service }, reason);
            }
        }
        for &backend in old.backends.keys() {
            if !new.backends.contains_key(&backend) {
                let reason = self.reasons.backend_cleared(backend);
                self.push(MapWrite::ClearBackend { backend }, reason);
            }
        }
        for &service in old.services.keys() {
            if !new.services.contains_key(&service) {
                let reason = self.reasons.service_cleared(service);
                self.push(MapWrite::ClearService { service }, reason);
            }
        }
    }
}
