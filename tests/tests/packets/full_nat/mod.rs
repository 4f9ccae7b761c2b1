//! `full-nat`: both addresses and both ports are translated, and a connection's port is its own.

use std::net::SocketAddr;

use lb_tests::packets::{
    BALANCER, CLIENT, CLIENT6, GATEWAY, LISTEN, LISTEN6, Link, Packet, SERVER, SERVER6, SNAT,
    SNAT6, Testbed, WEB, WEB6, address, backend_mac, client, client6,
};
use lb_userspace::model::ServiceId;

mod pool;
mod ports;
mod rewrite;
mod services;
mod states;

/// A service, and who has to do with it.
#[derive(Clone, Copy)]
struct Scene {
    service: ServiceId,
    listen: &'static str,
    snat: &'static str,
    /// Index and address.
    backend: (u16, &'static str),
    client: &'static str,
    /// Many others.
    clients: fn(u32) -> SocketAddr,
}

/// As [`Testbed::with_full_nat`] has them.
const SCENES: [Scene; 2] = [
    Scene {
        service: WEB,
        listen: LISTEN,
        snat: SNAT,
        backend: (1, SERVER),
        client: CLIENT,
        clients: client,
    },
    Scene {
        service: WEB6,
        listen: LISTEN6,
        snat: SNAT6,
        backend: (2, SERVER6),
        client: CLIENT6,
        clients: client6,
    },
];

impl Scene {
    fn client(&self) -> SocketAddr {
        address(self.client)
    }

    fn server(&self) -> SocketAddr {
        address(self.backend.1)
    }

    /// From the client to the service.
    fn request(&self) -> Packet {
        Packet::new(self.client(), address(self.listen)).link(link(BALANCER, GATEWAY))
    }

    /// How a request is to reach the backend, sent from `source`.
    fn at_backend(&self, request: &Packet, source: SocketAddr) -> Packet {
        let (index, server) = self.backend;
        request.clone().at_backend(index, server).from(source)
    }

    /// From the backend to where the client's connection is sent from.
    fn reply(&self, source: SocketAddr) -> Packet {
        let link = link(BALANCER, backend_mac(self.backend.0));
        Packet::new(self.server(), source).link(link)
    }

    /// How a reply is to reach the client.
    fn at_client(&self, reply: &Packet) -> Packet {
        let reply = reply.clone().forwarded(link(GATEWAY, BALANCER));
        reply.from(address(self.listen)).to(self.client())
    }

    /// Opens the client's connection; where it is sent from.
    #[track_caller]
    fn open(&self, testbed: &mut Testbed) -> SocketAddr {
        let syn = self.request().flags(lb_tests::packets::flags::SYN);
        let source = testbed.forward(&syn).source;
        testbed.connect_full_nat(self.client(), self.listen);
        source
    }
}

fn link(to: [u8; 6], from: [u8; 6]) -> Link {
    Link {
        to,
        from,
        tags: Vec::new(),
    }
}
