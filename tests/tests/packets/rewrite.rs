//! What is rewritten in a packet that is sent on, and that nothing else is: every expected frame
//! is built anew, with its checksums computed in full (S-FWD-3).

use lb_tests::packets::{
    BALANCER, CLIENT, CLIENT6, Expect, Extension, GATEWAY, LISTEN, LISTEN6, Link, Packet, SERVER,
    SERVER6, Tag, Testbed, Verdict, address, client, client6, flags,
};

/// A client's packet that opens a connection or belongs to one, and what the backend gets.
struct Case {
    description: &'static str,
    packet: Packet,
}

fn case(description: &'static str, packet: Packet) -> Case {
    Case {
        description,
        packet,
    }
}

/// Both families' requests with `change` applied.
fn both(description: &'static str, change: impl Fn(Packet) -> Packet) -> [Case; 2] {
    [
        case(description, change(Packet::request())),
        case(description, change(Packet::request6())),
    ]
}

fn is_v6(packet: &Packet) -> bool {
    packet.source().is_ipv6()
}

/// How the packet is to reach its service's only backend.
fn at_backend(packet: &Packet) -> Packet {
    match is_v6(packet) {
        false => packet.clone().at_backend(1, SERVER),
        true => packet.clone().at_backend(2, SERVER6),
    }
}

/// The same description as a reply: from the backend, with other Ethernet addresses.
fn as_reply(packet: &Packet) -> Packet {
    let (server, client) = match is_v6(packet) {
        false => (SERVER, CLIENT),
        true => (SERVER6, CLIENT6),
    };
    let link = Link {
        to: BALANCER,
        from: [2, 0, 0, 1, 0, 1],
        tags: Vec::new(),
    };
    let reply = packet.clone().link(link);
    match is_v6(&reply) {
        false => reply.v4(|ip| (ip.source, ip.destination) = (ip.destination, ip.source)),
        true => reply.v6(|ip| (ip.source, ip.destination) = (ip.destination, ip.source)),
    }
    .from(address(server))
    .to(address(client))
}

/// How that reply is to reach the client: by the way its requests come.
fn at_client(packet: &Packet) -> Packet {
    let listen = if is_v6(packet) { LISTEN6 } else { LISTEN };
    let link = Link {
        to: GATEWAY,
        from: BALANCER,
        tags: Vec::new(),
    };
    as_reply(packet).forwarded(link).from(address(listen))
}

