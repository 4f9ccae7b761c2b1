//! What is rewritten, and that nothing else is: every expected frame is built anew, with its
//! checksums computed in full.

use lb_common::reason::Reason;
use lb_tests::packets::{Expect, Extension, Packet, Tag, Testbed, Verdict, flags, next_hop};

use super::SCENES;

/// A change that a packet of either family may undergo.
type Change = fn(Packet) -> Packet;

/// Packets of a connection, whichever side sends them.
const CHANGES: [(&str, Change); 12] = [
    ("bare ACK", |packet| packet),
    ("even payload", |packet| packet.payload(b"four")),
    ("odd payload", |packet| packet.payload(b"seven..")),
    ("full payload", |packet| packet.payload(&[0x5a; 1400])),
    ("all bytes ones", |packet| packet.payload(&[0xff; 64])),
    ("most TCP options", |packet| {
        packet.tcp(|tcp| tcp.options = vec![1; 40])
    }),
    ("highest TTL", |packet| packet.hops(255)),
    ("lowest TTL that goes on", |packet| packet.hops(2)),
    ("padding", |packet| packet.padding(6)),
    ("a jumbo frame", |packet| packet.payload(&[0x77; 8900])),
    ("a wrong TCP checksum stays wrong", |packet| {
        packet
            .payload(b"broken")
            .tcp(|tcp| tcp.checksum_error = 0x8000)
    }),
    ("options in front of TCP", |packet| {
        match packet.source().is_ipv4() {
            true => packet.v4(|ip| ip.options = vec![7, 7, 4, 0, 0, 0, 0, 0]),
            false => packet
                .v6(|ip| ip.extensions = vec![Extension::new(Extension::DESTINATION_OPTIONS, 1)]),
        }
    }),
];

/// S-NAT-1, S-FWD-3: both directions: addresses, ports, hops, checksums.
#[test]
fn both_ends_are_rewritten_in_both_directions() {
    let mut testbed = Testbed::with_full_nat();
    for scene in SCENES {
        let source = scene.open(&mut testbed);
        for (description, change) in CHANGES {
            let request = change(scene.request());
            let expected = scene.at_backend(&request, source).build();
            testbed.check(description, &request.build(), &Expect::Transmit(expected));
            let reply = change(scene.reply(source));
            let expected = scene.at_client(&reply).build();
            testbed.check(description, &reply.build(), &Expect::Transmit(expected));
        }
    }
}

/// S-FWD-3: the corner cases of ones' complement, with another port each time.
#[test]
fn checksums_agree_all_around_zero() {
    let mut testbed = Testbed::with_full_nat();
    for scene in SCENES {
        for n in 0..1500_u16 {
            let client = (scene.clients)(n.into());
            let word = |packet: Packet| {
                packet
                    .payload(&n.wrapping_mul(22).to_be_bytes())
                    .tcp(|tcp| tcp.window = n.wrapping_mul(3))
            };
            let request = word(scene.request().from(client).flags(flags::SYN));
            let outcome = testbed.run(&request.build());
            assert_eq!(outcome.verdict, Verdict::Transmit);
            // Somebody else is to have read the port.
            let source = testbed.forward(&request).source;
            let expected = scene.at_backend(&request, source).build();
            assert!(outcome.frame == expected, "{n}");
            let reply = word(scene.reply(source).flags(flags::SYN_ACK));
            let outcome = testbed.run(&reply.build());
            let expected = scene.at_client(&reply).to(client).build();
            assert!(outcome.frame == expected, "{n}");
        }
    }
}

