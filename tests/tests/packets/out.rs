//! The way out: VLAN tags pushed, popped and rewritten; other interfaces; the kernel's routes.

use lb_common::reason::Reason;
use lb_tests::packets::{
    BALANCER, CLIENT, CLIENT6, Expect, GATEWAY, LISTEN, LISTEN6, Link, Packet, SERVER, SERVER6,
    Tag, Testbed, Verdict, WEB, WEB6, address, backend_mac, flags, in_new_namespace, ip, next_hop,
    sysctl,
};
use lb_userspace::{
    config::{InterfaceSettings, WantedMode},
    model::{BackendIndex, ServiceId},
};

/// No tag, one and two of either kind, with priorities.
fn tag_stacks() -> Vec<Vec<Tag>> {
    vec![
        vec![],
        vec![Tag::dot1q(0x6005)],
        vec![Tag::dot1ad(0x0fff)],
        vec![Tag::dot1ad(0x2007), Tag::dot1q(0xe009)],
        vec![Tag::dot1q(1), Tag::dot1q(4094)],
    ]
}

/// S-FWD-6: every stack in, every stack out.
#[test]
fn tags_are_rewritten_to_the_way_out() {
    let mut testbed = Testbed::with_one_backend_each();
    for outgoing in tag_stacks() {
        for (service, listen, index, server) in
            [(WEB, LISTEN, 1, SERVER), (WEB6, LISTEN6, 2, SERVER6)]
        {
            testbed.write_backend(service, listen, index, server, |backend| {
                backend.next_hop = Some(next_hop(index, 1, &outgoing));
            });
        }
        for incoming in tag_stacks() {
            for (packet, index, server) in [
                (Packet::request(), 1, SERVER),
                (Packet::request6(), 2, SERVER6),
            ] {
                let packet = packet.tags(&incoming).payload(b"tagged").padding(3);
                let description = format!("{incoming:04x?} to {outgoing:04x?}");
                let expected = packet.clone().at_backend(index, server).tags(&outgoing);
                let expected = Expect::Transmit(expected.build());
                testbed.check(&description, &packet.build(), &expected);
            }
        }
    }
}

/// S-FWD-6: replies go back with the tags of the requests, whatever tags they come with.
#[test]
fn replies_get_the_tags_of_the_requests() {
    let mut testbed = Testbed::with_one_backend_each();
    for requested in tag_stacks() {
        for replied in tag_stacks() {
            // A SYN after a refusal begins anew, and so learns the way back anew.
            testbed.run(&Packet::request().tags(&requested).flags(flags::SYN).build());
            let link = Link {
                to: BALANCER,
                from: backend_mac(1),
                tags: replied.clone(),
            };
            let reply = Packet::new(address(SERVER), address(CLIENT))
                .flags(flags::RST | flags::ACK)
                .link(link);
            let way_back = Link {
                to: GATEWAY,
                from: BALANCER,
                tags: requested.clone(),
            };
            let expected = reply.clone().forwarded(way_back).from(address(LISTEN));
            let description = format!("{replied:04x?} to {requested:04x?}");
            testbed.check(
                &description,
                &reply.build(),
                &Expect::Transmit(expected.build()),
            );
        }
    }
}

const FRONT: u32 = 10;
const BACK: u32 = 20;
const FRONT_MAC: &str = "02:00:00:00:00:02";
const BACK_MAC: &str = "02:00:00:00:00:20";
const SERVER_MAC: &str = "02:00:00:01:00:01";
const SERVER_MAC6: &str = "02:00:00:01:00:02";

/// Two interfaces, towards the clients and towards the backends, with the program attached and
/// tables for `flows` each.
fn between_two_interfaces(flows: u32, test: impl FnOnce(Testbed) + Send) {
    in_new_namespace(|| {
        for (name, index, mac) in [("front", FRONT, FRONT_MAC), ("back", BACK, BACK_MAC)] {
            let peer = index + 1;
            ip(&format!(
                "link add {name} index {index} address {mac} type veth peer peer{index} index {peer}"
            ));
            ip(&format!("link set {name} up"));
            ip(&format!("link set peer{index} up"));
            sysctl(&format!("ipv6/conf/{name}/accept_dad"), "0");
        }
        let mut testbed = Testbed::with_capacity(flows);
        testbed.add_service(WEB, LISTEN, &[(1, SERVER)]);
        testbed.add_service(WEB6, LISTEN6, &[(2, SERVER6)]);
        testbed.attach(&["front", "back"].map(|name| InterfaceSettings {
            name: name.to_owned(),
            mode: WantedMode::Native,
        }));
        test(testbed);
    });
}

