//! What is wanted and what is observed, brought together: what the maps should hold, and why.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    panic,
    sync::Arc,
    thread,
};

use serde::{Deserialize, Serialize};

use super::{
    ids::{AllocatedService, Allocation},
    maps::{Maps, Table},
};
use crate::{
    config::timeouts,
    dataplane::{BackendRecord, ServiceRecord, Slot},
    model::{
        Admin, Backend, BackendIndex, CheckKind, Desired, Forwarding, Health, Name, NextHop,
        Profile, Service, ServiceId, Unresolved, Weight,
    },
    table::BaseTable,
};

/// A way to a backend, or why there is none.
pub type Resolution = Result<NextHop, Unresolved>;

/// The slot tables as the weights want them, by service. The next one of a service is made from
/// the one before, so they are part of the state.
pub type Bases = BTreeMap<ServiceId, Arc<BaseTable>>;

/// What the probes and the neighbours have told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    pub health: BTreeMap<BackendIndex, Verdict>,
    pub next_hops: BTreeMap<IpAddr, Resolution>,
    /// Every interface hands over packets as they were received. In generic mode the kernel may
    /// have merged several into one that is larger than any MTU (GRO). False while it is not known.
    pub all_native: bool,
}

/// What the probes say of a backend, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    pub health: Health,
    pub reason: String,
}

impl Observed {
    /// What is believed of a wanted backend. One that is not checked has no health.
    pub(super) fn verdict(&self, service: &Service, index: BackendIndex) -> Verdict {
        let undecided = |reason: &str| Verdict {
            health: Health::Unknown,
            reason: reason.to_owned(),
        };
        match self.health.get(&index) {
            _ if service.check.kind == CheckKind::None => undecided("not checked"),
            Some(verdict) => verdict.clone(),
            None => undecided("not probed yet"),
        }
    }

    pub(super) fn next_hop(&self, address: IpAddr) -> Resolution {
        match self.next_hops.get(&address) {
            Some(resolution) => resolution.clone(),
            None => Err(Unresolved::Pending),
        }
    }
}

/// Everything that the effective state is a function of.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    pub desired: &'a Desired,
    /// Has an index for everything in `desired`.
    pub allocation: &'a Allocation,
    /// Has a base for every service in `desired`.
    pub bases: &'a Bases,
    pub observed: &'a Observed,
    pub profile: Profile,
}

/// What the maps should hold, and what people are told about it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Effective {
    pub maps: Maps,
    pub services: BTreeMap<ServiceId, EffectiveService>,
    pub backends: BTreeMap<BackendIndex, EffectiveBackend>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct EffectiveService {
    /// As it was last wanted, without its backends: also what becomes of connections that expire,
    /// or lose their backend.
    pub service: Service,
    /// `None`: it was removed, and only its last connections go on.
    pub table: Option<TableInUse>,
}

/// The slot table of a service.
#[derive(Clone, Debug, PartialEq)]
pub struct TableInUse {
    base: Arc<BaseTable>,
    /// Backends that take new connections.
    usable: BTreeMap<SocketAddr, BackendIndex>,
    slots: Arc<[Slot]>,
    /// As in [`crate::table::OverlaidTable::checksum`].
    pub checksum: u64,
    pub base_checksum: u64,
    /// Of how many slots each usable backend is the primary.
    pub shares: BTreeMap<BackendIndex, u32>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct EffectiveBackend {
    pub service: ServiceId,
    pub name: Name,
    pub weight: Weight,
    pub standing: Standing,
    pub next_hop: Resolution,
}

/// Whether a backend takes new connections, and what keeps it from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// With what the probes say, for people.
    Accepting(String),
    /// With what the probes say.
    Down(String),
    WithoutWeight,
    Draining,
    Maintenance,
    /// By the operator; its connections go on.
    Removed,
}

impl Standing {
    fn of(backend: &Backend, verdict: Verdict) -> Self {
        match (backend.admin, backend.weight, verdict.health) {
            (Admin::Maint, ..) => Self::Maintenance,
            (Admin::Drain, ..) => Self::Draining,
            (Admin::Enabled, Weight(0), _) => Self::WithoutWeight,
            (Admin::Enabled, _, Health::Down) => Self::Down(verdict.reason),
            (Admin::Enabled, _, Health::Up | Health::Unknown) => Self::Accepting(verdict.reason),
        }
    }