/// S-FWD-6: every stack in, every stack out.
#[test]
fn tags_are_rewritten_to_the_way_out() {
    let stacks: [&[Tag]; 3] = [
        &[],
        &[Tag::dot1q(0x6005)],
        &[Tag::dot1ad(0x2007), Tag::dot1q(0xe009)],
    ];
    let mut testbed = Testbed::with_full_nat();
    for scene in SCENES {
        let (index, server) = scene.backend;
        for outgoing in stacks {
            testbed.write_backend(scene.service, scene.listen, index, server, |backend| {
                backend.forwarding = lb_userspace::model::Forwarding::FullNat;
                backend.next_hop = Some(next_hop(index, 1, outgoing));
            });
            for (n, incoming) in (0..).zip(stacks) {
                let client = (scene.clients)(n);
                let syn = scene.request().from(client).tags(incoming);
                let syn = syn.flags(flags::SYN).padding(3);
                let source = testbed.forward(&syn).source;
                let expected = scene.at_backend(&syn, source).tags(outgoing).build();
                testbed.check("SYN", &syn.build(), &Expect::Transmit(expected));
                let reply = scene.reply(source).tags(outgoing).flags(flags::SYN_ACK);
                let expected = scene.at_client(&reply).to(client).tags(incoming).build();
                testbed.check("SYN-ACK", &reply.build(), &Expect::Transmit(expected));
            }
        }
    }
}

/// S-FWD-1, S-FWD-2: what a TCP or a router would refuse is refused in both directions, for the
/// service.
#[test]
fn what_cannot_be_forwarded_is_refused() {
    let mut testbed = Testbed::with_full_nat();
    for scene in SCENES {
        let source = scene.open(&mut testbed);
        let expect = |reason| Expect::Drop(Some(scene.service), reason);
        for packet in [scene.request(), scene.reply(source)] {
            let frame = packet.clone().hops(1).build();
            testbed.check("last hop", &frame, &expect(Reason::TtlExpired));
            let flags = flags::ACK | flags::SYN | flags::FIN;
            let frame = packet.clone().flags(flags).build();
            testbed.check("flags", &frame, &expect(Reason::ImpossibleFlags));
            let frame = packet.tcp(|tcp| tcp.data_offset = Some(4)).build();
            testbed.check("offset", &frame, &expect(Reason::MalformedTcp));
        }
        let state = testbed.state(scene.service, scene.client());
        assert_eq!(state, Some("ESTABLISHED"));
    }
}

/// S-ICMP-5: the MSS of both sides' SYNs, wherever the option stands.
#[test]
fn the_mss_is_clamped_in_both_directions() {
    const MAX_PACKET: u16 = 1400;
    let mut testbed = Testbed::with_full_nat();
    for scene in SCENES {
        let (index, server) = scene.backend;
        testbed.write_backend(scene.service, scene.listen, index, server, |backend| {
            backend.forwarding = lb_userspace::model::Forwarding::FullNat;
            backend.max_packet = MAX_PACKET;
        });
        let headers = if scene.client().is_ipv4() { 40 } else { 60 };
        let [high, low] = (MAX_PACKET - headers).to_be_bytes();
        for (before, after) in [
            (vec![2, 4, 5, 0xb4], vec![2, 4, high, low]),
            (
                vec![1, 2, 4, 5, 0xb4, 1, 1, 1],
                vec![1, 2, 4, high, low, 1, 1, 1],
            ),
            (vec![2, 4, 2, 0], vec![2, 4, 2, 0]),
        ] {
            let with = |packet: Packet, options: &Vec<u8>| {
                packet.tcp(|tcp| tcp.options.clone_from(options))
            };
            let syn = scene.request().flags(flags::SYN);
            let source = testbed.forward(&syn).source;
            let expected = scene.at_backend(&with(syn.clone(), &after), source);
            let expected = Expect::Transmit(expected.build());
            testbed.check("SYN", &with(syn, &before).build(), &expected);
            let reply = scene.reply(source).flags(flags::SYN_ACK);
            let expected = scene.at_client(&with(reply.clone(), &after));
            let expected = Expect::Transmit(expected.build());
            testbed.check("SYN-ACK", &with(reply, &before).build(), &expected);
        }
    }
}
