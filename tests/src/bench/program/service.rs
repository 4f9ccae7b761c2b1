//! Services that packets are measured for.

use std::{
    iter,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use lb_userspace::{
    dataplane::{BackendRecord, MapWrite, ServiceRecord, Slot, Timeouts},
    model::{
        BackendIndex, Forwarding, MacAddr, NextHop, NoBackend, Scheduler, ServiceId, TableSize,
        Tunnel,
    },
};

use super::frame::BALANCER;

/// Test runs arrive on the loopback interface: what leaves there is `XDP_TX`.
const LOOPBACK: u32 = 1;
const MTU: u16 = 1500;
pub(super) const HOUR: Duration = Duration::from_secs(3600);

/// Backends of a service with a table of full size.
const BACKENDS: u16 = 4;
/// Addresses that a `full-nat` service sends from: with so many it finds a free port at once.
const SNAT_ADDRESSES: u16 = 8;

pub(in crate::bench) const MODES: [Forwarding; 5] = [
    Forwarding::Nat,
    Forwarding::FullNat,
    Forwarding::Dsr,
    Forwarding::Ipip,
    Forwarding::Gue,
];

/// Every scheduler: the compiler asks for those to come.
pub(super) fn schedulers() -> impl Iterator<Item = Scheduler> {
    iter::successors(Some(Scheduler::Maglev), |scheduler| match scheduler {
        Scheduler::Maglev => None,
    })
}

/// A service and its backends.
#[derive(Clone, Debug)]
pub(in crate::bench) struct Service {
    pub(super) id: ServiceId,
    pub(super) listen: SocketAddr,
    pub(in crate::bench) forwarding: Forwarding,
    pub(super) scheduler: Scheduler,
    pub(super) backends: Vec<(BackendIndex, SocketAddr)>,
    /// The network of the addresses that are sent from: their low 16 bits are zero here.
    pub(super) snat_network: IpAddr,
    slots: u32,
}

impl Service {
    /// Number `number` (below 50) of the services that have a table of full size.
    pub(in crate::bench) fn new(
        number: u16,
        ipv4: bool,
        forwarding: Forwarding,
        scheduler: Scheduler,
    ) -> Self {
        let address = |v4: [u8; 2], v6: u16, host: u16| -> IpAddr {
            if ipv4 {
                Ipv4Addr::new(v4[0], v4[1], 100, host as u8).into()
            } else {
                Ipv6Addr::new(0x2001, 0xdb8, v6, 0, 0, 0, 0, host).into()
            }
        };
        let port = if forwarding.keeps_destination() {
            80
        } else {
            8080
        };
        let first = BACKENDS * number + 1;
        let backends = (first..first + BACKENDS).map(|index| {
            let address = address([198, 51], 0xff, index);
            (BackendIndex(index), SocketAddr::new(address, port))
        });
        let listen = if ipv4 {
            Ipv4Addr::new(192, 0, 2, number as u8 + 1).into()
        } else {
            address([0, 0], 0, number + 1)
        };
        let snat_network = if ipv4 {
            Ipv4Addr::new(10, 100 + number as u8, 0, 0).into()
        } else {
            Ipv6Addr::new(0x2001, 0xdb8, 0x100 + number, 0, 0, 0, 0, 0).into()
        };
        Self {
            id: ServiceId(number + 1),
            listen: SocketAddr::new(listen, 80),
            forwarding,
            scheduler,
            backends: backends.collect(),
            snat_network,
            slots: TableSize::default().slots(),
        }
    }

    /// Number `number` of a great many, each with one backend and a small table. The low 16 bits
    /// of the addresses that they listen on, as they stand in a packet, are the number's.
    pub(super) fn one_of_many(number: u16) -> Self {
        let [a, b] = number.to_ne_bytes();
        let backend = SocketAddr::from(([10, 200, a, b], 8080));
        Self {
            id: ServiceId(number + 1),
            listen: SocketAddr::from(([198, 18, a, b], 80)),
            forwarding: Forwarding::Nat,
            scheduler: Scheduler::default(),
            backends: vec![(BackendIndex(number + 1), backend)],
            snat_network: Ipv4Addr::UNSPECIFIED.into(),
            slots: TableSize::MIN,
        }
    }

    pub(in crate::bench) fn is_ipv4(&self) -> bool {
        self.listen.is_ipv4()
    }

    pub(super) fn indices(&self) -> Vec<BackendIndex> {
        self.backends.iter().map(|&(index, _)| index).collect()
    }

    /// What makes this service, as the engine would have it.
    pub(super) fn writes(&self) -> Vec<MapWrite> {
        let mut writes = vec![
            MapWrite::CreateTable {
                service: self.id,
                slots: self.slots,
            },
            self.write_table(&self.indices()),
            self.write_service(HOUR),
        ];
        writes.extend(self.write_backends(LOOPBACK));
        for &(index, address) in &self.backends {
            if self.forwarding.sees_replies() {
                writes.push(MapWrite::BindEndpoint {
                    address,
                    backend: index,
                });
            }
        }
        writes.push(MapWrite::Listen {
            address: self.listen,
            service: self.id,
        });
        writes
    }

    /// The records of its backends, whose packets leave by the interface of this index.
    pub(in crate::bench) fn write_backends(&self, out: u32) -> Vec<MapWrite> {
        let write = |&(backend, address)| MapWrite::WriteBackend {
            backend,
            record: self.backend(address, out),
        };
        self.backends.iter().map(write).collect()
    }

    fn backend(&self, address: SocketAddr, out: u32) -> BackendRecord {
        BackendRecord {
            forwarding: self.forwarding,
            max_packet: MTU - self.forwarding.overhead(address.ip()),
            service: self.id,
            listen: self.listen,
            address,
            accepts_new: true,
            next_hop: Some(NextHop {
                ifindex: out,
                // For people only.
                interface: String::new(),
                source_mac: MacAddr(BALANCER),
                destination_mac: MacAddr([2, 0, 0, 0, 0, 3]),
                vlan: Vec::new(),
                mtu: MTU,
            }),
            next_with_same_address: None,
            shares_address: false,
        }
    }

    /// The service's record, with this timeout of half-open connections and long ones for others.
    pub(super) fn write_service(&self, half_open: Duration) -> MapWrite {
        MapWrite::WriteService {
            service: self.id,
            record: ServiceRecord {
                listen: self.listen,
                forwarding: self.forwarding,
                scheduler: self.scheduler,
                slots: self.slots,
                timeouts: Timeouts {
                    half_open,
                    established: HOUR,
                    fin_wait: HOUR,
                    closing: HOUR,
                    time_wait: HOUR,
                    reset: HOUR,
                },
                snat: self.snat(),
                tunnel: Tunnel::default(),
                no_backend: NoBackend::default(),
            },
        }
    }

    fn snat(&self) -> Vec<IpAddr> {
        if self.forwarding != Forwarding::FullNat {
            return Vec::new();
        }
        let addresses = (1..=SNAT_ADDRESSES).map(|host| match self.snat_network {
            IpAddr::V4(network) => IpAddr::from(network | Ipv4Addr::from(u32::from(host))),
            IpAddr::V6(network) => IpAddr::from(network | Ipv6Addr::from(u128::from(host))),
        });
        addresses.collect()
    }

    /// A table that `owners` share, slot by slot in turn.
    pub(super) fn write_table(&self, owners: &[BackendIndex]) -> MapWrite {
        let owners = owners.iter().cycle().map(|&owner| Slot {
            primary: Some(owner),
            secondary: None,
        });
        MapWrite::WriteTable {
            service: self.id,
            slots: owners.take(self.slots as usize).collect(),
        }
    }
}
