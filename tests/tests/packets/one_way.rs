//! `dsr`, `ipip` and `gue`: what leaves for a backend that answers the client itself, and how a
//! connection lives of which only one direction is seen.

use std::{collections::BTreeSet, net::IpAddr};

use lb_common::reason::Reason;
use lb_tests::packets::{
    BALANCER, CLIENT, CLIENT6, Expect, Extension, GATEWAY, LISTEN, LISTEN6, Link, Outer, Packet,
    Tag, Testbed, Verdict, WEB, WEB6, address, backend_mac, client, client6, flags, next_hop,
};
use lb_userspace::model::{Forwarding, ServiceId, Tunnel};

/// Backends of both families; a tunnel's need not be of its service's.
const OUTER4: &str = "10.0.0.1:80";
const OUTER6: &str = "[fd00::1]:80";

const TUNNELS: [Forwarding; 2] = [Forwarding::Ipip, Forwarding::Gue];
const ONE_WAY: [Forwarding; 3] = [Forwarding::Dsr, Forwarding::Ipip, Forwarding::Gue];

/// An IPv4 and an IPv6 service with one backend each, indices 1 and 2.
fn testbed(forwarding: Forwarding, backend4: &str, backend6: &str, max_packet: u16) -> Testbed {
    let mut testbed = Testbed::new();
    for (service, listen, index, backend) in
        [(WEB, LISTEN, 1, backend4), (WEB6, LISTEN6, 2, backend6)]
    {
        testbed.add_service_with(
            service,
            listen,
            &[(index, backend)],
            forwarding,
            |_| {},
            |record| record.max_packet = max_packet,
        );
    }
    testbed
}

/// Every combination of inner and outer family, with the inner packet.
fn families() -> [(&'static str, &'static str, Packet); 4] {
    [
        (OUTER4, OUTER4, Packet::request()),
        (OUTER6, OUTER6, Packet::request()),
        (OUTER4, OUTER4, Packet::request6()),
        (OUTER6, OUTER6, Packet::request6()),
    ]
}

fn index_of(packet: &Packet) -> u16 {
    if packet.source().is_ipv4() { 1 } else { 2 }
}

/// The IP packet as it is to travel inside: one hop less to go, its checksums computed anew.
fn inside(packet: &Packet) -> Vec<u8> {
    let link = Link {
        to: BALANCER,
        from: GATEWAY,
        tags: Vec::new(),
    };
    let mut inner = packet.clone().forwarded(link);
    inner.padding.clear();
    inner.build()[14..].to_vec()
}

#[track_caller]
fn encapsulated(testbed: &mut Testbed, packet: &Packet) -> Outer {
    let outcome = testbed.run(&packet.build());
    assert_eq!(outcome.verdict, Verdict::Transmit, "{packet:?}");
    Outer::of(&outcome.frame)
}

/// S-FWD-2: `dsr` changes Ethernet addresses and nothing else, not even the last hop to go.
#[test]
fn dsr_changes_the_ethernet_address_only() {
    let mut testbed = testbed(Forwarding::Dsr, OUTER4, OUTER6, 0);
    for packet in [Packet::request(), Packet::request6()] {
        for (description, packet) in [
            ("SYN", packet.clone().flags(flags::SYN)),
            ("data", packet.clone().payload(b"data").padding(9)),
            ("last hop", packet.clone().hops(1)),
            ("no hop", packet.clone().hops(0)),
            ("tagged", packet.clone().tags(&[Tag::dot1q(7)])),
        ] {
            let mut expected = packet.clone();
            expected.link = Link {
                to: backend_mac(index_of(&packet)),
                from: BALANCER,
                tags: Vec::new(),
            };
            let expect = Expect::Transmit(expected.build());
            testbed.check(description, &packet.build(), &expect);
        }
    }
}

