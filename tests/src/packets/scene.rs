//! Names and addresses that the tests share, and services that are quickly set up.

use std::{net::SocketAddr, time::Duration};

use lb_userspace::{
    dataplane::{BackendRecord, MapWrite, ServiceRecord, Slot, Timeouts},
    model::{
        BackendIndex, Forwarding, MacAddr, NextHop, NoBackend, Scheduler, ServiceId, Tunnel,
        VlanTag,
    },
};

use super::{
    packet::{Link, Mac, Packet, Tag},
    testbed::Testbed,
};

pub const WEB: ServiceId = ServiceId(1);
pub const LISTEN: &str = "192.0.2.10:80";
pub const SERVER: &str = "10.0.0.1:8080";
pub const CLIENT: &str = "198.51.100.7:40000";

pub const WEB6: ServiceId = ServiceId(2);
pub const LISTEN6: &str = "[2001:db8::10]:80";
pub const SERVER6: &str = "[fd00::1]:8080";
pub const CLIENT6: &str = "[2001:db8:c::7]:40000";

/// The balancer's interface.
pub const BALANCER: Mac = [2, 0, 0, 0, 0, 2];
/// Whoever sends the clients' packets.
pub const GATEWAY: Mac = [2, 0, 0, 0, 0, 1];

/// The interface that a backend's packets leave by unless a test says otherwise: the one that
/// [`Testbed::run`] lets them come in by.
const LOOPBACK: u32 = 1;
/// A small table: any number of slots will do.
const SLOTS: u32 = 252;

