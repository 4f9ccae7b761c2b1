//! The rules that the services must keep among themselves, whoever wants them: the file or `lbctl`.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::SocketAddr,
};

use super::{AddressFault, Desired, Forwarding, Name, Protocol};

/// Services that the data plane has indices for.
pub const MAX_SERVICES: usize = 1_023;
/// Backends that the data plane has indices for, over all services.
pub const MAX_BACKENDS: usize = 16_383;
/// Services that can share one backend address and port: a reply looks for its connection in each.
pub const MAX_SERVICES_PER_ENDPOINT: usize = 8;

/// A rule that a [`Desired`] state breaks, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Index in [`Desired::services`].
    pub service: usize,
    /// Index in [`Service::backends`](super::Service::backends); `None`: it is about the service.
    pub backend: Option<usize>,
    pub kind: ConflictKind,
    /// The service, and in it the backend, that it collides with.
    pub other: Option<(usize, Option<usize>)>,
}

/// Which rule is broken; the text says what is wrong and how to mend it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConflictKind {
    #[error("there is a service called {0} already: give one of the two another name")]
    ServiceName(Name),
    #[error(
        "{listen} ({protocol}) is already the listen address of service {other}: give this service another address or port, or put its backends into {other}"
    )]
    SharedListen {
        listen: SocketAddr,
        protocol: Protocol,
        other: Name,
    },
    #[error(
        "service {service} has a backend called {name} already: give one of the two another name"
    )]
    BackendName { service: Name, name: Name },
    #[error(
        "{address} is already backend {other} of service {service}: remove one of the two; for a larger share raise the weight"
    )]
    BackendAddress {
        service: Name,
        address: SocketAddr,
        other: Name,
    },
    #[error("cannot listen on {address}: {fault}")]
    BadListen {
        address: SocketAddr,
        fault: AddressFault,
    },
    #[error("{address} cannot be a backend: {fault}")]
    BadBackend {
        address: SocketAddr,
        fault: AddressFault,
    },
    #[error(
        "{address} is an {} address and service {service} listens on {}: in forwarding mode {forwarding} both must be of one family; use an {} address, or a service of its own for {}",
        family(address),
        family(listen),
        family(listen),
        family(address)
    )]
    Family {
        service: Name,
        listen: SocketAddr,
        forwarding: Forwarding,
        address: SocketAddr,
    },
    #[error(
        "{address} is the listen address of service {service}, so its packets would come back to the load balancer: name the address of the server itself"
    )]
    BackendIsListen { address: SocketAddr, service: Name },
    #[error(
        "{address} is a backend of more than {MAX_SERVICES_PER_ENDPOINT} services: let the server listen on another port for some of them"
    )]
    SharedEndpoint { address: SocketAddr },
    #[error("more than {MAX_SERVICES} services: move some to another instance of lbd")]
    TooManyServices,
    #[error(
        "more than {MAX_BACKENDS} backends in all services: move some services to another instance of lbd"
    )]
    TooManyBackends,
}

impl Desired {
    /// First rule that this state breaks.
    pub fn conflict(&self) -> Option<Conflict> {
        self.conflicts().into_iter().next()
    }

    /// Every rule that this state breaks, in the order of the services.
    pub fn conflicts(&self) -> Vec<Conflict> {
        let mut seen = Seen::default();
        for service in 0..self.services.len() {
            self.check_service(service, &mut seen);
            for backend in 0..self.services[service].backends.len() {
                self.check_backend(service, backend, &mut seen);
            }
        }
        let mut found = seen.found;
        self.check_backends_against_listens(&mut found);
        found.sort_by_key(|c| (c.service, c.backend));
        found
    }

    fn check_service(&self, index: usize, seen: &mut Seen) {
        let service = &self.services[index];
        let mut report = |kind, other: Option<usize>| {
            seen.found.push(Conflict {
                service: index,
                backend: None,
                kind,
                other: other.map(|o| (o, None)),
            });
        };
        if index == MAX_SERVICES {
            report(ConflictKind::TooManyServices, None);
        }
        if let Some(first) = first(&mut seen.service_names, service.name.clone(), index) {
            report(ConflictKind::ServiceName(service.name.clone()), Some(first));
        }
        if let Some(fault) = AddressFault::of(service.listen) {
            let address = service.listen;
            report(ConflictKind::BadListen { address, fault }, None);
        } else if let Some(first) =
            first(&mut seen.listens, (service.listen, service.protocol), index)
        {
            let kind = ConflictKind::SharedListen {
                listen: service.listen,
                protocol: service.protocol,
                other: self.services[first].name.clone(),
            };
            report(kind, Some(first));
        }
    }

