//! Several services, and backends that have to do with more than one.

use lb_tests::packets::{
    Expect, Packet, Testbed, address, client, client6,
    flags::{ACK, PSH, SYN, SYN_ACK},
};
use lb_userspace::{
    dataplane::MapWrite,
    model::{BackendIndex, Forwarding, ServiceId},
};

use super::SCENES;

const OTHER: ServiceId = ServiceId(3);
const OTHERS: [&str; 2] = ["192.0.2.20:80", "[2001:db8::20]:80"];

/// S-NAT-5: a backend is a client of its own service, and gets its own answers.
#[test]
fn a_backend_may_be_a_client_of_its_own_service() {
    let mut testbed = Testbed::with_full_nat();
    for scene in SCENES {
        let mut client = scene.server();
        client.set_port(50_000);
        let [backend, source] = testbed.connect_full_nat(client, scene.listen);
        assert_eq!(backend, scene.server());
        assert_eq!(source.ip().to_string(), scene.snat);
        let reply = testbed.forward(&scene.reply(source).flags(PSH | ACK));
        assert_eq!(
            (reply.source, reply.destination),
            (address(scene.listen), client)
        );
    }
}

/// S-FWD-7: what is not a reply of a connection's own backend passes to the host untouched.
#[test]
fn strangers_pass() {
    let mut testbed = Testbed::with_full_nat();
    for scene in SCENES {
        let source = scene.open(&mut testbed);
        let mut other = scene.server();
        other.set_port(9_090);
        let index = 30 + scene.backend.0;
        testbed.write_backend(
            scene.service,
            scene.listen,
            index,
            &other.to_string(),
            |backend| {
                backend.forwarding = Forwarding::FullNat;
            },
        );
        testbed.apply(&MapWrite::BindEndpoint {
            address: other,
            backend: BackendIndex(index),
        });
        let [mut elsewhere, mut free, mut host] = [scene.server(), source, source];
        elsewhere.set_port(scene.server().port() + 1);
        free.set_port(source.port() ^ 0x1000);
        host.set_ip(scene.client().ip());
        for (description, packet) in [
            (
                "another port of the backend",
                Packet::new(elsewhere, source),
            ),
            ("another backend of the service", Packet::new(other, source)),
            ("a port that nobody has", Packet::new(scene.server(), free)),
            (
                "another address of the host",
                Packet::new(scene.server(), host),
            ),
            ("somebody else", Packet::new(scene.client(), source)),
        ] {
            for flags in [SYN, SYN_ACK, ACK] {
                let frame = packet.clone().flags(flags).build();
                testbed.check(description, &frame, &Expect::Pass);
            }
        }
    }
}

/// S-NAT-8: a backend of a `nat` and of a `full-nat` service, whichever comes first in its chain.
#[test]
fn a_backend_may_be_shared_with_a_nat_service() {
    for nat_first in [true, false] {
        let mut testbed = Testbed::with_full_nat();
        for (n, (scene, other)) in (0..).zip(SCENES.into_iter().zip(OTHERS)) {
            let id = ServiceId(OTHER.0 + n);
            let (index, server) = scene.backend;
            let nat = 20 + n;
            testbed.add_service(id, other, &[(nat, server)]);
            match nat_first {
                true => testbed.chain((id, other), (nat, server), Forwarding::Nat, index),
                false => {
                    let of = (scene.service, scene.listen);
                    testbed.chain(of, scene.backend, Forwarding::FullNat, nat);
                }
            }
            // The same client's port with both: the backend can tell them apart.
            let client = scene.client();
            let backend = testbed.connect(client, address(other));
            let source = scene.open(&mut testbed);
            for flags in [SYN_ACK, ACK] {
                let reply = testbed.forward(&scene.reply(source).flags(flags));
                assert_eq!(
                    (reply.source, reply.destination),
                    (address(scene.listen), client)
                );
                let from = testbed.reply(backend, client, flags);
                assert_eq!(from, address(other));
            }
        }
    }
}

/// S-NAT-4, S-NAT-8: two services that send from the same address never send from the same port.
#[test]
fn an_address_may_be_shared_by_two_services() {
    let mut testbed = Testbed::with_full_nat();
    for (n, (scene, other)) in (0..).zip(SCENES.into_iter().zip(OTHERS)) {
        let id = ServiceId(OTHER.0 + n);
        let (index, server) = scene.backend;
        let theirs = 20 + n;
        testbed.add_full_nat(id, other, &[scene.snat], &[(theirs, server)]);
        let of = (id, other);
        testbed.chain(of, (theirs, server), Forwarding::FullNat, index);
        let clients = if n == 0 { client } else { client6 };
        let mut sources = Vec::new();
        for number in 0..500 {
            for listen in [scene.listen, other] {
                let [_, source] = testbed.connect_full_nat(clients(number), listen);
                sources.push((number, listen, source));
            }
        }
        let mut ports: Vec<_> = sources.iter().map(|(.., source)| source.port()).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), sources.len());
        for (number, listen, source) in sources {
            let reply = testbed.forward(&scene.reply(source).flags(PSH | ACK));
            assert_eq!(
                (reply.source, reply.destination),
                (address(listen), clients(number))
            );
        }
    }
}