fn cases() -> Vec<Case> {
    let ack = |packet: Packet| packet.flags(flags::ACK | flags::PSH);
    let mut cases = Vec::new();
    cases.extend(both("SYN with options", |packet| {
        packet.flags(flags::SYN).tcp(|tcp| {
            tcp.options = vec![
                2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7,
            ];
        })
    }));
    cases.extend(both("bare ACK", |packet| packet));
    cases.extend(both("even payload", |packet| ack(packet).payload(b"four")));
    cases.extend(both("odd payload", |packet| {
        ack(packet).payload(b"seven..")
    }));
    cases.extend(both("full payload", |packet| {
        ack(packet).payload(&[0x5a; 1400])
    }));
    cases.extend(both("all bytes ones", |packet| {
        ack(packet).payload(&[0xff; 64])
    }));
    cases.extend(both("most TCP options", |packet| {
        ack(packet).tcp(|tcp| tcp.options = vec![1; 40])
    }));
    cases.extend(both("urgent data", |packet| {
        packet
            .flags(flags::ACK | flags::URG)
            .payload(b"!")
            .tcp(|tcp| tcp.urgent = 1)
    }));
    cases.extend(both("ECN in TCP", |packet| {
        packet.flags(flags::SYN | flags::ECE | flags::CWR)
    }));
    cases.extend(both("highest TTL", |packet| packet.hops(255)));
    cases.extend(both("lowest TTL that goes on", |packet| packet.hops(2)));
    cases.extend(both("wrong TCP checksum stays wrong", |packet| {
        ack(packet)
            .payload(b"broken")
            .tcp(|tcp| tcp.checksum_error = 1)
    }));
    cases.extend(both("TCP checksum wrong in its high byte", |packet| {
        ack(packet).tcp(|tcp| tcp.checksum_error = 0x8000)
    }));
    // S-FWD-1: lengths come from the IP header.
    cases.extend(both("Ethernet padding", |packet| packet.padding(6)));
    cases.extend(both("much behind the packet", |packet| packet.padding(400)));
    let v4 = Packet::request;
    cases.extend([
        // S-FWD-8
        case("DSCP and ECN", v4().v4(|ip| ip.service_type = 0xb8 | 0x03)),
        case("no DF", v4().v4(|ip| ip.fragment = 0)),
        case("reserved flag", v4().v4(|ip| ip.fragment = 0xc000)),
        case("identification 0", v4().v4(|ip| ip.identification = 0)),
        // S-FWD-4
        case(
            "IP options",
            ack(v4()).payload(b"data").v4(|ip| {
                ip.options = vec![7, 7, 4, 0, 0, 0, 0, 0];
            }),
        ),
        case(
            "router alert",
            v4().v4(|ip| ip.options = vec![0x94, 4, 0, 0]),
        ),
        case("most IP options", v4().v4(|ip| ip.options = vec![1; 40])),
        case(
            "most options of both kinds",
            ack(v4())
                .v4(|ip| ip.options = vec![1; 40])
                .tcp(|tcp| tcp.options = vec![1; 40])
                .payload(b"data"),
        ),
        case(
            "options that look like ports",
            v4().v4(|ip| {
                ip.options = vec![0x00, 0x50, 0x00, 0x50];
            }),
        ),
    ]);
    let v6 = |extensions: Vec<Extension>| {
        ack(Packet::request6())
            .payload(b"data")
            .v6(|ip| ip.extensions = extensions)
    };
    let options = |units| Extension::new(Extension::DESTINATION_OPTIONS, units);
    cases.extend([
        case(
            "traffic class",
            Packet::request6().v6(|ip| ip.traffic_class = 0xbb),
        ),
        case(
            "flow label",
            Packet::request6().v6(|ip| ip.flow_label = 0xf_ffff),
        ),
        case(
            "hop-by-hop options",
            v6(vec![Extension::new(Extension::HOP_BY_HOP, 0)]),
        ),
        case("destination options of 64 bytes", v6(vec![options(7)])),
        case(
            "all kinds",
            v6(vec![
                Extension::new(Extension::HOP_BY_HOP, 1),
                options(0),
                Extension::new(Extension::ROUTING, 2),
                Extension::fragment(0, false),
                options(3),
            ]),
        ),
        case("six, the most that are read", v6(vec![options(0); 6])),
        // S-FWD-5: RFC 6946
        case("atomic fragment", v6(vec![Extension::fragment(0, false)])),
    ]);
    cases
}

/// S-FWD-3, S-FWD-4, S-FWD-8, S-NAT-1: towards the backend.
#[test]
fn requests_are_rewritten() {
    let mut testbed = Testbed::with_one_backend_each();
    for Case {
        description,
        packet,
    } in cases()
    {
        let expected = Expect::Transmit(at_backend(&packet).build());
        testbed.check(description, &packet.build(), &expected);
    }
}

/// S-FWD-3, S-FWD-4, S-FWD-8, S-NAT-1: towards the client.
#[test]
fn replies_are_rewritten_back() {
    let mut testbed = Testbed::with_one_backend_each();
    testbed.run(&Packet::request().flags(flags::SYN).build());
    testbed.run(&Packet::request6().flags(flags::SYN).build());
    for Case {
        description,
        packet,
    } in cases()
    {
        let expected = Expect::Transmit(at_client(&packet).build());
        testbed.check(description, &as_reply(&packet).build(), &expected);
    }
}

/// S-FWD-3: the corner cases of ones' complement: checksums of 0x0000, 0xFFFE and their
/// neighbours, before and after.
#[test]
fn checksums_agree_all_around_zero() {
    let mut testbed = Testbed::with_one_backend_each();
    for n in 0..3000 {
        let word = |packet: Packet| {
            packet
                .payload(&(n as u16).wrapping_mul(22).to_be_bytes())
                .tcp(|tcp| tcp.window = (n as u16).wrapping_mul(3))
        };
        let v4 = word(Packet::request()).v4(|ip| ip.identification = (n as u16).wrapping_mul(21));
        for packet in [v4, word(Packet::request6())] {
            let outcome = testbed.run(&packet.build());
            assert_eq!(outcome.verdict, Verdict::Transmit);
            assert!(outcome.frame == at_backend(&packet).build(), "{n}");
        }
    }
}