    fn check_backend(&self, service_index: usize, index: usize, seen: &mut Seen) {
        let service = &self.services[service_index];
        let backend = &service.backends[index];
        let mut report = |kind, other: Option<usize>| {
            seen.found.push(Conflict {
                service: service_index,
                backend: Some(index),
                kind,
                other: other.map(|o| (service_index, Some(o))),
            });
        };
        if seen.backends == MAX_BACKENDS {
            report(ConflictKind::TooManyBackends, None);
        }
        seen.backends += 1;
        let name = (service_index, backend.name.clone());
        let same_name = first(&mut seen.backend_names, name, index);
        let same_address = first(&mut seen.addresses, (service_index, backend.address), index);
        // A backend that is called by its address need not be told twice.
        if let Some(first) = same_name.filter(|_| same_name != same_address) {
            let (service, name) = (service.name.clone(), backend.name.clone());
            report(ConflictKind::BackendName { service, name }, Some(first));
        }
        let address = backend.address;
        if let Some(fault) = AddressFault::of(address) {
            report(ConflictKind::BadBackend { address, fault }, None);
            return;
        }
        if AddressFault::of(service.listen).is_none()
            && service.listen.is_ipv4() != address.is_ipv4()
        {
            let kind = ConflictKind::Family {
                service: service.name.clone(),
                listen: service.listen,
                forwarding: service.forwarding,
                address,
            };
            report(kind, None);
        }
        if let Some(first) = same_address {
            let kind = ConflictKind::BackendAddress {
                service: service.name.clone(),
                address,
                other: service.backends[first].name.clone(),
            };
            report(kind, Some(first));
            return;
        }
        let sharing = seen.sharing.entry(address).or_default();
        *sharing += 1;
        if *sharing > MAX_SERVICES_PER_ENDPOINT {
            report(ConflictKind::SharedEndpoint { address }, None);
        }
    }

    /// A pass of its own, because the service that listens may stand behind the backend.
    fn check_backends_against_listens(&self, found: &mut Vec<Conflict>) {
        let listens: HashMap<SocketAddr, usize> = (0..self.services.len())
            .rev()
            .map(|index| (self.services[index].listen, index))
            .collect();
        for (service, wanted) in self.services.iter().enumerate() {
            for (index, backend) in wanted.backends.iter().enumerate() {
                if let Some(&other) = listens.get(&backend.address)
                    && AddressFault::of(backend.address).is_none()
                {
                    found.push(Conflict {
                        service,
                        backend: Some(index),
                        kind: ConflictKind::BackendIsListen {
                            address: backend.address,
                            service: self.services[other].name.clone(),
                        },
                        other: Some((other, None)),
                    });
                }
            }
        }
    }
}

/// What has been met so far, with the index of who had it first.
#[derive(Default)]
struct Seen {
    found: Vec<Conflict>,
    service_names: HashMap<Name, usize>,
    listens: HashMap<(SocketAddr, Protocol), usize>,
    backends: usize,
    backend_names: HashMap<(usize, Name), usize>,
    addresses: HashMap<(usize, SocketAddr), usize>,
    /// Services that have a backend address.
    sharing: HashMap<SocketAddr, usize>,
}

/// Who had the key first, if it was someone before `index`.
fn first<K: std::hash::Hash + Eq>(
    seen: &mut HashMap<K, usize>,
    key: K,
    index: usize,
) -> Option<usize> {
    match seen.entry(key) {
        Entry::Occupied(first) => Some(*first.get()),
        Entry::Vacant(free) => {
            free.insert(index);
            None
        }
    }
}

