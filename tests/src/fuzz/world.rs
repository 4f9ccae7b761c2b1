//! Services and backends by chance, of every kind, and what happens to them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use ipnet::{Ipv4Net, Ipv6Net};
use lb_userspace::{
    dataplane::{BackendRecord, MapWrite, ServiceRecord, Slot, Timeouts},
    model::{
        BackendIndex, Forwarding, MacAddr, NextHop, NoBackend, Scheduler, ServiceId, Tunnel,
        VlanTag,
    },
};

use super::random::Random;
use crate::packets::{BALANCER, backend_mac};

/// Interfaces that packets come in by and leave by; the first is the loopback.
pub(super) const INTERFACES: [u32; 3] = [1, 10, 20];

/// Slots of the tables, by service id from 1: a table is made once and kept, because making one
/// waits for the kernel.
pub(super) const SLOTS: [u32; 8] = [65_537, 7, 251, 64, 1021, 13, 509, 100];

const MODES: [Forwarding; 5] = [
    Forwarding::Nat,
    Forwarding::FullNat,
    Forwarding::Dsr,
    Forwarding::Ipip,
    Forwarding::Gue,
];

/// Each state's timeout is another one, and none passes during a test.
pub(super) fn timeouts() -> Timeouts {
    let minutes = |minutes: u64| Duration::from_secs(3600 + 60 * minutes);
    Timeouts {
        half_open: minutes(1),
        established: minutes(2),
        fin_wait: minutes(3),
        closing: minutes(4),
        time_wait: minutes(5),
        reset: minutes(6),
    }
}

/// The wanted state, from which the maps are written as the engine writes them.
#[derive(Clone, Debug)]
pub(super) struct World {
    services: BTreeMap<ServiceId, ServiceRecord>,
    backends: BTreeMap<BackendIndex, BackendRecord>,
    tables: BTreeMap<ServiceId, Vec<Option<BackendIndex>>>,
    next_index: u16,
    /// `full-nat` services that send from other addresses than at first. A connection is found under
    /// the last addresses but one, so this happens once to each.
    repooled: BTreeSet<ServiceId>,
}

impl World {
    pub(super) fn random(random: &mut Random) -> Self {
        let mut world = Self {
            services: BTreeMap::new(),
            backends: BTreeMap::new(),
            tables: BTreeMap::new(),
            next_index: 1,
            repooled: BTreeSet::new(),
        };
        for (id, slots) in (1..).map(ServiceId).zip(SLOTS) {
            // Every mode is there, and NAT more than once, so that services share backends.
            let forwarding = match MODES.get(usize::from(id.0) - 1) {
                Some(forwarding) => *forwarding,
                None => random.of(&MODES[..2]),
            };
            let service = world.service(random, forwarding, slots);
            world.services.insert(id, service);
            world.tables.insert(id, vec![None; slots as usize]);
            for _ in 0..random.of(&[0, 1, 2, 2, 3, 4]) {
                world.add_backend(random, id);
            }
            world.deal(random, id);
        }
        world
    }