fn mac(text: &str) -> [u8; 6] {
    let mut mac = [0; 6];
    for (byte, digits) in mac.iter_mut().zip(text.split(':')) {
        *byte = u8::from_str_radix(digits, 16).expect("hexadecimal digits");
    }
    mac
}

/// Another interface than the one a packet came in by: redirected, both ways.
#[test]
fn packets_leave_by_the_interface_of_their_next_hop() {
    between_two_interfaces(1000, |mut testbed| {
        for (service, listen, index, server) in
            [(WEB, LISTEN, 1, SERVER), (WEB6, LISTEN6, 2, SERVER6)]
        {
            testbed.write_backend(service, listen, index, server, |backend| {
                backend.next_hop = Some(next_hop(index, BACK, &[Tag::dot1q(7)]));
            });
        }
        for (request, index, listen, server) in [
            (Packet::request(), 1, LISTEN, SERVER),
            (Packet::request6(), 2, LISTEN6, SERVER6),
        ] {
            let request = request.flags(flags::SYN).tags(&[Tag::dot1ad(9)]);
            let expected = request
                .clone()
                .at_backend(index, server)
                .tags(&[Tag::dot1q(7)]);
            let before = testbed.reasons();
            let outcome = testbed.run_from(FRONT, &request.build());
            let expected = Expect::Redirect(expected.build());
            testbed.compare("request", &request.build(), &expected, &before, outcome);

            let reply = Packet::new(address(server), request.source()).flags(flags::SYN_ACK);
            let way_back = Link {
                to: GATEWAY,
                from: BALANCER,
                tags: request.link.tags.clone(),
            };
            let expected = reply
                .clone()
                .forwarded(way_back)
                .from(address(listen))
                .build();
            let outcome = testbed.run_from(BACK, &reply.build());
            let redirected = Expect::Redirect(expected.clone());
            testbed.compare("reply", &reply.build(), &redirected, &before, outcome);
            // A backend that answers through the clients' side: out where it came in.
            let outcome = testbed.run_from(FRONT, &reply.build());
            let transmitted = Expect::Transmit(expected);
            testbed.compare(
                "reply in front",
                &reply.build(),
                &transmitted,
                &before,
                outcome,
            );
        }
    });
}

/// Where the daemon knows no next hop, the kernel's routes and neighbours decide.
#[test]
fn the_kernel_is_asked_where_no_next_hop_is_known() {
    between_two_interfaces(1000, |mut testbed| {
        sysctl("ipv4/ip_forward", "1");
        sysctl("ipv6/conf/all/forwarding", "1");
        ip("addr add 10.0.0.254/24 dev back");
        ip("addr add fd00::fe/64 dev back nodad");
        testbed.write_backend(WEB, LISTEN, 1, SERVER, |backend| backend.next_hop = None);
        testbed.write_backend(WEB6, LISTEN6, 2, SERVER6, |backend| backend.next_hop = None);
        for (request, service) in [(Packet::request(), WEB), (Packet::request6(), WEB6)] {
            let frame = request.flags(flags::SYN).build();
            let before = testbed.reasons();
            let outcome = testbed.run_from(FRONT, &frame);
            let expected = Expect::Drop(Some(service), Reason::NoNextHop);
            testbed.compare("no neighbour yet", &frame, &expected, &before, outcome);
        }
        ip(&format!(
            "neigh add 10.0.0.1 lladdr {SERVER_MAC} dev back nud permanent"
        ));
        ip(&format!(
            "neigh add fd00::1 lladdr {SERVER_MAC6} dev back nud permanent"
        ));
        for (request, server, neighbour) in [
            (Packet::request(), SERVER, SERVER_MAC),
            (Packet::request6(), SERVER6, SERVER_MAC6),
        ] {
            let request = request.flags(flags::SYN);
            let link = Link {
                to: mac(neighbour),
                from: mac(BACK_MAC),
                tags: vec![],
            };
            let expected = request.clone().forwarded(link).to(address(server)).build();
            let before = testbed.reasons();
            let outcome = testbed.run_from(FRONT, &request.build());
            let expected = Expect::Redirect(expected);
            testbed.compare("neighbour", &request.build(), &expected, &before, outcome);
        }
    });
}

