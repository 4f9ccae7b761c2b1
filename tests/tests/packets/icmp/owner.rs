//! Whose an error is: by the connection's record, by the client's slot, or nobody's.

use lb_common::reason::Reason;
use lb_tests::packets::{
    BALANCER, Expect, Icmp, Link, Testbed, address, client, client6, in_new_namespace,
    ip as run_ip, sysctl,
};
use lb_userspace::{
    config::{InterfaceSettings, WantedMode},
    dataplane::MapWrite,
    model::{BackendIndex, ServiceId},
};

use super::{FAMILIES, Family, data, ip, translated};

const OTHER_SERVERS: [&str; 2] = ["10.0.0.9:8080", "[fd00::9]:8080"];
const OTHER_INDICES: [u16; 2] = [3, 4];

/// Services with two backends; all slots are the first one's.
fn with_two_backends() -> Testbed {
    let mut testbed = Testbed::new();
    for (n, family) in FAMILIES.iter().enumerate() {
        let backends = [
            (family.index, family.server),
            (OTHER_INDICES[n], OTHER_SERVERS[n]),
        ];
        testbed.add_service(family.service, family.listen, &backends);
        testbed.share(family.service, &[family.index]);
    }
    testbed
}

/// S-ICMP-2: the record decides, and without one the slot.
#[test]
fn the_record_decides_and_then_the_slot() {
    let mut testbed = with_two_backends();
    for (n, family) in FAMILIES.iter().enumerate() {
        let error = family.towards_backend();
        let to = |index, server| family.led(&family.at_backend(error.clone(), index, server));
        let first = to(family.index, family.server);
        let second = to(OTHER_INDICES[n], OTHER_SERVERS[n]);
        testbed.check("no record", &error.build(), &first);
        testbed.connect(address(family.client), address(family.listen));
        testbed.check("its record", &error.build(), &first);
        testbed.share(family.service, &[OTHER_INDICES[n]]);
        testbed.check("its record, not its slot", &error.build(), &first);
        testbed.apply(&MapWrite::ClearBackend {
            backend: BackendIndex(family.index),
        });
        testbed.check("its record's backend is gone", &error.build(), &second);
    }
}

/// S-ICMP-1: as many clients as it takes to meet every backend; the slot of the quoted packet's
/// receiver is that of its requests.
#[test]
fn errors_go_where_requests_go() {
    let mut testbed = with_two_backends();
    let clients: [fn(u32) -> std::net::SocketAddr; 2] = [client, client6];
    for (n, (family, client)) in FAMILIES.iter().zip(clients).enumerate() {
        testbed.share(family.service, &[family.index, OTHER_INDICES[n]]);
        let mut seen = [0; 2];
        for client in (0..100).map(client) {
            let quoted = data(address(family.listen), client);
            let error =
                Icmp::too_big(ip(family.front_router), quoted, 1400).cut(family.header() + 8);
            let outcome = testbed.run(&error.build());
            let backend = testbed.connect(client, address(family.listen));
            let (index, server) = match backend == address(family.server) {
                true => (family.index, family.server),
                false => (OTHER_INDICES[n], OTHER_SERVERS[n]),
            };
            let expected = family.at_backend(error, index, server);
            assert!(outcome.frame == expected.build(), "{client}");
            seen[usize::from(index != family.index)] += 1;
        }
        assert!(seen.iter().all(|&n| n > 20), "{seen:?}");
    }
}

/// An error about a connection that nobody has or could have.
#[test]
fn errors_of_nobody_are_dropped_or_passed() {
    let mut testbed = with_two_backends();
    for family in &FAMILIES {
        testbed.share(family.service, &[]);
        let unmatched = Expect::Drop(Some(family.service), Reason::IcmpUnmatched);
        let frame = family.towards_backend().build();
        testbed.check("towards a backend", &frame, &unmatched);
        let broken = family.towards_backend().hops(0).build();
        testbed.check("and broken", &broken, &unmatched);
        let frame = family.towards_client().build();
        testbed.check("towards a client", &frame, &Expect::Pass);
        let broken = family.towards_client().hops(0).build();
        testbed.check("and broken", &broken, &Expect::Pass);
    }
}

/// Neither a next hop nor a route.
#[test]
fn errors_without_a_way_are_dropped() {
    in_new_namespace(|| {
        let mut testbed = with_two_backends();
        for family in &FAMILIES {
            let expect = Expect::Drop(Some(family.service), Reason::NoNextHop);
            let Family {
                service,
                listen,
                index,
                server,
                ..
            } = *family;
            testbed.write_backend(service, listen, index, server, |b| b.next_hop = None);
            let frame = family.towards_backend().build();
            testbed.check("towards a backend", &frame, &expect);
        }
    });
}