/// S-DSR-2, S-FWD-8: the outer header, field by field, in all four combinations of families.
#[test]
fn ipip_puts_an_ip_header_in_front() {
    for (backend4, backend6, packet) in families() {
        let mut testbed = testbed(Forwarding::Ipip, backend4, backend6, 0);
        for packet in [
            packet.clone().flags(flags::SYN),
            packet.clone().payload(b"seven..").padding(5),
        ] {
            let outer = encapsulated(&mut testbed, &packet);
            assert_eq!(outer.inner, inside(&packet), "{packet:?}");
            assert_eq!(outer.padding, packet.padding);
            assert_eq!(outer.destination, address(backend4).ip());
            assert_eq!(outer.link.to, backend_mac(index_of(&packet)));
            let protocol = if packet.source().is_ipv4() { 4 } else { 41 };
            assert_eq!(
                (outer.protocol, outer.hops, outer.udp),
                (protocol, 64, None)
            );
            assert_source(outer.source);
            if outer.source.is_ipv4() {
                assert_eq!(outer.fragment, Some((0, 0x4000)));
            }
        }
    }
}

/// The default tunnel sources.
#[track_caller]
fn assert_source(source: IpAddr) {
    let tunnel = Tunnel::default();
    let within = match source {
        IpAddr::V4(source) => tunnel.source_ipv4.contains(&source),
        IpAddr::V6(source) => tunnel.source_ipv6.contains(&source),
    };
    assert!(within, "{source}");
}

/// GUE variant 1: the packet follows the UDP header, whose checksum holds.
#[test]
fn gue_puts_ip_and_udp_in_front() {
    for (backend4, backend6, packet) in families() {
        let mut testbed = testbed(Forwarding::Gue, backend4, backend6, 0);
        for packet in [
            packet.clone().flags(flags::SYN),
            packet.clone().payload(b"seven..").padding(5),
            packet.clone().payload(&[0xff; 1000]),
            packet.clone().payload(b"").hops(2),
        ] {
            let outer = encapsulated(&mut testbed, &packet);
            assert_eq!(outer.inner, inside(&packet), "{packet:?}");
            let udp = outer.udp.expect("UDP");
            assert!(
                udp.checksum != 0 && udp.checksum_verifies,
                "{packet:?}: {udp:?}"
            );
            assert_eq!(udp.destination, Tunnel::GUE_PORT);
            assert!(udp.source >= 0xc000);
        }
    }
}

/// S-FWD-3: a packet that was wrong stays wrong, outside too.
#[test]
fn gue_hides_no_wrong_checksum() {
    for (backend4, backend6, packet) in families() {
        let mut testbed = testbed(Forwarding::Gue, backend4, backend6, 0);
        let packet = packet.payload(b"broken").tcp(|tcp| tcp.checksum_error = 7);
        let outer = encapsulated(&mut testbed, &packet);
        assert_eq!(outer.inner, inside(&packet));
        assert!(!outer.udp.expect("UDP").checksum_verifies);
    }
}

/// RFC 6935: where the inner packet has headers that the program does not add up, there is none.
#[test]
fn gue_has_no_checksum_around_extension_headers() {
    let mut testbed = testbed(Forwarding::Gue, OUTER6, OUTER6, 0);
    let extension = Extension::new(Extension::DESTINATION_OPTIONS, 1);
    let packet = Packet::request6().v6(|ip| ip.extensions.push(extension));
    let outer = encapsulated(&mut testbed, &packet);
    assert_eq!(outer.inner, inside(&packet));
    assert_eq!(outer.udp.expect("UDP").checksum, 0);
    // IPv4's options are in its own header's checksum.
    let packet = Packet::request().v4(|ip| ip.options = vec![1; 8]);
    let outer = encapsulated(&mut testbed, &packet);
    assert_eq!(outer.inner, inside(&packet));
    assert!(outer.udp.expect("UDP").checksum_verifies);
}