fn family(address: &SocketAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Admin, Backend, Service, Weight};

    #[test]
    fn a_sound_state_has_no_conflict() {
        assert_eq!(Desired::default().conflict(), None);
        let state = desired(&[
            ("web", "192.0.2.10:80", &["10.0.0.1:80", "10.0.0.2:80"]),
            ("web6", "[2001:db8::10]:80", &["[2001:db8:1::1]:80"]),
            // The same servers, another port of the same listen address.
            ("tls", "192.0.2.10:443", &["10.0.0.1:80", "10.0.0.2:80"]),
            ("local", "127.0.0.1:80", &["10.0.0.1:81"]),
            ("idle", "192.0.2.11:80", &[]),
        ]);
        assert_eq!(state.conflicts(), []);
    }

    #[test]
    fn each_rule_says_what_is_wrong_and_how_to_mend_it() {
        let backends =
            |addresses: &'static [&'static str]| desired(&[("web", "192.0.2.10:80", addresses)]);
        let listens = |listen: &'static str| desired(&[("web", listen, &[])]);
        for (state, place, other, text) in [
            (
                desired(&[("web", "192.0.2.10:80", &[]), ("web", "192.0.2.11:80", &[])]),
                (1, None),
                Some((0, None)),
                "there is a service called web already: give one of the two another name",
            ),
            (
                desired(&[("web", "192.0.2.10:80", &[]), ("b", "192.0.2.10:80", &[])]),
                (1, None),
                Some((0, None)),
                "192.0.2.10:80 (tcp) is already the listen address of service web: give this service another address or port, or put its backends into web",
            ),
            (
                backends(&["10.0.0.1:80", "10.0.0.2:80", "10.0.0.1:80"]),
                (0, Some(2)),
                Some((0, Some(0))),
                "10.0.0.1:80 is already backend b0 of service web: remove one of the two; for a larger share raise the weight",
            ),
            (
                backends(&["[2001:db8::1]:80"]),
                (0, Some(0)),
                None,
                "[2001:db8::1]:80 is an IPv6 address and service web listens on IPv4: in forwarding mode nat both must be of one family; use an IPv4 address, or a service of its own for IPv6",
            ),
            (
                desired(&[
                    ("a", "192.0.2.1:80", &["192.0.2.2:80"]),
                    ("b", "192.0.2.2:80", &[]),
                ]),
                (0, Some(0)),
                Some((1, None)),
                "192.0.2.2:80 is the listen address of service b, so its packets would come back to the load balancer: name the address of the server itself",
            ),
            (
                listens("0.0.0.0:80"),
                (0, None),
                None,
                "cannot listen on 0.0.0.0:80: it stands for any address; name a single one",
            ),
            (
                backends(&["255.255.255.255:80"]),
                (0, Some(0)),
                None,
                "255.255.255.255:80 cannot be a backend: TCP needs a single host and this is the broadcast address",
            ),
        ] {
            let conflict = state.conflict().expect(text);
            assert_eq!(conflict.kind.to_string(), text);
            assert_eq!((conflict.service, conflict.backend), place, "{text}");
            assert_eq!(conflict.other, other, "{text}");
            assert_eq!(state.conflicts().len(), 1, "{text}");
        }
    }

    #[test]
    fn backend_names_are_unique_within_a_service_only() {
        let mut state = desired(&[
            ("a", "192.0.2.1:80", &["10.0.0.1:80", "10.0.0.2:80"]),
            ("b", "192.0.2.2:80", &["10.0.0.1:80"]),
        ]);
        assert_eq!(state.conflict(), None);
        state.services[0].backends[1].name = "b0".parse().unwrap();
        let conflict = state.conflict().unwrap();
        assert_eq!((conflict.service, conflict.backend), (0, Some(1)));
        assert_eq!(conflict.other, Some((0, Some(0))));
        assert_eq!(
            conflict.kind.to_string(),
            "service a has a backend called b0 already: give one of the two another name"
        );
        // The same backend once more is one mistake, not two.
        state.services[0].backends[1] = state.services[0].backends[0].clone();
        let kinds: Vec<_> = state.conflicts().into_iter().map(|c| c.kind).collect();
        assert!(matches!(kinds[..], [ConflictKind::BackendAddress { .. }]));
    }

    #[test]
    fn the_ninth_service_of_one_endpoint_is_one_too_many() {
        let services = |count: usize| Desired {
            services: (0..count)
                .map(|i| {
                    service(
                        &format!("s{i}"),
                        &format!("192.0.2.1:{}", i + 1),
                        &["10.0.0.1:80"],
                    )
                })
                .collect(),
        };
        assert_eq!(services(8).conflict(), None);
        let conflict = services(9).conflict().unwrap();
        assert_eq!((conflict.service, conflict.backend), (8, Some(0)));
        assert!(matches!(conflict.kind, ConflictKind::SharedEndpoint { .. }));
    }

    #[test]
    fn indices_are_bounded() {
        let mut state = Desired {
            services: (0..MAX_SERVICES)
                .map(|i| service(&format!("s{i}"), &format!("192.0.2.1:{}", i + 1), &[]))
                .collect(),
        };
        for i in 0..MAX_BACKENDS {
            state.services[i % MAX_SERVICES].backends.push(Backend {
                name: format!("b{i}").parse().unwrap(),
                address: format!("10.0.{}.{}:80", i / 256, i % 256).parse().unwrap(),
                weight: Weight::DEFAULT,
                admin: Admin::Enabled,
            });
        }
        assert_eq!(state.conflict(), None);

        state
            .services
            .push(service("last", "192.0.2.2:80", &["10.1.0.0:80"]));
        let kinds: Vec<_> = state.conflicts().into_iter().map(|c| c.kind).collect();
        assert_eq!(
            kinds,
            [ConflictKind::TooManyServices, ConflictKind::TooManyBackends]
        );
    }

    fn desired(services: &[(&str, &str, &[&str])]) -> Desired {
        Desired {
            services: services
                .iter()
                .map(|(name, listen, backends)| service(name, listen, backends))
                .collect(),
        }
    }

    /// Backends are called `b0`, `b1`, …
    fn service(name: &str, listen: &str, backends: &[&str]) -> Service {
        Service {
            name: name.parse().unwrap(),
            listen: listen.parse().unwrap(),
            protocol: Default::default(),
            forwarding: Default::default(),
            scheduler: Default::default(),
            table_size: Default::default(),
            check: Default::default(),
            timeouts: Default::default(),
            snat: Vec::new(),
            tunnel: Default::default(),
            no_backend: Default::default(),
            on_expiry: Default::default(),
            on_backend_down: Default::default(),
            backends: backends
                .iter()
                .enumerate()
                .map(|(i, address)| Backend {
                    name: format!("b{i}").parse().unwrap(),
                    address: address.parse().unwrap(),
                    weight: Weight::DEFAULT,
                    admin: Admin::Enabled,
                })
                .collect(),
        }
    }
}
