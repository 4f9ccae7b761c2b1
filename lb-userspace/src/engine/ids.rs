//! Which service and which backend has which index in the data plane.
//!
//! Every record of a living connection names a service id and a backend index. So an index stays
//! with its owner for as long as a connection may name it, whatever the operator wants meanwhile:
//!
//! ```text
//! free ── assign ──→ wanted ── removed by the operator ──→ lingering ── release ──→ free
//!                      ↑                                       │      (no connection
//!                      └──────── wanted again ─────────────────┘       is left)
//! ```
//!
//! An identity is what the packets see: a service is its listen address and protocol, a backend is
//! an address of one service. Names are labels, and a rename moves nothing.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    net::SocketAddr,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::model::{
    BackendIndex, Desired, MAX_BACKENDS, MAX_SERVICES, MAX_SERVICES_PER_ENDPOINT, Name, Protocol,
    Service, ServiceId,
};

/// Why something that is wanted has no place in the data plane yet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AllocationError {
    #[error(
        "all {MAX_SERVICES} service ids are taken, {lingering} of them by removed services whose connections have not ended: try again when they have"
    )]
    Services { lingering: usize },
    #[error(
        "all {MAX_BACKENDS} backend indices are taken, {lingering} of them by removed backends whose connections have not ended: try again when they have"
    )]
    Backends { lingering: usize },
    #[error(
        "{address} would stand in more than {MAX_SERVICES_PER_ENDPOINT} services, with those that it was removed from and still has connections of: try again when they have ended"
    )]
    SharedEndpoint { address: SocketAddr },
}

/// The indices in use, and whose they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocation {
    services: BTreeMap<ServiceId, AllocatedService>,
    free_services: Pool,
    free_backends: Pool,
}

/// A service that has an id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AllocatedService {
    /// As it was last wanted, without its backends: a removed one is forwarded by the same rules.
    pub(super) last_wanted: Service,
    pub(super) backends: BTreeMap<SocketAddr, AllocatedBackend>,
}

/// A backend of a service that has an index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AllocatedBackend {
    pub(super) index: BackendIndex,
    /// As it was last wanted.
    pub(super) name: Name,
}

impl Default for Allocation {
    fn default() -> Self {
        Self {
            services: BTreeMap::new(),
            free_services: Pool::new(MAX_SERVICES),
            free_backends: Pool::new(MAX_BACKENDS),
        }
    }
}

impl Allocation {
    /// This allocation with an index for everything in `desired`. What is no longer wanted
    /// lingers; what is wanted again has its old index back.
    ///
    /// # Errors
    ///
    /// What lingers leaves too little room.
    pub fn assign(&self, desired: &Desired) -> Result<Self, AllocationError> {
        let mut next = self.clone();
        for service in &desired.services {
            let id = match next.service_id(service) {
                Some(id) => id,
                None => ServiceId(next.free_services.take().ok_or_else(|| {
                    let lingering = self.services.len() - self.wanted(desired).len();
                    AllocationError::Services { lingering }
                })?),
            };
            next.assign_backends(id, service)
                .ok_or_else(|| AllocationError::Backends {
                    lingering: self.lingering(desired).len(),
                })?;
        }
        next.check_shared_endpoints()?;
        Ok(next)
    }

    /// `None`: no index is free.
    fn assign_backends(&mut self, id: ServiceId, service: &Service) -> Option<()> {
        let mut last_wanted = service.clone();
        last_wanted.backends.clear();
        let mut backends = self
            .services
            .remove(&id)
            .map(|known| known.backends)
            .unwrap_or_default();
        for backend in &service.backends {
            let index = match backends.get(&backend.address) {
                Some(known) => known.index,
                None => BackendIndex(self.free_backends.take()?),
            };
            let name = backend.name.clone();
            backends.insert(backend.address, AllocatedBackend { index, name });
        }
        let allocated = AllocatedService {
            last_wanted,
            backends,
        };
        self.services.insert(id, allocated);
        Some(())
    }

    /// A reply looks for its connection in so many services and no more.
    fn check_shared_endpoints(&self) -> Result<(), AllocationError> {
        let mut sharing: HashMap<SocketAddr, usize> = HashMap::new();
        let replying = self.services.values().flat_map(|known| {
            let service = &known.last_wanted;
            let addresses = known.backends.keys();
            addresses.filter(|address| service.sees_replies_of(address.ip()))
        });
        for &address in replying {
            let count = sharing.entry(address).or_default();
            *count += 1;
            if *count > MAX_SERVICES_PER_ENDPOINT {
                return Err(AllocationError::SharedEndpoint { address });
            }
        }
        Ok(())
    }

    pub(super) fn services(&self) -> &BTreeMap<ServiceId, AllocatedService> {
        &self.services
    }

    pub fn service_id(&self, service: &Service) -> Option<ServiceId> {
        let identity =
            |service: &Service| -> (SocketAddr, Protocol) { (service.listen, service.protocol) };
        self.services
            .iter()
            .find(|(_, known)| identity(&known.last_wanted) == identity(service))
            .map(|(&id, _)| id)
    }

    pub fn backend_index(&self, service: ServiceId, address: SocketAddr) -> Option<BackendIndex> {
        let backends = &self.services.get(&service)?.backends;
        Some(backends.get(&address)?.index)
    }