/// S-FWD-3: each checksum value is reached by choosing the payload; the two that ones' complement
/// confuses are aimed at.
#[test]
fn checksums_that_are_about_to_become_zero() {
    let mut testbed = Testbed::with_one_backend_each();
    for (packet, transport) in [(Packet::request(), 14 + 20), (Packet::request6(), 14 + 40)] {
        let check_at =
            |frame: &[u8]| u16::from_be_bytes([frame[transport + 16], frame[transport + 17]]);
        // With a payload of one word, adding to the word takes from the checksum.
        let after = check_at(&at_backend(&packet.clone().payload(&[0, 0])).build());
        for wanted in [0x0000, 0x0001, 0x0002, 0xfffd, 0xfffe, 0xff00, 0x00ff] {
            let sum = u32::from(after) + u32::from(!wanted);
            let word = ((sum & 0xffff) + (sum >> 16)) as u16;
            let packet = packet.clone().payload(&word.to_be_bytes());
            let expected = at_backend(&packet).build();
            let reached = check_at(&expected);
            assert_eq!(
                reached % 0xffff,
                wanted % 0xffff,
                "the test reaches its aim"
            );
            testbed.check(
                "checksum aimed at",
                &packet.build(),
                &Expect::Transmit(expected),
            );
        }
    }
}

/// A packet that spans several buffers: headers from the first, lengths over all of them.
#[test]
fn frames_in_several_buffers_are_forwarded() {
    let mut testbed = Testbed::with_one_backend_each();
    for packet in [Packet::request(), Packet::request6()] {
        let packet = packet.payload(&[0x77; 8900]);
        let expected = Expect::Transmit(at_backend(&packet).build());
        testbed.check("jumbo frame", &packet.build(), &expected);
    }
    let packet = Packet::request().payload(&[0x77; 200]);
    let before = testbed.reasons();
    let outcome = testbed.run_split(&packet.build(), 64);
    let expected = Expect::Transmit(at_backend(&packet).build());
    testbed.compare(
        "headers only in the first",
        &packet.build(),
        &expected,
        &before,
        outcome,
    );
}

/// S-NAT-1: replies find their client by the whole tuple, whatever the way of the request was.
#[test]
fn replies_go_back_the_way_the_requests_came() {
    let mut testbed = Testbed::with_one_backend_each();
    let ways: [&[Tag]; 4] = [
        &[],
        &[Tag::dot1q(0x6005)],
        &[Tag::dot1ad(12)],
        &[Tag::dot1ad(0x0fff), Tag::dot1q(0xe001)],
    ];
    for (n, tags) in (0..).zip(ways) {
        for (client, listen, server) in
            [(client(n), LISTEN, SERVER), (client6(n), LISTEN6, SERVER6)]
        {
            let arrival = Link {
                to: [2, 0xbb, 0, 0, 0, n as u8],
                from: [2, 0xaa, 0, 0, 0, n as u8],
                tags: tags.to_vec(),
            };
            let way_back = Link {
                to: arrival.from,
                from: arrival.to,
                tags: tags.to_vec(),
            };
            let request = Packet::new(client, address(listen)).flags(flags::SYN);
            let outcome = testbed.run(&request.link(arrival).build());
            assert_eq!(outcome.verdict, Verdict::Transmit, "{tags:?}");
            let reply = Packet::new(address(server), client).flags(flags::SYN_ACK);
            let expected = reply.clone().forwarded(way_back).from(address(listen));
            testbed.check("reply", &reply.build(), &Expect::Transmit(expected.build()));
        }
    }
}

/// A client that moves behind another router, or to another VLAN, is followed there.
#[test]
fn the_way_back_follows_the_client() {
    let mut testbed = Testbed::with_one_backend_each();
    testbed.connect(address(CLIENT), address(LISTEN));
    let moved = Link {
        to: BALANCER,
        from: [2, 0, 0, 0, 0, 99],
        tags: vec![Tag::dot1q(42)],
    };
    let way_back = Link {
        to: moved.from,
        from: moved.to,
        tags: moved.tags.clone(),
    };
    // The record is brought up to date whenever its state changes, and once a tick.
    let fin = Packet::request().flags(flags::FIN | flags::ACK).link(moved);
    assert_eq!(testbed.run(&fin.build()).verdict, Verdict::Transmit);
    let reply = Packet::new(address(SERVER), address(CLIENT));
    let expected = reply.clone().forwarded(way_back).from(address(LISTEN));
    testbed.check("reply", &reply.build(), &Expect::Transmit(expected.build()));
}