/// S-FWD-8, RFC 6040 §4.1 (normal mode): DSCP and ECN are copied.
#[test]
fn the_outer_header_has_the_inner_traffic_class() {
    for forwarding in TUNNELS {
        for (backend4, backend6, packet) in families() {
            let mut testbed = testbed(forwarding, backend4, backend6, 0);
            for class in [0, 1, 2, 3, 0xb8, 0xb9, 0xba, 0xbb, 0xff] {
                let packet = match packet.source().is_ipv4() {
                    true => packet.clone().v4(|ip| ip.service_type = class),
                    false => packet.clone().v6(|ip| ip.traffic_class = class),
                };
                let outer = encapsulated(&mut testbed, &packet);
                assert_eq!(outer.traffic_class, class);
                assert_eq!(outer.inner, inside(&packet));
            }
        }
    }
}

/// S-FWD-2, RFC 2003 §3.1: a tunnel is a hop.
#[test]
fn a_tunnel_takes_no_packet_without_a_hop_to_go() {
    for forwarding in TUNNELS {
        let mut testbed = testbed(forwarding, OUTER4, OUTER6, 0);
        for (packet, service) in [(Packet::request(), WEB), (Packet::request6(), WEB6)] {
            let frame = packet.hops(1).build();
            let expect = Expect::Drop(Some(service), Reason::TtlExpired);
            testbed.check("last hop", &frame, &expect);
        }
    }
}

/// S-DSR-2: what receivers spread by is constant for a flow and differs between flows.
#[test]
fn flows_differ_outside_and_each_is_constant() {
    for forwarding in TUNNELS {
        for backend in [OUTER4, OUTER6] {
            let mut testbed = testbed(forwarding, backend, backend, 0);
            let clients: [fn(u32) -> std::net::SocketAddr; 2] = [client, client6];
            for (client, listen) in clients.into_iter().zip([LISTEN, LISTEN6]) {
                let mut seen = BTreeSet::new();
                for number in 0..200 {
                    let packet = Packet::new(client(number), address(listen));
                    let entropy = |outer: Outer| {
                        let port = outer.udp.map(|udp| udp.source);
                        (outer.source, outer.flow_label, port)
                    };
                    let syn = entropy(encapsulated(
                        &mut testbed,
                        &packet.clone().flags(flags::SYN),
                    ));
                    let data = entropy(encapsulated(&mut testbed, &packet.payload(b"data")));
                    assert_eq!(syn, data);
                    seen.insert(syn);
                }
                assert!(seen.len() > 190, "{forwarding} {backend}: {}", seen.len());
            }
        }
    }
}

/// A source without host bits has none of a flow's; a port of one's own is used.
#[test]
fn the_tunnel_is_as_it_is_set() {
    let mut testbed = Testbed::new();
    testbed.add_service_with(
        WEB,
        LISTEN,
        &[(1, OUTER4)],
        Forwarding::Gue,
        |record| {
            record.tunnel.source_ipv4 = "10.9.8.7/32".parse().unwrap();
            record.tunnel.port = 5555;
        },
        |_| {},
    );
    let outer = encapsulated(&mut testbed, &Packet::request());
    assert_eq!(outer.source, "10.9.8.7".parse::<IpAddr>().unwrap());
    assert_eq!(outer.udp.expect("UDP").destination, 5555);
}

/// S-FWD-6: tags of the way in go, those of the way out stand around the outer header.
#[test]
fn tags_of_the_way_out_are_outside() {
    let tags = [Tag::dot1ad(100), Tag::dot1q(0x2007)];
    for forwarding in TUNNELS {
        for (backend4, backend6, packet) in families() {
            let mut testbed = testbed(forwarding, backend4, backend6, 0);
            let (service, listen, backend) = match packet.source().is_ipv4() {
                true => (WEB, LISTEN, backend4),
                false => (WEB6, LISTEN6, backend6),
            };
            let index = index_of(&packet);
            for outgoing in 0..=2 {
                testbed.write_backend(service, listen, index, backend, |record| {
                    record.forwarding = forwarding;
                    record.next_hop = Some(next_hop(index, 1, &tags[..outgoing]));
                });
                for incoming in 0..=2 {
                    let packet = packet.clone().tags(&tags[..incoming]).payload(b"data");
                    let outer = encapsulated(&mut testbed, &packet);
                    assert_eq!(outer.link.tags, tags[..outgoing]);
                    assert_eq!(outer.inner, inside(&packet));
                }
            }
        }
    }
}