    /// Backends that have an index and are not wanted, with their services.
    pub fn lingering(&self, desired: &Desired) -> BTreeMap<BackendIndex, ServiceId> {
        let mut lingering = BTreeMap::new();
        let wanted = self.wanted(desired);
        for (&id, known) in &self.services {
            let wanted: BTreeSet<SocketAddr> = wanted
                .get(&id)
                .map(|service| service.backends.iter().map(|b| b.address).collect())
                .unwrap_or_default();
            for (address, backend) in &known.backends {
                if !wanted.contains(address) {
                    lingering.insert(backend.index, id);
                }
            }
        }
        lingering
    }

    /// Services that are not wanted and have no backends left, not even lingering ones.
    pub fn idle_services(&self, desired: &Desired) -> Vec<ServiceId> {
        let wanted = self.wanted(desired);
        self.services
            .iter()
            .filter(|(id, known)| known.backends.is_empty() && !wanted.contains_key(id))
            .map(|(&id, _)| id)
            .collect()
    }

    /// The services of `desired` by id.
    pub(super) fn wanted<'d>(&self, desired: &'d Desired) -> BTreeMap<ServiceId, &'d Service> {
        let ids: HashMap<(SocketAddr, Protocol), ServiceId> = self
            .services
            .iter()
            .map(|(&id, known)| {
                let Service {
                    listen, protocol, ..
                } = known.last_wanted;
                ((listen, protocol), id)
            })
            .collect();
        desired
            .services
            .iter()
            .filter_map(|service| {
                let id = ids.get(&(service.listen, service.protocol))?;
                Some((*id, service))
            })
            .collect()
    }

    /// Frees the index of a backend that no connection names any more.
    pub fn release_backend(&mut self, service: ServiceId, index: BackendIndex) {
        if let Some(known) = self.services.get_mut(&service) {
            let before = known.backends.len();
            known.backends.retain(|_, backend| backend.index != index);
            if known.backends.len() < before {
                self.free_backends.give(index.0);
            }
        }
    }

    /// Frees the id of a service; one with backends keeps it.
    pub fn release_service(&mut self, id: ServiceId) {
        if self
            .services
            .get(&id)
            .is_some_and(|s| s.backends.is_empty())
        {
            self.services.remove(&id);
            self.free_services.give(id.0);
        }
    }

    /// Whether any index is given out twice, or is both given out and free. A state file that was
    /// edited by hand could say so.
    pub(super) fn is_consistent(&self) -> bool {
        let indices = || {
            let backends = self.services.values().flat_map(|s| s.backends.values());
            backends.map(|backend| backend.index.0)
        };
        let identities: BTreeSet<_> = self
            .services
            .values()
            .map(|s| s.last_wanted.listen)
            .collect();
        identities.len() == self.services.len()
            && self
                .free_services
                .complements(self.services.keys().map(|id| id.0), MAX_SERVICES)
            && self.free_backends.complements(indices(), MAX_BACKENDS)
    }
}

/// Free numbers from 1 to a maximum. One that was given back is taken last, and of several the one
/// that was given back first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Pool {
    /// The lowest number that was never taken.
    next: u16,
    max: u16,
    given_back: VecDeque<u16>,
}

impl Pool {
    fn new(max: usize) -> Self {
        Self {
            next: 1,
            max: u16::try_from(max).unwrap_or(u16::MAX - 1),
            given_back: VecDeque::new(),
        }
    }

    fn take(&mut self) -> Option<u16> {
        if self.next <= self.max {
            self.next += 1;
            return Some(self.next - 1);
        }
        self.given_back.pop_front()
    }

    fn give(&mut self, number: u16) {
        self.given_back.push_back(number);
    }

    /// Whether `taken` and what is free are together all numbers, each once.
    fn complements(&self, taken: impl Iterator<Item = u16>, max: usize) -> bool {
        let mut known: Vec<u16> = taken.chain(self.given_back.iter().copied()).collect();
        known.sort_unstable();
        usize::from(self.max) == max
            && self.next <= self.max + 1
            && known.into_iter().eq(1..self.next)
    }
}

/// Watches lingering backends until no connection names them.
#[derive(Debug, Default)]
pub(super) struct Farewell {
    /// When each was first seen without connections.
    unused_since: HashMap<BackendIndex, Instant>,
}

impl Farewell {
    /// What separates the two readings without connections that free an index: far longer than a
    /// packet takes to make a record for a slot that it read before the backend was removed.
    pub(super) const PAUSE: Duration = Duration::from_secs(2);

    /// Forgets those that no longer linger: if they are removed again, the watch starts afresh.
    pub(super) fn retain(&mut self, lingering: &BTreeMap<BackendIndex, ServiceId>) {
        self.unused_since
            .retain(|index, _| lingering.contains_key(index));
    }

    /// Takes a reading of connections per backend; those of `lingering` that none has named for at
    /// least [`Self::PAUSE`].
    pub(super) fn read(
        &mut self,
        now: Instant,
        lingering: &BTreeMap<BackendIndex, ServiceId>,
        connections: &HashMap<BackendIndex, u64>,
    ) -> Vec<BackendIndex> {
        self.retain(lingering);
        let mut unused = Vec::new();
        for &index in lingering.keys() {
            if connections.get(&index).is_some_and(|&count| count > 0) {
                self.unused_since.remove(&index);
                continue;
            }
            let since = *self.unused_since.entry(index).or_insert(now);
            if now.saturating_duration_since(since) >= Self::PAUSE {
                unused.push(index);
            }
        }
        unused
    }
}