    pub fn accepts_new(&self) -> bool {
        matches!(self, Self::Accepting(_))
    }
}

/// The bases for `now`, each from the one before with as few slots moved as possible. `before` is
/// the desired state that `bases` are of.
pub fn rebase(bases: &Bases, before: &Desired, now: &Desired, allocation: &Allocation) -> Bases {
    let before = allocation.wanted(before);
    let rebased = in_parallel(allocation.wanted(now).into_iter(), |(id, service)| {
        let previous = bases.get(&id);
        let base = match (previous, before.get(&id)) {
            (Some(base), Some(before)) if weights(before) == weights(service) => base.clone(),
            _ => {
                let (size, weights) = weights(service);
                let previous = previous.map(Arc::as_ref);
                Arc::new(BaseTable::build(size, previous, &weights))
            }
        };
        (id, base)
    });
    rebased.into_iter().collect()
}

/// What `work` makes of each, in their order; on all CPUs where there are many.
fn in_parallel<T: Send, R: Send>(
    mut items: impl ExactSizeIterator<Item = T>,
    work: impl Fn(T) -> R + Sync,
) -> Vec<R> {
    let workers = thread::available_parallelism().map_or(1, usize::from);
    if workers == 1 || items.len() < FEW {
        return items.map(work).collect();
    }
    let share = items.len().div_ceil(workers);
    thread::scope(|scope| {
        let mut workers = Vec::new();
        while items.len() > 0 {
            let share: Vec<T> = items.by_ref().take(share).collect();
            let work = &work;
            workers.push(scope.spawn(move || share.into_iter().map(work).collect::<Vec<R>>()));
        }
        workers
            .into_iter()
            .flat_map(|worker| {
                worker
                    .join()
                    .unwrap_or_else(|reason| panic::resume_unwind(reason))
            })
            .collect()
    })
}

/// Tables that are not worth a thread: they take a few milliseconds each.
const FEW: usize = 8;

/// What a base table depends on.
fn weights(service: &Service) -> (crate::model::TableSize, Vec<(SocketAddr, Weight)>) {
    let mut weights: Vec<_> = service
        .backends
        .iter()
        .map(|backend| (backend.address, backend.weight))
        .collect();
    weights.sort_unstable();
    (service.table_size, weights)
}

/// The effective state. `previous` is of no consequence for the result: a table that it has been
/// made for the same base and the same usable backends is taken from it instead of made again.
pub fn effective(inputs: Inputs<'_>, previous: &Effective) -> Effective {
    let mut effective = Effective::default();
    let wanted = inputs.allocation.wanted(inputs.desired);
    for (&id, allocated) in inputs.allocation.services() {
        let wanted = wanted.get(&id).copied();
        add_backends(&mut effective, inputs, id, allocated, wanted);
    }
    let services = inputs.allocation.services();
    let tables = in_parallel(services.iter(), |(id, allocated)| {
        let base = inputs.bases.get(id).filter(|_| wanted.contains_key(id))?;
        let before = previous.services.get(id).and_then(|s| s.table.as_ref());
        let usable: BTreeMap<SocketAddr, BackendIndex> = allocated
            .backends
            .iter()
            .filter(|(_, backend)| accepts_new(&effective, backend.index))
            .map(|(&address, backend)| (address, backend.index))
            .collect();
        Some(match before {
            Some(table) if Arc::ptr_eq(&table.base, base) && table.usable == usable => {
                table.clone()
            }
            _ => TableInUse::new(base.clone(), usable),
        })
    });
    for ((&id, allocated), table) in services.iter().zip(tables) {
        add_service(&mut effective, inputs.profile, id, allocated, table);
    }
    chain_endpoints(&mut effective.maps);
    effective
}

fn accepts_new(effective: &Effective, index: BackendIndex) -> bool {
    let backend = effective.backends.get(&index);
    backend.is_some_and(|backend| backend.standing.accepts_new())
}

