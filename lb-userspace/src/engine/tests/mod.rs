//! A small world to test the engine in, and a kernel that only remembers.

mod adoption;
mod changes;
mod endings;
mod index_reuse;
mod plans;

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
};

use super::{
    core::{Core, EngineError, EngineSettings},
    *,
};
use crate::{
    dataplane::{
        AttachedInterface, BackendCounters, Connection, ConnectionTotals, DataPlaneError, MapWrite,
        Reader, ReasonCount, Sample, ServiceCounters, Writer,
    },
    model::{
        Admin, Backend, BackendIndex, Check, Desired, Forwarding, Health, MacAddr, Name, NextHop,
        Profile, Protocol, Scheduler, Service, ServiceId, TableSize, TimeoutOverrides, Weight,
    },
};

pub(super) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(super) fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A service with the smallest table.
pub(super) fn service(called: &str, listen: &str, backends: &[(&str, &str)]) -> Service {
    Service {
        name: name(called),
        listen: address(listen),
        protocol: Protocol::Tcp,
        forwarding: Forwarding::Nat,
        scheduler: Scheduler::Maglev,
        table_size: TableSize::try_from(251).unwrap(),
        check: Check::default(),
        timeouts: TimeoutOverrides::default(),
        snat: Vec::new(),
        tunnel: Default::default(),
        no_backend: Default::default(),
        on_expiry: Default::default(),
        on_backend_down: Default::default(),
        backends: backends
            .iter()
            .map(|(called, at)| backend(called, at))
            .collect(),
    }
}

pub(super) fn backend(called: &str, at: &str) -> Backend {
    Backend {
        name: name(called),
        address: address(at),
        weight: Weight::DEFAULT,
        admin: Admin::Enabled,
    }
}

/// Two services, which share one server.
pub(super) fn two_services() -> Desired {
    Desired {
        services: vec![
            service(
                "web",
                "192.0.2.10:80",
                &[
                    ("web-1", "10.0.0.1:80"),
                    ("web-2", "10.0.0.2:80"),
                    ("web-3", "10.0.0.3:80"),
                    ("web-4", "10.0.0.4:80"),
                ],
            ),
            service(
                "tls",
                "192.0.2.10:443",
                &[("tls-1", "10.0.0.1:80"), ("tls-5", "10.0.0.5:80")],
            ),
        ],
    }
}

pub(super) fn next_hop(last_byte: u8) -> NextHop {
    NextHop {
        ifindex: 2,
        interface: "eth1".to_owned(),
        source_mac: MacAddr([2, 0, 0, 0, 0, 0]),
        destination_mac: MacAddr([2, 0, 0, 0, 0, last_byte]),
        vlan: Vec::new(),
        mtu: 1500,
    }
}

pub(super) fn health(service: &str, backend: &str, health: Health, reason: &str) -> Observation {
    Observation::Health {
        service: name(service),
        backend: name(backend),
        health,
        reason: reason.to_owned(),
    }
}

pub(super) fn set_weight(service: &str, backend: &str, weight: u16) -> Change {
    Change::SetWeight {
        service: name(service),
        backend: name(backend),
        weight: Weight(weight),
    }
}

pub(super) fn remove(service: &str, backend: &str) -> Change {
    Change::RemoveBackend {
        service: name(service),
        backend: name(backend),
    }
}

/// The kernel's maps, counters and connections, as far as the engine has to do with them.
#[derive(Clone, Default)]
pub(super) struct FakeKernel(Arc<Mutex<Inside>>);

#[derive(Default)]
struct Inside {
    maps: Maps,
    writes: Vec<MapWrite>,
    /// How many more writes succeed.
    writes_left: Option<usize>,
    counters: HashMap<BackendIndex, BackendCounters>,
    connections: HashMap<BackendIndex, u64>,
}

impl FakeKernel {
    pub(super) fn maps(&self) -> Maps {
        self.0.lock().unwrap().maps.clone()
    }

    /// What was written since the last call.
    pub(super) fn take_writes(&self) -> Vec<MapWrite> {
        std::mem::take(&mut self.0.lock().unwrap().writes)
    }

    /// Lets so many more writes succeed and no others.
    pub(super) fn fail_after(&self, writes: usize) {
        self.0.lock().unwrap().writes_left = Some(writes);
    }

    pub(super) fn recover(&self) {
        self.0.lock().unwrap().writes_left = None;
    }

    pub(super) fn set_connections(&self, backend: BackendIndex, count: u64) {
        self.0.lock().unwrap().connections.insert(backend, count);
    }

    pub(super) fn count(&self, backend: BackendIndex, connections: u64) {
        let mut inside = self.0.lock().unwrap();
        inside.counters.entry(backend).or_default().connections += connections;
    }
}

impl Writer for FakeKernel {
    fn apply(&mut self, write: &MapWrite) -> Result<(), DataPlaneError> {
        let mut inside = self.0.lock().unwrap();
        if let Some(left) = &mut inside.writes_left {
            let Some(fewer) = left.checked_sub(1) else {
                return Err(DataPlaneError {
                    action: "write a map".to_owned(),
                    source: "out of memory".into(),
                });
            };
            *left = fewer;
        }
        inside.maps.apply(write);
        match write {
            MapWrite::ClearBackend { backend } => {
                inside.counters.remove(backend);
            }
            MapWrite::PruneRecords { backends, .. } => {
                inside.counters.retain(|index, _| backends.contains(index));
            }
            _ => {}
        }
        inside.writes.push(write.clone());
        Ok(())
    }
}

impl Reader for FakeKernel {
    fn service_counters(&self, _: ServiceId) -> Result<ServiceCounters, DataPlaneError> {
        Ok(ServiceCounters::default())
    }