/// An address and port.
///
/// # Panics
///
/// If `text` is none.
pub fn address(text: &str) -> SocketAddr {
    text.parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// One of a million IPv4 clients.
pub fn client(number: u32) -> SocketAddr {
    let [_, b, c, d] = (number / 50).to_be_bytes();
    ([100, 64 + b, c, d], 10_000 + (number % 50) as u16).into()
}

/// One of many IPv6 clients.
pub fn client6(number: u32) -> SocketAddr {
    let [a, b] = [number >> 16, number & 0xffff].map(|half| half as u16);
    ([0x2001, 0xdb8, 0xc, a, 0, 0, 0, b], 10_000).into()
}

/// The Ethernet address of the backend with this index.
pub fn backend_mac(index: u16) -> Mac {
    let [high, low] = index.to_be_bytes();
    [2, 0, 0, 1, high, low]
}

/// Where the packets of the backend with this index go, with these VLAN tags.
pub fn next_hop(index: u16, ifindex: u32, tags: &[Tag]) -> NextHop {
    let vlan = tags.iter().map(|tag| VlanTag {
        tpid: tag.protocol,
        tci: tag.control,
    });
    NextHop {
        ifindex,
        interface: format!("#{ifindex}"),
        source_mac: MacAddr(BALANCER),
        destination_mac: MacAddr(backend_mac(index)),
        vlan: vlan.collect(),
        mtu: 1500,
    }
}

pub fn timeouts() -> Timeouts {
    Timeouts {
        half_open: Duration::from_secs(30),
        established: Duration::from_secs(3600),
        fin_wait: Duration::from_secs(120),
        closing: Duration::from_secs(30),
        time_wait: Duration::from_secs(30),
        reset: Duration::from_secs(30),
    }
}

fn service_record(listen: &str) -> ServiceRecord {
    ServiceRecord {
        listen: address(listen),
        forwarding: Forwarding::Nat,
        scheduler: Scheduler::Maglev,
        slots: SLOTS,
        timeouts: timeouts(),
        snat: Vec::new(),
        tunnel: Tunnel::default(),
        no_backend: NoBackend::default(),
    }
}

impl Testbed {
    /// One IPv4 and one IPv6 service, with one backend each (indices 1 and 2).
    pub fn with_one_backend_each() -> Self {
        Self::new().and_one_backend_each()
    }

    /// The same, added to a new testbed.
    #[must_use]
    pub fn and_one_backend_each(mut self) -> Self {
        self.add_service(WEB, LISTEN, &[(1, SERVER)]);
        self.add_service(WEB6, LISTEN6, &[(2, SERVER6)]);
        self
    }

    /// A service with backends that have equal shares, each next to the loopback interface.
    pub fn add_service(&mut self, service: ServiceId, listen: &str, backends: &[(u16, &str)]) {
        self.add_service_with(service, listen, backends, Forwarding::Nat, |_| {}, |_| {});
    }

    /// As [`Testbed::add_service`], in another forwarding mode than `nat`: with whatever `shape`
    /// wants to be different in the service's record and `change` in the backends'.
    pub fn add_service_with(
        &mut self,
        service: ServiceId,
        listen: &str,
        backends: &[(u16, &str)],
        forwarding: Forwarding,
        shape: impl FnOnce(&mut ServiceRecord),
        change: impl Fn(&mut BackendRecord),
    ) {
        self.declare_service(service, listen, timeouts());
        let mut record = service_record(listen);
        record.forwarding = forwarding;
        shape(&mut record);
        self.apply(&MapWrite::WriteService { service, record });
        for (index, server) in backends {
            self.write_backend(service, listen, *index, server, |record| {
                record.forwarding = forwarding;
                change(record);
            });
            if forwarding.sees_replies() {
                self.apply(&MapWrite::BindEndpoint {
                    address: address(server),
                    backend: BackendIndex(*index),
                });
            }
        }
        let indices: Vec<u16> = backends.iter().map(|(index, _)| *index).collect();
        self.share(service, &indices);
        self.apply(&MapWrite::Listen {
            address: address(listen),
            service,
        });
    }

    /// The record of a service and an empty table.
    pub fn declare_service(&mut self, service: ServiceId, listen: &str, timeouts: Timeouts) {
        self.apply(&MapWrite::CreateTable {
            service,
            slots: SLOTS,
        });
        self.write_service(service, listen, timeouts);
    }

    pub fn write_service(&mut self, service: ServiceId, listen: &str, timeouts: Timeouts) {
        self.write_service_with(service, listen, |record| record.timeouts = timeouts);
    }

    /// The record of a service, with whatever `change` wants to be different.
    pub fn write_service_with(
        &mut self,
        service: ServiceId,
        listen: &str,
        change: impl FnOnce(&mut ServiceRecord),
    ) {
        let mut record = service_record(listen);
        change(&mut record);
        self.apply(&MapWrite::WriteService { service, record });
    }

    /// The record of a backend, with whatever `change` wants to be different.
    pub fn write_backend(
        &mut self,
        service: ServiceId,
        listen: &str,
        index: u16,
        server: &str,
        change: impl FnOnce(&mut BackendRecord),
    ) {
        let mut record = BackendRecord {
            service,
            listen: address(listen),
            forwarding: Forwarding::Nat,
            max_packet: 0,
            address: address(server),
            accepts_new: true,
            next_hop: Some(next_hop(index, LOOPBACK, &[])),
            next_with_same_address: None,
            shares_address: false,
        };
        change(&mut record);
        self.apply(&MapWrite::WriteBackend {
            backend: BackendIndex(index),
            record,
        });
    }

    /// Deals a service's slots out to these backends in turn.
    pub fn share(&mut self, service: ServiceId, backends: &[u16]) {
        let slots = (0..SLOTS as usize).map(|slot| Slot {
            primary: backends
                .get(slot % backends.len().max(1))
                .map(|index| BackendIndex(*index)),
            secondary: None,
        });
        self.apply(&MapWrite::WriteTable {
            service,
            slots: slots.collect(),
        });
    }
}

impl Packet {
    /// From the IPv4 client to the IPv4 service.
    pub fn request() -> Self {
        Self::new(address(CLIENT), address(LISTEN)).link(Self::request_link())
    }

    /// From the IPv6 client to the IPv6 service.
    pub fn request6() -> Self {
        Self::new(address(CLIENT6), address(LISTEN6)).link(Self::request_link())
    }

    fn request_link() -> Link {
        Link {
            to: BALANCER,
            from: GATEWAY,
            tags: Vec::new(),
        }
    }

    /// A request as it is to reach the backend with this index.
    #[must_use]
    pub fn at_backend(self, index: u16, server: &str) -> Self {
        let link = Link {
            to: backend_mac(index),
            from: BALANCER,
            tags: Vec::new(),
        };
        self.forwarded(link).to(address(server))
    }
}