/// S-CT-2: a connection that found no place in the table is hashed, counted and shown, and its
/// replies are translated by the same hash. The host's own connections with the backends are left
/// alone meanwhile.
#[test]
fn replies_of_untracked_connections_are_translated() {
    between_two_interfaces(1, |mut testbed| {
        sysctl("ipv4/ip_forward", "1");
        sysctl("ipv6/conf/all/forwarding", "1");
        ip("addr add 198.51.100.254/24 dev front");
        ip("addr add 2001:db8:c::fe/64 dev front nodad");
        ip("addr add 10.0.0.254/24 dev back");
        ip("addr add fd00::fe/64 dev back nodad");
        ip("neigh add 198.51.100.7 lladdr 02:00:00:00:00:77 dev front nud permanent");
        ip("neigh add 2001:db8:c::7 lladdr 02:00:00:00:00:77 dev front nud permanent");
        for (service, listen, server, client, host) in [
            (WEB, LISTEN, SERVER, CLIENT, "10.0.0.254:40000"),
            (WEB6, LISTEN6, SERVER6, CLIENT6, "[fd00::fe]:40000"),
        ] {
            let (listen, server, client) = (address(listen), address(server), address(client));
            let reply = Packet::new(server, client)
                .flags(flags::SYN_ACK)
                .payload(b"answer");
            let before = testbed.reasons();
            let outcome = testbed.run_from(BACK, &reply.build());
            testbed.compare(
                "nobody is untracked",
                &reply.build(),
                &Expect::Pass,
                &before,
                outcome,
            );

            // A table for one flow is a bucket of four records.
            for port in 1..=4 {
                let mut other = client;
                other.set_port(port);
                testbed.connect(other, listen);
            }
            let request = Packet::new(client, listen).flags(flags::SYN).build();
            testbed.run(&request);
            assert_eq!(testbed.reason(service, Reason::Untracked), 1);

            let outcome = testbed.run_from(BACK, &reply.build());
            let link = Link {
                to: [2, 0, 0, 0, 0, 0x77],
                from: mac(FRONT_MAC),
                tags: vec![],
            };
            let expected = reply.clone().forwarded(link).from(listen).build();
            assert_eq!(testbed.reason(service, Reason::UntrackedReply), 1);
            let before = testbed.reasons();
            let redirected = Expect::Redirect(expected);
            testbed.compare("untracked", &reply.build(), &redirected, &before, outcome);

            let check = Packet::new(server, address(host))
                .flags(flags::SYN_ACK)
                .build();
            let outcome = testbed.run_from(BACK, &check);
            testbed.compare("the host's own", &check, &Expect::Pass, &before, outcome);
            let broken = reply.clone().hops(1).build();
            let outcome = testbed.run_from(BACK, &broken);
            testbed.compare(
                "not to be forwarded",
                &broken,
                &Expect::Pass,
                &before,
                outcome,
            );
        }
    });
}

/// S-NAT-8, S-CT-2: without records too, a backend's reply is of the service that the client's slot
/// is in.
#[test]
fn untracked_replies_find_their_service() {
    between_two_interfaces(1, |mut testbed| {
        sysctl("ipv4/ip_forward", "1");
        ip("addr add 198.51.100.254/24 dev front");
        ip("neigh add 198.51.100.7 lladdr 02:00:00:00:00:77 dev front nud permanent");
        const OTHER: ServiceId = ServiceId(3);
        const OTHER_LISTEN: &str = "192.0.2.10:443";
        testbed.add_service(OTHER, OTHER_LISTEN, &[(3, SERVER)]);
        testbed.write_backend(OTHER, OTHER_LISTEN, 3, SERVER, |backend| {
            backend.next_with_same_address = Some(BackendIndex(1));
        });
        let client = address(CLIENT);
        for port in 1..=4 {
            let mut other = client;
            other.set_port(port);
            testbed.connect(other, address(LISTEN));
        }
        let request = Packet::new(client, address(LISTEN)).flags(flags::SYN);
        testbed.run(&request.build());
        assert_eq!(testbed.reason(WEB, Reason::Untracked), 1);
        let reply = Packet::new(address(SERVER), client).flags(flags::SYN_ACK);
        let link = Link {
            to: [2, 0, 0, 0, 0, 0x77],
            from: mac(FRONT_MAC),
            tags: vec![],
        };
        let expected = reply.clone().forwarded(link).from(address(LISTEN)).build();
        let outcome = testbed.run_from(BACK, &reply.build());
        assert_eq!(outcome.verdict, Verdict::Redirect);
        assert!(outcome.frame == expected);
        assert_eq!(testbed.reason(WEB, Reason::UntrackedReply), 1);
    });
}