/// A frame without room in front is refused, not damaged.
#[test]
fn no_headroom_for_outer_headers_is_a_reason() {
    for forwarding in TUNNELS {
        let mut testbed = testbed(forwarding, OUTER6, OUTER6, 0);
        let frame = Packet::request().build();
        let before = testbed.reason(WEB, Reason::NoHeadroom);
        let outcome = testbed.run_without_headroom(&frame);
        assert_eq!(outcome.verdict, Verdict::Drop);
        assert_eq!(testbed.reason(WEB, Reason::NoHeadroom), before + 1);
    }
}

/// S-NAT-2, S-NAT-7 where one direction is seen: the ACK after the SYN establishes, FIN and RST
/// close, a SYN then begins anew.
#[test]
fn the_life_of_a_connection_of_which_one_direction_is_seen() {
    for forwarding in ONE_WAY {
        let mut testbed = testbed(forwarding, OUTER4, OUTER6, 0);
        let packets = [
            (Packet::request(), WEB, CLIENT),
            (Packet::request6(), WEB6, CLIENT6),
        ];
        for (packet, service, client) in packets {
            for (flags, state) in [
                (flags::SYN, "SYN_SENT"),
                (flags::SYN, "SYN_SENT"),
                (flags::ACK, "ESTABLISHED"),
                (flags::ACK | flags::PSH, "ESTABLISHED"),
                (flags::SYN, "ESTABLISHED"),
                (flags::RST, "RESET"),
                (flags::ACK, "ESTABLISHED"),
                (flags::ACK | flags::FIN, "FIN_WAIT"),
                (flags::ACK, "FIN_WAIT"),
                (flags::SYN, "SYN_SENT"),
                (flags::ACK, "ESTABLISHED"),
                (flags::RST | flags::ACK, "RESET"),
                (flags::SYN, "SYN_SENT"),
            ] {
                let outcome = testbed.run(&packet.clone().flags(flags).build());
                assert_eq!(outcome.verdict, Verdict::Transmit);
                let now = testbed.state(service, address(client));
                assert_eq!(now, Some(state), "{forwarding}, flags {flags:#04x}");
            }
            assert_eq!(
                testbed
                    .backend_counters(lb_userspace::model::BackendIndex(index_of(&packet)))
                    .connections,
                3
            );
        }
    }
}

/// What comes from the backend is not the balancer's: it has the service's own address.
#[test]
fn replies_of_one_way_services_pass() {
    for forwarding in ONE_WAY {
        let mut testbed = testbed(forwarding, OUTER4, OUTER6, 0);
        let syn = Packet::request().flags(flags::SYN);
        assert_eq!(testbed.run(&syn.build()).verdict, Verdict::Transmit);
        let direct = Packet::new(address(LISTEN), address(CLIENT)).flags(flags::SYN_ACK);
        testbed.check("from the service", &direct.build(), &Expect::Pass);
        let own = Packet::new(address(OUTER4), address(CLIENT)).flags(flags::SYN_ACK);
        testbed.check("from the backend", &own.build(), &Expect::Pass);
    }
}

/// S-NAT-8: one backend may stand in services of several modes.
#[test]
fn a_backend_is_shared_between_modes() {
    let mut testbed = Testbed::new();
    testbed.add_service(WEB, LISTEN, &[(1, OUTER4)]);
    testbed.add_service_with(
        ServiceId(3),
        "192.0.2.11:80",
        &[(3, OUTER4)],
        Forwarding::Ipip,
        |_| {},
        |_| {},
    );
    let (client, server) = (address(CLIENT), address(OUTER4));
    assert_eq!(testbed.connect(client, address(LISTEN)), server);
    let tunnelled = Packet::new(client, address("192.0.2.11:80"));
    let outer = encapsulated(&mut testbed, &tunnelled);
    assert_eq!(outer.destination, server.ip());
    // The reply to the one is not taken for one to the other.
    assert_eq!(testbed.reply(server, client, flags::ACK), address(LISTEN));
}
