//! Plans between random states: complete, and sound at every step.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{prelude::*, sample::Index};

use super::*;
use crate::dataplane::{BackendRecord, ServiceRecord};

/// Everything that the effective state is made of, changed by random events.
#[derive(Clone, Default)]
struct World {
    desired: Desired,
    allocation: Allocation,
    bases: Bases,
    observed: Observed,
}

#[derive(Clone, Debug)]
enum Happening {
    AddService(u8),
    RemoveService(Index),
    /// The same listen address, another name, size or timeout.
    AlterService(Index, u16),
    /// Another mode; what it cannot reach is removed.
    Forward(Index, Forwarding),
    AddBackend(Index, u8),
    RemoveBackend(Index, Index),
    Weigh(Index, Index, u16),
    Administer(Index, Index, Admin),
    Probe(Index, Index, Health),
    Resolve(u8, Option<u8>),
    /// The connections of everything that lingers have ended.
    Release,
}

fn happening() -> impl Strategy<Value = Happening> {
    use Happening as H;
    let admin = prop_oneof![Just(Admin::Enabled), Just(Admin::Drain), Just(Admin::Maint)];
    let health = prop_oneof![Just(Health::Unknown), Just(Health::Up), Just(Health::Down)];
    let i = any::<Index>;
    prop_oneof![
        2 => (0..5_u8).prop_map(H::AddService),
        1 => i().prop_map(H::RemoveService),
        1 => (i(), 0..3_u16).prop_map(|(service, how)| H::AlterService(service, how)),
        3 => (i(), prop::sample::select(MODES.to_vec())).prop_map(|(service, mode)| H::Forward(service, mode)),
        6 => (i(), 1..10_u8).prop_map(|(service, host)| H::AddBackend(service, host)),
        3 => (i(), i()).prop_map(|(service, backend)| H::RemoveBackend(service, backend)),
        2 => (i(), i(), 0..3_u16).prop_map(|(service, backend, weight)| H::Weigh(service, backend, weight)),
        2 => (i(), i(), admin).prop_map(|(service, backend, admin)| H::Administer(service, backend, admin)),
        3 => (i(), i(), health).prop_map(|(service, backend, health)| H::Probe(service, backend, health)),
        2 => (1..7_u8, any::<Option<u8>>()).prop_map(|(host, mac)| H::Resolve(host, mac)),
        1 => Just(H::Release),
    ]
}

impl World {
    fn effective(&self, previous: &Effective) -> Effective {
        let inputs = Inputs {
            desired: &self.desired,
            allocation: &self.allocation,
            bases: &self.bases,
            observed: &self.observed,
            profile: Profile::Edge,
        };
        effective(inputs, previous)
    }

    fn happen(&mut self, happening: &Happening) {
        let mut desired = self.desired.clone();
        self.alter(&mut desired, happening);
        // Some random wishes break a rule, and are refused as they would be by the engine.
        if desired.conflict().is_none()
            && let Ok(allocation) = self.allocation.assign(&desired)
        {
            self.bases = rebase(&self.bases, &self.desired, &desired, &allocation);
            self.allocation = allocation;
            self.desired = desired;
        }
    }

    fn alter(&mut self, desired: &mut Desired, happening: &Happening) {
        match happening {
            Happening::AddService(n) => {
                let listen = format!("192.0.2.{n}:80");
                desired
                    .services
                    .push(service(&format!("s{n}"), &listen, &[]));
            }
            Happening::RemoveService(which) if !desired.services.is_empty() => {
                desired.services.remove(which.index(desired.services.len()));
            }
            Happening::AlterService(which, how) if !desired.services.is_empty() => {
                let at = which.index(desired.services.len());
                let service = &mut desired.services[at];
                match how {
                    0 => service.name = name(&format!("{}x", service.name)),
                    1 => service.table_size = TableSize::try_from(257).unwrap(),
                    _ => service.timeouts.reset = Some(std::time::Duration::from_secs(5)),
                }
            }
            Happening::Forward(which, mode) if !desired.services.is_empty() => {
                let at = which.index(desired.services.len());
                let service = desired.services[at].clone();
                desired.services[at] = in_mode(service, *mode);
            }
            Happening::AddBackend(which, host) if !desired.services.is_empty() => {
                let at = which.index(desired.services.len());
                // Some of the other family, which only tunnels can reach.
                let at_host = match host {
                    7.. => format!("[2001:db8::{host}]:80"),
                    _ => format!("10.0.0.{host}:80"),
                };
                let added = backend(&format!("b{host}"), &at_host);
                desired.services[at].backends.push(added);
            }
            Happening::RemoveBackend(which, backend) => {
                if let Some((at, backend)) = pick(desired, which, backend) {
                    desired.services[at].backends.remove(backend);
                }
            }
            Happening::Weigh(which, backend, weight) => {
                if let Some((at, backend)) = pick(desired, which, backend) {
                    desired.services[at].backends[backend].weight = Weight(*weight);
                }
            }
            Happening::Administer(which, backend, admin) => {
                if let Some((at, backend)) = pick(desired, which, backend) {
                    desired.services[at].backends[backend].admin = *admin;
                }
            }
            Happening::Probe(which, backend, health) => {
                if let Some((at, backend)) = pick(desired, which, backend) {
                    let service = &desired.services[at];
                    let id = self.allocation.service_id(service).unwrap();
                    let address = service.backends[backend].address;
                    let index = self.allocation.backend_index(id, address).unwrap();
                    let verdict = Verdict {
                        health: *health,
                        reason: "so the probe said".to_owned(),
                    };
                    self.observed.health.insert(index, verdict);
                }
            }
            Happening::Resolve(host, mac) => {
                let address = [10, 0, 0, *host].into();
                let resolution = mac
                    .map(next_hop)
                    .ok_or(crate::model::Unresolved::NoRoute(address));
                self.observed.next_hops.insert(address, resolution);
            }
            Happening::Release => {
                for (index, service) in self.allocation.lingering(desired) {
                    self.allocation.release_backend(service, index);
                }
                for service in self.allocation.idle_services(desired) {
                    self.allocation.release_service(service);
                }
            }
            Happening::RemoveService(_)
            | Happening::AlterService(..)
            | Happening::Forward(..)
            | Happening::AddBackend(..) => {}
        }
    }
}