/// S-NAT-8: of services that share a backend's address and port, the one whose record for the
/// client names it, and without a record the first in whose table the client's slot is its.
#[test]
fn the_service_is_the_connections_own() {
    let mut testbed = Testbed::with_one_backend_each();
    let others = [
        (ServiceId(3), "192.0.2.10:443"),
        (ServiceId(4), "[2001:db8::10]:443"),
    ];
    for (n, (family, (other, listen))) in FAMILIES.iter().zip(others).enumerate() {
        testbed.add_service(other, listen, &[(OTHER_INDICES[n], family.server)]);
        testbed.write_backend(other, listen, OTHER_INDICES[n], family.server, |backend| {
            backend.next_with_same_address = Some(BackendIndex(family.index));
        });
        let error = family.towards_client();
        testbed.connect(address(family.client), address(family.listen));
        let own = family.at_client(error.clone(), family.listen);
        testbed.check("the second's", &error.build(), &family.led(&own));

        let mut client = address(family.client);
        client.set_port(40_001);
        let error = Icmp::too_big(
            address(family.server).ip(),
            data(client, address(family.server)),
            1300,
        );
        testbed.connect(client, address(listen));
        let own = translated(other, &family.at_client(error.clone(), listen));
        // Whoever forged the packets of `connect` is the last hop.
        testbed.check("the first's", &error.build(), &own);
    }
}

/// S-ICMP-1: without a record (after a failover, or when the table was full) the kernel's routes
/// lead to the client. What cannot be led there may not be ours, and passes (S-FWD-7).
#[test]
fn errors_reach_the_client_without_state() {
    const MAC: &str = "02:00:00:00:00:02";
    in_new_namespace(|| {
        run_ip(&format!(
            "link add front index 10 address {MAC} type veth peer peer index 11"
        ));
        run_ip("link set front up");
        run_ip("link set peer up");
        sysctl("ipv6/conf/front/accept_dad", "0");
        sysctl("ipv4/ip_forward", "1");
        sysctl("ipv6/conf/all/forwarding", "1");
        run_ip("addr add 198.51.100.254/24 dev front");
        run_ip("addr add 2001:db8:c::fe/64 dev front nodad");
        for client in ["198.51.100.7", "2001:db8:c::7"] {
            run_ip(&format!(
                "neigh add {client} lladdr 02:00:00:00:00:77 dev front nud permanent"
            ));
        }
        let mut testbed = with_two_backends();
        testbed.attach(&[InterfaceSettings {
            name: "front".to_owned(),
            mode: WantedMode::Native,
        }]);
        let hosts = ["198.51.100.254:40000", "[2001:db8:c::fe]:40000"];
        let strangers = ["198.51.100.99:40000", "[2001:db8:c::99]:40000"];
        for (n, family) in FAMILIES.iter().enumerate() {
            for sender in [ip(family.back_router), address(family.server).ip()] {
                let error = family.towards_client().from(sender);
                let link = Link {
                    to: [2, 0, 0, 0, 0, 0x77],
                    from: BALANCER,
                    tags: Vec::new(),
                };
                let expected = family.at_client(error.clone(), family.listen).link(link);
                let before = testbed.reasons();
                let outcome = testbed.run_from(10, &error.build());
                let expected = family.led(&expected);
                testbed.compare("by slot", &error.build(), &expected, &before, outcome);
            }
            // What a probe of the host's own is told is the host's.
            let host = address(hosts[n]);
            let probe = family
                .towards_client()
                .quoting(|packet| packet.from(host))
                .to(host.ip());
            let nowhere = address(strangers[n]);
            let mut untouched = vec![
                ("another's slot", OTHER_INDICES[n], family.towards_client()),
                ("the host's", family.index, probe),
                (
                    "no neighbour",
                    family.index,
                    family
                        .towards_client()
                        .quoting(|packet| packet.from(nowhere))
                        .to(nowhere.ip()),
                ),
                ("last hop", family.index, family.towards_client().hops(1)),
            ];
            if family.is_ipv4() {
                let broken = family.towards_client().v4(|ip| ip.checksum_error = 1);
                untouched.push(("header checksum", family.index, broken));
            }
            for (description, owner, message) in untouched {
                testbed.share(family.service, &[owner]);
                let frame = message.build();
                let before = testbed.reasons();
                let outcome = testbed.run_from(10, &frame);
                testbed.compare(description, &frame, &Expect::Pass, &before, outcome);
            }
        }
        assert_eq!(testbed.totals().used, 0);
    });
}