fn add_backends(
    effective: &mut Effective,
    inputs: Inputs<'_>,
    id: ServiceId,
    allocated: &AllocatedService,
    wanted: Option<&Service>,
) {
    let wanted_backends: HashMap<SocketAddr, (&Service, &Backend)> = wanted
        .into_iter()
        .flat_map(|service| service.backends.iter().map(move |b| (service, b)))
        .map(|(service, backend)| (backend.address, (service, backend)))
        .collect();
    for (&address, known) in &allocated.backends {
        let (weight, standing) = match wanted_backends.get(&address) {
            Some((service, backend)) => {
                let verdict = inputs.observed.verdict(service, known.index);
                (backend.weight, Standing::of(backend, verdict))
            }
            None => (Weight(0), Standing::Removed),
        };
        let next_hop = inputs.observed.next_hop(address.ip());
        let service = &allocated.last_wanted;
        let max_packet = match &next_hop {
            Ok(hop) => max_packet(hop, service.forwarding, address.ip(), inputs.observed),
            Err(_) => 0,
        };
        let record = BackendRecord {
            service: id,
            listen: service.listen,
            forwarding: service.forwarding,
            max_packet,
            address,
            accepts_new: standing.accepts_new(),
            next_hop: next_hop.as_ref().ok().cloned(),
            next_with_same_address: None,
            shares_address: false,
        };
        effective.maps.backends.insert(known.index, record);
        let backend = EffectiveBackend {
            service: id,
            name: known.name.clone(),
            weight,
            standing,
            next_hop,
        };
        effective.backends.insert(known.index, backend);
    }
}

/// As in [`BackendRecord::max_packet`].
fn max_packet(hop: &NextHop, forwarding: Forwarding, backend: IpAddr, observed: &Observed) -> u16 {
    // Of a merged packet only the parts must fit: what sends it divides it again. Inside of a tunnel
    // nothing does.
    if forwarding.is_tunnel() || observed.all_native {
        hop.mtu.saturating_sub(forwarding.overhead(backend))
    } else {
        0
    }
}

fn add_service(
    effective: &mut Effective,
    profile: Profile,
    id: ServiceId,
    allocated: &AllocatedService,
    table: Option<TableInUse>,
) {
    let service = &allocated.last_wanted;
    let maps = &mut effective.maps;
    let record = ServiceRecord {
        listen: service.listen,
        forwarding: service.forwarding,
        scheduler: service.scheduler,
        slots: service.table_size.slots(),
        timeouts: timeouts(profile, &service.timeouts),
        snat: service.snat.clone(),
        tunnel: service.tunnel,
        no_backend: service.no_backend,
    };
    maps.services.insert(id, record);
    if let Some(table) = &table {
        let in_map = Table {
            size: service.table_size.slots(),
            slots: Some(table.slots.clone()),
        };
        maps.tables.insert(id, in_map);
        maps.listens.insert(service.listen, id);
    }
    let service = service.clone();
    effective
        .services
        .insert(id, EffectiveService { service, table });
}

/// Chains the backends that share an address and whose replies are seen, in the order of their indices. The order is kept
/// whoever comes and goes: it is what lets a plan change a chain link by link while packets follow
/// it (see [`super::plan`]).
fn chain_endpoints(maps: &mut Maps) {
    let mut last: HashMap<SocketAddr, BackendIndex> = HashMap::new();
    let mut links = Vec::new();
    let replying = maps
        .backends
        .iter()
        .filter(|(_, record)| record.is_in_chain());
    for (&index, record) in replying {
        match last.insert(record.address, index) {
            Some(before) => links.push((before, index)),
            None => {
                maps.endpoints.insert(record.address, index);
            }
        }
    }
    for (before, index) in links {
        if let Some(record) = maps.backends.get_mut(&before) {
            record.next_with_same_address = Some(index);
            record.shares_address = true;
        }
        if let Some(record) = maps.backends.get_mut(&index) {
            record.shares_address = true;
        }
    }
}

impl TableInUse {
    fn new(base: Arc<BaseTable>, usable: BTreeMap<SocketAddr, BackendIndex>) -> Self {
        let addresses: BTreeSet<SocketAddr> = usable.keys().copied().collect();
        let overlaid = base.overlay(&addresses);
        let slots = overlaid
            .slots_of(|owner| usable.get(&owner).copied())
            .map(|(primary, secondary)| Slot { primary, secondary })
            .collect();
        let shares = overlaid
            .slot_counts()
            .into_iter()
            .filter_map(|(address, count)| Some((*usable.get(&address)?, count)))
            .collect();
        Self {
            checksum: overlaid.checksum(),
            base_checksum: base.checksum(),
            base,
            usable,
            slots,
            shares,
        }
    }

    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }
}