    fn service(&self, random: &mut Random, forwarding: Forwarding, slots: u32) -> ServiceRecord {
        let taken = |listen: &SocketAddr| self.services.values().any(|s| s.listen == *listen);
        let listen = loop {
            let address: IpAddr = if random.chance(50) {
                Ipv4Addr::new(192, 0, 2, random.range(10..=11) as u8).into()
            } else {
                Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, random.range(16..=17) as u16).into()
            };
            let listen = (address, random.of(&[80, 443, 8080])).into();
            if !taken(&listen) {
                break listen;
            }
        };
        let snat = if forwarding == Forwarding::FullNat {
            sources(listen.is_ipv4(), random.range(1..=3) as u8).collect()
        } else {
            Vec::new()
        };
        ServiceRecord {
            listen,
            forwarding,
            scheduler: Scheduler::Maglev,
            slots,
            timeouts: timeouts(),
            snat,
            tunnel: tunnel(random),
            no_backend: random.of(&[NoBackend::Rst, NoBackend::Drop, NoBackend::Icmp]),
        }
    }

    /// Another backend for a service; none if all its addresses are taken.
    fn add_backend(&mut self, random: &mut Random, service: ServiceId) -> Option<BackendIndex> {
        let of = self.services.get(&service)?.clone();
        let address = address(random, &of);
        let mut others = self.backends.values();
        if others.any(|b| b.service == service && b.address == address) {
            return None;
        }
        let index = BackendIndex(self.next_index);
        self.next_index += 1;
        let record = BackendRecord {
            service,
            listen: of.listen,
            forwarding: of.forwarding,
            address,
            accepts_new: random.chance(90),
            next_hop: next_hop(random, index),
            max_packet: max_packet(random),
            next_with_same_address: None,
            shares_address: false,
        };
        self.backends.insert(index, record);
        Some(index)
    }

    /// Gives slots that nobody may have to those that may, and some more to make a difference.
    fn deal(&mut self, random: &mut Random, service: ServiceId) {
        let takers: Vec<BackendIndex> = self
            .backends
            .iter()
            .filter(|(_, backend)| backend.service == service && backend.accepts_new)
            .map(|(index, _)| *index)
            .collect();
        let Some(table) = self.tables.get_mut(&service) else {
            return;
        };
        for slot in table {
            let keeps = slot.is_some_and(|owner| takers.contains(&owner));
            if !keeps || random.chance(20) {
                *slot = random.pick(&takers).copied().filter(|_| random.chance(97));
            }
        }
    }

    /// Everything that makes the maps of this world.
    pub(super) fn set_up(&self) -> Vec<MapWrite> {
        let mut writes = Vec::new();
        for (id, record) in &self.services {
            writes.push(MapWrite::CreateTable {
                service: *id,
                slots: record.slots,
            });
            writes.push(MapWrite::WriteService {
                service: *id,
                record: record.clone(),
            });
        }
        for (index, record) in &self.backends {
            writes.push(self.backend_write(*index, record));
        }
        for address in self.backends.values().map(|backend| backend.address) {
            writes.extend(self.bind(address));
        }
        for (id, record) in &self.services {
            writes.extend(self.table_write(*id));
            writes.push(MapWrite::Listen {
                address: record.listen,
                service: *id,
            });
        }
        writes
    }

    fn table_write(&self, service: ServiceId) -> Option<MapWrite> {
        let table = self.tables.get(&service)?;
        // The packet path goes by the first owner only.
        let owners = table.iter().zip(table.iter().rev());
        let slots = owners.map(|(primary, secondary)| Slot {
            primary: *primary,
            secondary: *secondary,
        });
        Some(MapWrite::WriteTable {
            service,
            slots: slots.collect(),
        })
    }

    /// Backends whose replies are seen and that share this address and port.
    fn chain(&self, address: SocketAddr) -> Vec<BackendIndex> {
        let sharing = |backend: &BackendRecord| {
            backend.address == address && backend.forwarding.sees_replies()
        };
        let chain = self.backends.iter().filter(|(_, backend)| sharing(backend));
        chain.map(|(index, _)| *index).collect()
    }

    fn backend_write(&self, index: BackendIndex, record: &BackendRecord) -> MapWrite {
        let chain = self.chain(record.address);
        let mut behind = chain.iter().skip_while(|other| **other != index);
        behind.next();
        MapWrite::WriteBackend {
            backend: index,
            record: BackendRecord {
                next_with_same_address: behind.next().copied(),
                shares_address: chain.len() > 1,
                ..record.clone()
            },
        }
    }

    fn bind(&self, address: SocketAddr) -> Option<MapWrite> {
        let backend = self.chain(address).first().copied()?;
        Some(MapWrite::BindEndpoint { address, backend })
    }

    /// Writes of a whole chain, in which something has changed.
    fn relink(&self, address: SocketAddr) -> Vec<MapWrite> {
        let chain = self.chain(address);
        let records = chain.iter().filter_map(|index| {
            let record = self.backends.get(index)?;
            Some(self.backend_write(*index, record))
        });
        let mut writes: Vec<_> = records.collect();
        writes.push(match self.bind(address) {
            Some(bind) => bind,
            None => MapWrite::UnbindEndpoint { address },
        });
        writes
    }

    /// Lets something happen to a backend: it stops or starts taking connections, goes, comes, is
    /// reached by another way.
    pub(super) fn change(&mut self, random: &mut Random) -> Vec<MapWrite> {
        let indices: Vec<_> = self.backends.keys().copied().collect();
        let Some(index) = random.pick(&indices).copied() else {
            return Vec::new();
        };
        let Some(mut record) = self.backends.get(&index).cloned() else {
            return Vec::new();
        };
        let (service, address) = (record.service, record.address);
        if random.chance(20)
            && let Some(write) = self.repool(random)
        {
            return vec![write];
        }
        let mut writes = Vec::new();
        match random.below(6) {
            0 | 1 => record.accepts_new = !record.accepts_new,
            2 => record.next_hop = next_hop(random, index),
            3 => record.max_packet = max_packet(random),
            4 => {
                self.backends.remove(&index);
                self.deal(random, service);
                writes.extend(self.table_write(service));
                if record.forwarding.sees_replies() {
                    writes.extend(self.relink(address));
                }
                writes.push(MapWrite::ClearBackend { backend: index });
                return writes;
            }
            _ => {
                if let Some(index) = self.add_backend(random, service) {
                    let added = &self.backends[&index];
                    writes.push(self.backend_write(index, added));
                    if added.forwarding.sees_replies() {
                        writes.extend(self.relink(added.address));
                    }
                }
                self.deal(random, service);
                writes.extend(self.table_write(service));
                return writes;
            }
        }
        writes.push(self.backend_write(index, &record));
        self.backends.insert(index, record);
        self.deal(random, service);
        writes.extend(self.table_write(service));
        writes
    }

    /// Another pool for a service that has had only one.
    fn repool(&mut self, random: &mut Random) -> Option<MapWrite> {
        let pooled = self.services.iter_mut().find(|(id, service)| {
            service.forwarding == Forwarding::FullNat && !self.repooled.contains(id)
        });
        let (id, record) = pooled?;
        let mut all: Vec<_> = sources(record.listen.is_ipv4(), 3).collect();
        all.remove(random.below(3));
        record.snat = all;
        self.repooled.insert(*id);
        Some(MapWrite::WriteService {
            service: *id,
            record: record.clone(),
        })
    }

    pub(super) fn services(&self) -> impl Iterator<Item = (ServiceId, &ServiceRecord)> {
        self.services.iter().map(|(id, record)| (*id, record))
    }

    /// The service that listens here.
    pub(super) fn listening(&self, listen: SocketAddr) -> Option<ServiceId> {
        let mut services = self.services.iter();
        let (id, _) = services.find(|(_, service)| service.listen == listen)?;
        Some(*id)
    }

    pub(super) fn backends(&self) -> impl Iterator<Item = &BackendRecord> {
        self.backends.values()
    }

    pub(super) fn backend(&self, index: BackendIndex) -> Option<&BackendRecord> {
        self.backends.get(&index)
    }
}

