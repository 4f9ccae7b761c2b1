//! The rules that the services must keep among themselves, whoever wants them: the file or `lbctl`.

mod snat;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, hash_map::Entry},
    net::{IpAddr, SocketAddr},
};

use super::{AddressFault, Desired, Forwarding, Name, Protocol};

/// Services that the data plane has indices for.
pub const MAX_SERVICES: usize = 1_023;
/// Backends that the data plane has indices for, over all services.
pub const MAX_BACKENDS: usize = 16_383;
/// Services with `nat` or `full-nat` that can share one backend address and port: a reply looks for
/// its connection in each.
pub const MAX_SERVICES_PER_ENDPOINT: usize = 8;
/// Addresses that one `full-nat` service can send from.
pub const MAX_SNAT_PER_SERVICE: usize = 16;
/// Different addresses that all `full-nat` services together can send from.
pub const MAX_SNAT_ADDRESSES: usize = 255;

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
    /// S-DSR-1.
    #[error(
        "{address} has port {} and service {service} listens on port {port}: forwarding mode {forwarding} leaves a packet's port as it is, so the backend has to listen on the same; write {}, or use forwarding mode nat or full-nat",
        address.port(),
        SocketAddr::new(address.ip(), *port)
    )]
    Port {
        service: Name,
        /// Of the listen address.
        port: u16,
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
    #[error(
        "{address} is an {} address and service {service} listens on {}: full-nat sends from an address of the same family; use an {} address",
        family_of(*address),
        family(listen),
        family(listen)
    )]
    SnatFamily {
        service: Name,
        listen: SocketAddr,
        address: IpAddr,
    },
    #[error(
        "{address} is the listen address of service {service}: full-nat needs an address that nobody connects to; use another one of this host"
    )]
    SnatIsListen { address: IpAddr, service: Name },
    #[error(
        "{address} is a backend of service {service}: full-nat needs an address of this host to send from; use one that no server has"
    )]
    SnatIsBackend { address: IpAddr, service: Name },
    #[error(
        "more than {MAX_SNAT_ADDRESSES} different addresses to send from in all services: let some share theirs"
    )]
    TooManySnat { address: IpAddr },
    #[error("more than {MAX_SERVICES} services: move some to another instance of lbd")]
    TooManyServices,
    #[error(
        "more than {MAX_BACKENDS} backends in all services: move some services to another instance of lbd"
    )]
    TooManyBackends,
}

impl ConflictKind {
    /// The address to send from that the conflict is about, if it is about one.
    pub fn snat_address(&self) -> Option<IpAddr> {
        match *self {
            Self::SnatFamily { address, .. }
            | Self::SnatIsListen { address, .. }
            | Self::SnatIsBackend { address, .. }
            | Self::TooManySnat { address } => Some(address),
            _ => None,
        }
    }
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
        self.check_snat(&mut found);
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
        let listens = AddressFault::of(service.listen).is_none();
        if listens && !service.can_reach(address.ip()) {
            let kind = ConflictKind::Family {
                service: service.name.clone(),
                listen: service.listen,
                forwarding: service.forwarding,
                address,
            };
            report(kind, None);
        }
        if listens
            && service.forwarding.keeps_destination()
            && service.listen.port() != address.port()
        {
            let kind = ConflictKind::Port {
                service: service.name.clone(),
                port: service.listen.port(),
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
        if !service.forwarding.sees_replies() {
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
    /// Services that have a backend address and see its replies.
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
    family_of(address.ip())
}

fn family_of(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}
