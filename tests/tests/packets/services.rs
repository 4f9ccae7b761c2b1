//! Services that share a backend's address and port: the backend cannot tell their connections
//! apart, so the balancer must (S-NAT-8).

use std::net::SocketAddr;

use lb_common::reason::Reason;
use lb_tests::packets::{
    Expect, Packet, Testbed, address, client, client6,
    flags::{ACK, FIN, PSH, RST, SYN, SYN_ACK},
};
use lb_userspace::model::{BackendIndex, ServiceId};

/// Two services with the same backend.
struct Shared {
    testbed: Testbed,
    services: [Service; 2],
    server: SocketAddr,
    client: fn(u32) -> SocketAddr,
}

#[derive(Clone, Copy)]
struct Service {
    id: ServiceId,
    listen: SocketAddr,
    backend: BackendIndex,
}

impl Shared {
    fn new(listens: [&str; 2], server: &str, client: fn(u32) -> SocketAddr) -> Self {
        let mut testbed = Testbed::new();
        let services = [1, 2].map(|number: u16| Service {
            id: ServiceId(number),
            listen: address(listens[usize::from(number) - 1]),
            backend: BackendIndex(10 + number),
        });
        for (service, listen) in services.iter().zip(listens) {
            testbed.add_service(service.id, listen, &[(service.backend.0, server)]);
        }
        // Who is added last is the head of the chain.
        let [first, second] = services;
        for (service, next) in [(first, None), (second, Some(first.backend))] {
            let listen = listens[usize::from(service.id.0) - 1];
            testbed.write_backend(service.id, listen, service.backend.0, server, |backend| {
                backend.next_with_same_address = next;
                backend.shares_address = true;
            });
        }
        Self {
            testbed,
            services,
            server: address(server),
            client,
        }
    }

    fn both_families() -> [Self; 2] {
        [
            Self::new(["192.0.2.10:80", "192.0.2.10:443"], "10.0.0.1:8080", client),
            Self::new(
                ["[2001:db8::10]:80", "[2001:db8::11]:80"],
                "[fd00::1]:8080",
                client6,
            ),
        ]
    }

    fn collides(&mut self, client: SocketAddr, service: Service, flags: u8) {
        let packet = Packet::new(client, service.listen).flags(flags).build();
        let expected = Expect::Drop(Some(service.id), Reason::TupleCollision);
        self.testbed.check("collision", &packet, &expected);
        assert_eq!(self.testbed.state(service.id, client), None);
    }
}

/// S-NAT-8: replies find the service that their client speaks with.
#[test]
fn replies_come_from_the_service_that_was_asked() {
    for mut shared in Shared::both_families() {
        for n in 0..100 {
            let service = shared.services[n as usize % 2];
            let backend = shared.testbed.connect((shared.client)(n), service.listen);
            assert_eq!(backend, shared.server);
        }
        for n in 0..100 {
            let service = shared.services[n as usize % 2];
            let client = (shared.client)(n);
            let from = shared.testbed.reply(shared.server, client, PSH | ACK);
            assert_eq!(from, service.listen);
        }
        for service in shared.services {
            let counters = shared.testbed.backend_counters(service.backend);
            assert_eq!((counters.connections, counters.packets_out), (50, 100));
        }
    }
}

/// S-NAT-8: a client's port that is in use with the backend through one service cannot be used
/// with it through the other: the backend would take both for one connection.
#[test]
fn one_port_of_a_client_cannot_reach_a_backend_through_two_services() {
    for mut shared in Shared::both_families() {
        for (n, [one, other]) in
            (0..).zip([shared.services, [shared.services[1], shared.services[0]]])
        {
            let client = (shared.client)(n);
            shared.testbed.request(client, one.listen, SYN);
            shared.collides(client, other, SYN);
            shared.testbed.reply(shared.server, client, SYN_ACK);
            shared.testbed.request(client, one.listen, ACK);
            for flags in [SYN, ACK, FIN | ACK, RST] {
                shared.collides(client, other, flags);
            }
            let from = shared.testbed.reply(shared.server, client, PSH | ACK);
            assert_eq!(from, one.listen);
            assert_eq!(shared.testbed.state(one.id, client), Some("ESTABLISHED"));
        }
    }
}

/// S-NAT-7, S-NAT-8: a connection that is over is not in the way of one through the other service,
/// whose replies are its own.
#[test]
fn a_closed_connection_gives_its_port_to_the_other_service() {
    for mut shared in Shared::both_families() {
        for (n, [one, other]) in
            (0..).zip([shared.services, [shared.services[1], shared.services[0]]])
        {
            let client = (shared.client)(n);
            shared.testbed.connect(client, one.listen);
            shared.testbed.request(client, one.listen, FIN | ACK);
            shared.testbed.reply(shared.server, client, FIN | ACK);
            shared.testbed.request(client, one.listen, ACK);
            shared.testbed.connect(client, other.listen);
            let from = shared.testbed.reply(shared.server, client, PSH | ACK);
            assert_eq!(from, other.listen);
            assert_eq!(shared.testbed.state(other.id, client), Some("ESTABLISHED"));
            assert_eq!(shared.testbed.state(one.id, client), None);
        }
    }
}
