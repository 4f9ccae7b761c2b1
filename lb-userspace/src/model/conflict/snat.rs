//! Rules among services about the addresses that `full-nat` sends from. That a service has some,
//! each of a single host and each once, was seen to when it was parsed.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use super::{Conflict, ConflictKind, MAX_SNAT_ADDRESSES};
use crate::model::{AddressFault, Desired, Forwarding};

impl Desired {
    pub(super) fn check_snat(&self, found: &mut Vec<Conflict>) {
        let taken = self.taken_addresses();
        let mut distinct = HashSet::new();
        let full_nat = self
            .services
            .iter()
            .enumerate()
            .filter(|(_, service)| service.forwarding == Forwarding::FullNat);
        for (index, service) in full_nat {
            let mut report = |kind, other| {
                found.push(Conflict {
                    service: index,
                    backend: None,
                    kind,
                    other,
                });
            };
            for &address in &service.snat {
                let listens = AddressFault::of(service.listen).is_none();
                if listens && service.listen.is_ipv4() != address.is_ipv4() {
                    let kind = ConflictKind::SnatFamily {
                        service: service.name.clone(),
                        listen: service.listen,
                        address,
                    };
                    report(kind, None);
                }
                if let Some(&(other, backend)) = taken.get(&address) {
                    let service = self.services[other].name.clone();
                    let kind = match backend {
                        None => ConflictKind::SnatIsListen { address, service },
                        Some(_) => ConflictKind::SnatIsBackend { address, service },
                    };
                    report(kind, Some((other, backend)));
                }
                if distinct.insert(address) && distinct.len() == MAX_SNAT_ADDRESSES + 1 {
                    report(ConflictKind::TooManySnat { address }, None);
                }
            }
        }
    }

    /// Addresses that packets are sent to, with the service, and perhaps the backend, that has
    /// them first; those of services before those of backends.
    fn taken_addresses(&self) -> HashMap<IpAddr, (usize, Option<usize>)> {
        let mut taken = HashMap::new();
        for (index, service) in self.services.iter().enumerate() {
            taken.entry(service.listen.ip()).or_insert((index, None));
        }
        for (index, service) in self.services.iter().enumerate() {
            for (backend, wanted) in service.backends.iter().enumerate() {
                let address = wanted.address.ip();
                taken.entry(address).or_insert((index, Some(backend)));
            }
        }
        taken
    }
}
