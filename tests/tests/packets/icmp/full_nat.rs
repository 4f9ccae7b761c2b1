//! Errors about connections of `full-nat` services: both ends of the quoted packet change.

use std::net::SocketAddr;

use lb_common::reason::Reason;
use lb_tests::packets::{Expect, Icmp, SNAT, SNAT6, Tag, Testbed, address, client, client6};
use lb_userspace::{dataplane::MapWrite, model::BackendIndex};

use super::{FAMILIES, Family, ip};

impl Family {
    /// The error as the backend is to get it, which knows the client as `peer`.
    fn at_backend_of_peer(&self, message: Icmp, peer: SocketAddr) -> Icmp {
        let sender = match message.source() {
            sender if sender == address(self.client).ip() => peer.ip(),
            sender => sender,
        };
        self.at_backend(message, self.index, self.server)
            .from(sender)
            .quoting(|packet| packet.to(peer))
    }

    /// An error about what the client has sent, which the backends' side knows as `peer`.
    fn towards_peer(&self, peer: SocketAddr) -> Icmp {
        self.towards_client()
            .quoting(|packet| packet.from(peer))
            .to(peer.ip())
    }

    fn at_client_behind_peer(&self, message: Icmp) -> Icmp {
        let client = address(self.client);
        self.at_client(message, self.listen)
            .quoting(|packet| packet.from(client))
            .to(client.ip())
    }
}

/// Long and short quotes, with and without the TCP checksum, right and wrong ones.
fn variants(error: &Icmp, family: &Family) -> Vec<Icmp> {
    let header = family.header();
    let mut variants = vec![
        error.clone(),
        error.clone().cut(header + 8),
        error.clone().cut(header + 18),
        error.clone().checksum_error(5),
        error.clone().cut(header + 8).checksum_error(0x8000),
        error
            .clone()
            .quoting(|p| p.tcp(|tcp| tcp.checksum_error = 3)),
        error.clone().quoting(|p| p.payload(b"odd")).padding(9),
        error.clone().tags(&[Tag::dot1q(7)]).hops(2),
    ];
    if family.is_ipv4() {
        let options = |p: lb_tests::packets::Packet| p.v4(|ip| ip.options = vec![1; 12]);
        variants.push(error.clone().quoting(options));
        let wrong = |p: lb_tests::packets::Packet| p.v4(|ip| ip.checksum_error = 9);
        variants.push(error.clone().quoting(wrong).cut(header + 8));
    }
    variants
}

/// S-ICMP-1, S-ICMP-2, S-ICMP-3
#[test]
fn errors_reach_both_ends_of_a_full_nat_connection() {
    let mut testbed = Testbed::with_full_nat();
    for family in &FAMILIES {
        let (client, server) = (address(family.client), address(family.server));
        let [backend, peer] = testbed.connect_full_nat(client, family.listen);
        assert_eq!(backend, server);
        let connections = testbed.connections().len();
        for sender in [ip(family.front_router), client.ip()] {
            for error in variants(&family.towards_backend().from(sender), family) {
                let expected = family.at_backend_of_peer(error.clone(), peer);
                testbed.check("to the backend", &error.build(), &family.led(&expected));
            }
        }
        for sender in [ip(family.back_router), server.ip()] {
            for error in variants(&family.towards_peer(peer).from(sender), family) {
                let expected = family.at_client_behind_peer(error.clone());
                testbed.check("to the client", &error.build(), &family.led(&expected));
            }
        }
        assert_eq!(testbed.connections().len(), connections);
        assert_eq!(
            testbed.connect_full_nat(client, family.listen),
            [backend, peer]
        );
    }
}

/// S-ICMP-1: nobody but the record knows the port; there is no stateless way.
#[test]
fn errors_about_unknown_full_nat_connections_are_not_led_anywhere() {
    let mut testbed = Testbed::with_full_nat();
    for (family, snat) in FAMILIES.iter().zip([SNAT, SNAT6]) {
        let unmatched = Expect::Drop(Some(family.service), Reason::IcmpUnmatched);
        let frame = family.towards_backend().build();
        testbed.check("no record", &frame, &unmatched);
        let nobody = SocketAddr::new(ip(snat), 40_000);
        let frame = family.towards_peer(nobody).build();
        testbed.check("nobody's port", &frame, &Expect::Pass);
        let frame = family.towards_client().build();
        testbed.check("the client's own address", &frame, &Expect::Pass);

        let [_, peer] = testbed.connect_full_nat(address(family.client), family.listen);
        let mut other = address(family.server);
        other.set_port(81);
        let elsewhere = family.towards_peer(peer).quoting(|packet| packet.to(other));
        testbed.check("another port", &elsewhere.build(), &Expect::Pass);
        for error in [family.towards_backend(), family.towards_peer(peer)] {
            let expect = Expect::Drop(Some(family.service), Reason::TtlExpired);
            testbed.check("last hop", &error.hops(1).build(), &expect);
        }
        testbed.apply(&MapWrite::ClearBackend {
            backend: BackendIndex(family.index),
        });
        let frame = family.towards_backend().build();
        testbed.check("its backend is gone", &frame, &unmatched);
        let frame = family.towards_peer(peer).build();
        testbed.check("its backend is gone", &frame, &Expect::Pass);
    }
}

/// S-NAT-4: each connection's errors are its own, whatever its port is.
#[test]
fn each_full_nat_connection_has_its_own_errors() {
    let mut testbed = Testbed::with_full_nat();
    let clients: [fn(u32) -> SocketAddr; 2] = [client, client6];
    for (family, client) in FAMILIES.iter().zip(clients) {
        for client in (100..150).map(client) {
            let [_, peer] = testbed.connect_full_nat(client, family.listen);
            let error = family.towards_backend().quoting(|packet| packet.to(client));
            let expected = family
                .at_backend(error.clone(), family.index, family.server)
                .quoting(|packet| packet.to(peer));
            testbed.check("to the backend", &error.build(), &family.led(&expected));
        }
    }
}