fn pick(desired: &Desired, service: &Index, backend: &Index) -> Option<(usize, usize)> {
    let full: Vec<usize> = (0..desired.services.len())
        .filter(|&at| !desired.services[at].backends.is_empty())
        .collect();
    let at = *full.get(service.index(full.len().max(1)))?;
    Some((at, backend.index(desired.services[at].backends.len())))
}

/// Two states of one world, the second some time after the first.
fn two_states() -> impl Strategy<Value = (Effective, Effective)> {
    let history = prop::collection::vec(happening(), 1..60);
    (history, any::<Index>()).prop_map(|(history, now)| {
        let mut world = World::default();
        let (past, future) = history.split_at(now.index(history.len()));
        past.iter().for_each(|happening| world.happen(happening));
        let old = world.effective(&Effective::default());
        future.iter().for_each(|happening| world.happen(happening));
        let new = world.effective(&old);
        assert_eq!(
            new,
            world.effective(&Effective::default()),
            "a table was reused wrongly"
        );
        (old, new)
    })
}

/// What must hold while the maps go from one state to another: a reply finds every backend that sees
/// replies in both, no packet is sent to an address of a family that it is not of, and a service that is in both and keeps its table's size can be reached all the time.
fn assert_undisturbed(maps: &Maps, old: &Maps, new: &Maps) {
    assert_sound(maps);
    assert_families(maps, new);
    assert_rivals_known(maps, new);
    for (index, record) in &old.backends {
        let stays = new.backends.get(index);
        if stays.is_some_and(|stays| record.is_in_chain() && stays.is_in_chain()) {
            assert!(
                chain(maps, record.address).contains(index),
                "{index:?} is out of its chain"
            );
        }
    }
    for (address, id) in &old.listens {
        let size = |maps: &Maps| maps.tables.get(id).map(|table| table.size);
        if new.listens.get(address) == Some(id) && size(old) == size(new) {
            assert_eq!(maps.listens.get(address), Some(id));
            assert!(maps.tables[id].slots.is_some());
            assert_eq!(Some(maps.services[id].slots), size(maps));
        }
    }
}

/// Of two backends that see replies, stay, and are given connections, none takes itself for the
/// only one at its address.
fn assert_rivals_known(maps: &Maps, new: &Maps) {
    let mut named: BTreeMap<SocketAddr, BTreeSet<BackendIndex>> = BTreeMap::new();
    for (id, table) in &maps.tables {
        let sees_replies = |service: &ServiceRecord| service.forwarding.sees_replies();
        if !maps.services.get(id).is_some_and(sees_replies) {
            continue;
        }
        for index in table
            .slots
            .iter()
            .flat_map(|slots| slots.iter())
            .flat_map(|s| s.primary)
        {
            if new
                .backends
                .get(&index)
                .is_some_and(BackendRecord::is_in_chain)
            {
                named
                    .entry(maps.backends[&index].address)
                    .or_default()
                    .insert(index);
            }
        }
    }
    for (address, sharers) in named.iter().filter(|(_, sharers)| sharers.len() > 1) {
        for index in sharers {
            assert!(
                maps.backends[index].shares_address,
                "{index:?} is not alone at {address}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_plan_is_complete_and_sound_at_every_step((old, new) in two_states()) {
        prop_assert_eq!(plan(&old, &old), []);
        let mut maps = old.maps.clone();
        for step in plan(&old, &new) {
            maps.apply(&step.write);
            assert_undisturbed(&maps, &old.maps, &new.maps);
            prop_assert!(step.reason.starts_with("service "), "{}", step.reason);
        }
        prop_assert_eq!(maps, new.maps);
    }

    /// The maps of a daemon that died at any step of a plan.
    #[test]
    fn an_adoption_is_complete_and_sound_at_every_step(
        (old, new) in two_states(),
        died_after in any::<Index>(),
    ) {
        let mut maps = old.maps.clone();
        let steps = plan(&old, &new);
        for step in &steps[..died_after.index(steps.len() + 1)] {
            maps.apply(&step.write);
        }
        for step in adopt(&new) {
            maps.apply(&step.write);
            assert_undisturbed(&maps, &old.maps, &new.maps);
        }
        prop_assert_eq!(maps, new.maps);
    }

    /// Wherever a backend is, its index is its own.
    #[test]
    fn no_index_has_two_owners(history in prop::collection::vec(happening(), 1..60)) {
        let mut world = World::default();
        for happening in &history {
            world.happen(happening);
            prop_assert!(world.allocation.is_consistent());
            let wanted: BTreeSet<_> = world.allocation.wanted(&world.desired).into_keys().collect();
            prop_assert_eq!(wanted.len(), world.desired.services.len());
        }
    }
}