    fn backend_counters(&self, backend: BackendIndex) -> Result<BackendCounters, DataPlaneError> {
        let inside = self.0.lock().unwrap();
        Ok(inside.counters.get(&backend).copied().unwrap_or_default())
    }

    fn reasons(&self, _: Option<ServiceId>) -> Result<Vec<ReasonCount>, DataPlaneError> {
        Ok(Vec::new())
    }

    fn connections(&self, _: &mut dyn FnMut(Connection) -> bool) {}

    fn connection_totals(&self) -> ConnectionTotals {
        ConnectionTotals {
            by_backend: self.0.lock().unwrap().connections.clone(),
            ..ConnectionTotals::default()
        }
    }

    fn interfaces(&self) -> Vec<AttachedInterface> {
        Vec::new()
    }

    fn samples(&self) -> Vec<Sample> {
        Vec::new()
    }
}

/// An engine without its thread, and what it has published last.
pub(super) struct Life {
    pub(super) core: Core,
    published: Arc<Mutex<Snapshot>>,
}

impl Life {
    pub(super) fn try_start(
        kernel: &FakeKernel,
        state_dir: &Path,
        file_desired: Desired,
    ) -> Result<Self, EngineError> {
        let published: Arc<Mutex<Snapshot>> = Arc::default();
        let shelf = published.clone();
        let settings = EngineSettings {
            state_dir: state_dir.to_owned(),
            profile: Profile::Edge,
            file_desired,
        };
        let core = Core::start(
            Box::new(kernel.clone()),
            Arc::new(kernel.clone()),
            settings,
            Box::new(move |snapshot| *shelf.lock().unwrap() = snapshot),
        )?;
        Ok(Self { core, published })
    }

    pub(super) fn start(kernel: &FakeKernel, state_dir: &Path, file_desired: Desired) -> Self {
        Self::try_start(kernel, state_dir, file_desired).unwrap()
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        self.published.lock().unwrap().clone()
    }

    pub(super) fn service(&self, called: &str) -> ServiceView {
        let services = self.snapshot().services;
        let found = services
            .into_iter()
            .find(|s| s.service.name == name(called));
        found.unwrap()
    }

    pub(super) fn backend(&self, service: &str, called: &str) -> BackendView {
        let backends = self.service(service).backends;
        let found = backends
            .into_iter()
            .find(|b| b.backend.name == name(called));
        found.unwrap()
    }
}

/// The service in another mode, with what that needs. Backends that it has no use for are gone.
pub(super) fn in_mode(mut service: Service, forwarding: Forwarding) -> Service {
    service.forwarding = forwarding;
    service.snat = match forwarding {
        Forwarding::FullNat => vec![match service.listen {
            SocketAddr::V4(_) => [10, 0, 9, 9].into(),
            SocketAddr::V6(_) => [0x2001, 0xdb8, 9, 0, 0, 0, 0, 9].into(),
        }],
        _ => Vec::new(),
    };
    let (listen, keeps) = (service.listen, forwarding.keeps_destination());
    let is_ipv4 = |address: SocketAddr| address.is_ipv4();
    service.backends.retain(|backend| {
        let same_family = is_ipv4(backend.address) == is_ipv4(listen);
        (forwarding.is_tunnel() || same_family)
            && (!keeps || backend.address.port() == listen.port())
    });
    service
}

pub(super) const MODES: [Forwarding; 5] = [
    Forwarding::Nat,
    Forwarding::FullNat,
    Forwarding::Dsr,
    Forwarding::Ipip,
    Forwarding::Gue,
];

/// What must hold of the maps at every moment, whoever has just died: a number that the packet
/// path may follow leads to something.
#[track_caller]
pub(super) fn assert_sound(maps: &Maps) {
    for (address, id) in &maps.listens {
        assert!(maps.tables.contains_key(id), "{address}: no table");
        let record = maps.services.get(id).expect("a listen needs a service");
        assert_eq!(record.listen, *address);
    }
    for (id, table) in &maps.tables {
        let slots = table.slots.iter().flat_map(|slots| slots.iter());
        let named: BTreeSet<BackendIndex> = slots
            .flat_map(|slot| [slot.primary, slot.secondary])
            .flatten()
            .collect();
        for index in named {
            let record = maps.backends.get(&index);
            let record = record.expect("a slot names a backend that is not there");
            assert_eq!(record.service, *id, "a slot names a foreign backend");
        }
    }
    for address in maps.endpoints.keys() {
        for index in chain(maps, *address) {
            let record = maps.backends.get(&index);
            let record = record.expect("a chain leads to a backend that is not there");
            assert_eq!(record.address, *address, "a chain leads to a stranger");
        }
    }
}

/// No connection is sent to half of an address: of the backends that connections may name, those
/// `known`, a service that is no tunnel leads to none of the other family.
#[track_caller]
pub(super) fn assert_families(maps: &Maps, known: &Maps) {
    let open = maps
        .backends
        .iter()
        .filter(|(index, backend)| known.backends.contains_key(index) && backend.is_reachable());
    for (_, backend) in open {
        if let Some(service) = maps.services.get(&backend.service) {
            assert!(
                service.forwarding.is_tunnel()
                    || service.listen.is_ipv4() == backend.address.is_ipv4(),
                "{service:?} leads to {backend:?}"
            );
        }
    }
}

/// The backends that a reply from this address is compared with, in order.
pub(super) fn chain(maps: &Maps, address: SocketAddr) -> Vec<BackendIndex> {
    let mut chain = Vec::new();
    let mut next = maps.endpoints.get(&address).copied();
    while let Some(index) = next {
        assert!(!chain.contains(&index), "a chain runs in circles");
        chain.push(index);
        next = maps
            .backends
            .get(&index)
            .and_then(|b| b.next_with_same_address);
    }
    chain
}