/// Addresses that `full-nat` services send from.
pub(super) fn sources(ipv4: bool, count: u8) -> impl Iterator<Item = IpAddr> {
    (1..=count).map(move |number| {
        if ipv4 {
            Ipv4Addr::new(10, 9, 0, number).into()
        } else {
            Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, number.into()).into()
        }
    })
}

/// Few addresses, so that several services' backends share one.
fn address(random: &mut Random, service: &ServiceRecord) -> SocketAddr {
    let number = random.range(1..=4) as u16;
    let (net, port) = match service.forwarding {
        Forwarding::Nat | Forwarding::FullNat => (0, random.of(&[8080, 8080, 80])),
        Forwarding::Dsr => (1, service.listen.port()),
        Forwarding::Ipip | Forwarding::Gue => (2, service.listen.port()),
    };
    let ipv6 = if service.forwarding.is_tunnel() {
        random.chance(50)
    } else {
        service.listen.is_ipv6()
    };
    let address: IpAddr = if ipv6 {
        Ipv6Addr::new(0xfd00, net, 0, 0, 0, 0, 0, number).into()
    } else {
        Ipv4Addr::new(10, 0, net as u8, number as u8).into()
    };
    (address, port).into()
}

fn next_hop(random: &mut Random, index: BackendIndex) -> Option<NextHop> {
    if random.one_in(16) {
        return None;
    }
    let ifindex = random.of(&INTERFACES);
    Some(NextHop {
        ifindex,
        interface: format!("#{ifindex}"),
        source_mac: MacAddr(BALANCER),
        destination_mac: MacAddr(backend_mac(index.0)),
        vlan: tags(random)
            .into_iter()
            .map(|(tpid, tci)| VlanTag { tpid, tci })
            .collect(),
        mtu: 1500,
    })
}

/// None to two VLAN tags: protocol and control information.
pub(super) fn tags(random: &mut Random) -> Vec<(u16, u16)> {
    let count = random.of(&[0, 0, 0, 1, 1, 2]);
    (0..count)
        .map(|_| {
            (
                random.of(&[0x8100, 0x88a8]),
                random.of(&[5, 0x2007, 0xefff]),
            )
        })
        .collect()
}

fn max_packet(random: &mut Random) -> u16 {
    match random.below(5) {
        0 | 1 => 0,
        2 => 1500,
        3 => random.range(1280..=1500) as u16,
        _ => random.range(100..=700) as u16,
    }
}

fn tunnel(random: &mut Random) -> Tunnel {
    if random.chance(40) {
        return Tunnel::default();
    }
    let prefix4 = random.range(8..=32) as u8;
    let prefix6 = random.range(64..=128) as u8;
    let v4 = Ipv4Net::new_assert(Ipv4Addr::new(172, 20, 33, 44), prefix4);
    let v6 = Ipv6Net::new_assert(
        Ipv6Addr::new(0xfd00, 3, 0, 0, 0, 0, 0xabcd, 0x1234),
        prefix6,
    );
    Tunnel {
        source_ipv4: v4,
        source_ipv6: v6,
        port: random.of(&[6080, 1, 0xffff]),
    }
}
