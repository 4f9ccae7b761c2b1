//! What the sender of a refused packet is told, to the last byte.

use lb_common::{reason::Reason, tcp::State};
use lb_tests::{
    bench::pin,
    packets::{
        CLIENT, CLIENT6, Expect, Extension, IcmpError, LISTEN, LISTEN6, Packet, SERVER, SERVER6,
        Tag, Testbed, Verdict, WEB, WEB6, address,
        flags::{ACK, CWR, ECE, FIN, PSH, RST, SYN, URG},
        let_ticks_pass, within_a_tick,
    },
};
use lb_userspace::model::{NoBackend, ServiceId};

/// Bytes of a packet that an error quotes at most.
const MAX_QUOTE: usize = 548;
const MAX_QUOTE6: usize = 1232;

/// Services without a backend that answer like this.
fn without_backends(answer: NoBackend) -> Testbed {
    let mut testbed = Testbed::with_model();
    for (service, listen) in [(WEB, LISTEN), (WEB6, LISTEN6)] {
        testbed.add_service(service, listen, &[]);
        testbed.write_service_with(service, listen, |record| record.no_backend = answer);
    }
    testbed
}

/// A request of each family, and whose it is.
fn requests() -> [(Packet, ServiceId, usize); 2] {
    [
        (Packet::request(), WEB, MAX_QUOTE),
        (Packet::request6(), WEB6, MAX_QUOTE6),
    ]
}

/// The packet in all sorts of frames.
fn variants(packet: &Packet) -> Vec<(&'static str, Packet)> {
    let with = |change: fn(Packet) -> Packet| change(packet.clone());
    let mut variants = vec![
        ("plain", packet.clone()),
        ("one tag", with(|p| p.tags(&[Tag::dot1q(0xe064)]))),
        (
            "two tags",
            with(|p| p.tags(&[Tag::dot1ad(7), Tag::dot1q(0x2fff)])),
        ),
        ("padded", with(|p| p.padding(6))),
        (
            "TCP options",
            with(|p| p.tcp(|tcp| tcp.options = vec![2, 4, 5, 0xb4, 1, 3, 3, 7, 4, 2, 1, 1])),
        ),
        (
            "as many TCP options as there can be",
            with(|p| p.tcp(|tcp| tcp.options = vec![1; 40])),
        ),
        (
            "urgent pointer, window and congestion flags",
            with(|p| {
                p.tcp(|tcp| {
                    (tcp.urgent, tcp.window) = (9, 1);
                    tcp.flags |= URG | ECE | CWR;
                })
            }),
        ),
        (
            "a wrong TCP checksum",
            with(|p| p.tcp(|tcp| tcp.checksum_error = 0x1234)),
        ),
        (
            "sequence numbers that wrap",
            with(|p| p.tcp(|tcp| (tcp.sequence, tcp.acknowledgement) = (u32::MAX, u32::MAX))),
        ),
        ("one byte", with(|p| p.payload(b"x"))),
        ("a full segment", with(|p| p.payload(&[0x5a; 1440]))),
    ];
    variants.extend(match packet.source().is_ipv4() {
        true => vec![
            (
                "IP options",
                with(|p| {
                    p.v4(|ip| ip.options = vec![1; 4])
                        .payload(b"behind options")
                }),
            ),
            (
                "as many IP options as there can be, behind a tag",
                with(|p| p.v4(|ip| ip.options = vec![1; 40]).tags(&[Tag::dot1q(1)])),
            ),
            (
                "DSCP, ECN and no DF",
                with(|p| p.v4(|ip| (ip.service_type, ip.fragment) = (0xbb, 0))),
            ),
        ],
        false => vec![
            (
                "an extension header",
                with(|p| p.v6(|ip| ip.extensions = vec![Extension::new(60, 0)])),
            ),
            (
                "three extension headers, behind a tag",
                with(|p| {
                    let kinds = [Extension::HOP_BY_HOP, Extension::ROUTING, 60];
                    p.v6(|ip| ip.extensions = kinds.map(|kind| Extension::new(kind, 2)).into())
                        .tags(&[Tag::dot1q(1)])
                        .payload(b"behind extensions")
                }),
            ),
            (
                "an atomic fragment",
                with(|p| p.v6(|ip| ip.extensions = vec![Extension::fragment(0, false)])),
            ),
            (
                "traffic class",
                with(|p| p.v6(|ip| ip.traffic_class = 0xbb)),
            ),
        ],
    });
    variants
}

/// S-CT-7: without a backend, a client gets the reset that a host without a listener would send.
#[test]
fn a_client_without_a_backend_gets_a_reset() {
    let mut testbed = without_backends(NoBackend::Rst);
    for (request, service, _) in requests() {
        for flags in [SYN, ACK, PSH | ACK, FIN | ACK, URG | ACK] {
            for (description, packet) in variants(&request.clone().flags(flags)) {
                let description = format!("{description}, flags {flags:#04x}");
                let expect = Expect::Answer(service, Reason::NoBackend, packet.reset());
                testbed.check(&description, &packet.build(), &expect);
            }
        }
    }
    assert_eq!(testbed.totals().used, 0);
}

/// RFC 9293 §3.10.7.1: "An incoming segment containing a RST is discarded."
#[test]
fn a_reset_gets_no_reset() {
    let mut testbed = without_backends(NoBackend::Rst);
    for (request, service, _) in requests() {
        for flags in [RST, RST | ACK, RST | FIN | ACK] {
            let expect = Expect::Drop(Some(service), Reason::NoBackend);
            let frame = request.clone().flags(flags).build();
            testbed.check("RST", &frame, &expect);
        }
    }
}

/// S-CT-7: silence is an answer that can be asked for.
#[test]
fn a_service_may_refuse_without_a_word() {
    let mut testbed = without_backends(NoBackend::Drop);
    for (request, service, _) in requests() {
        let expect = Expect::Drop(Some(service), Reason::NoBackend);
        for flags in [SYN, ACK] {
            let frame = request.clone().flags(flags).build();
            testbed.check("no answer", &frame, &expect);
        }
    }
}

/// S-CT-7: so is "port unreachable", which quotes the packet as it came.
#[test]
fn a_service_may_refuse_with_port_unreachable() {
    let mut testbed = without_backends(NoBackend::Icmp);
    for (request, service, max_quote) in requests() {
        for (description, packet) in variants(&request.flags(SYN)) {
            let answer = packet.icmp_error(IcmpError::PortUnreachable, max_quote);
            let expect = Expect::Answer(service, Reason::NoBackend, answer);
            testbed.check(description, &packet.build(), &expect);
        }
    }
}

/// S-ICMP-6: nobody is answered whose address is not a single host's.
#[test]
fn an_address_of_no_host_is_not_answered() {
    for answer in [NoBackend::Rst, NoBackend::Icmp] {
        let mut testbed = without_backends(answer);
        let sources = [
            "0.0.0.0:9",
            "0.1.2.3:9",
            "127.0.0.1:9",
            "224.0.0.1:9",
            "239.255.255.250:9",
            "255.255.255.255:9",
        ];
        for source in sources {
            let packet = Packet::request().flags(SYN).from(address(source));
            let expect = Expect::Drop(Some(WEB), Reason::NoBackend);
            testbed.check(source, &packet.build(), &expect);
        }
        for source in ["[::]:9", "[::1]:9", "[ff02::1]:9"] {
            let packet = Packet::request6().flags(SYN).from(address(source));
            let expect = Expect::Drop(Some(WEB6), Reason::NoBackend);
            testbed.check(source, &packet.build(), &expect);
        }
        for source in ["1.0.0.1:9", "126.0.0.1:9", "223.255.255.254:9"] {
            let frame = Packet::request().flags(SYN).from(address(source)).build();
            assert_eq!(testbed.run(&frame).verdict, Verdict::Transmit, "{source}");
        }
        for source in ["[::2]:9", "[0:0:0:1::1]:9", "[fe80::1]:9"] {
            let frame = Packet::request6().flags(SYN).from(address(source)).build();
            assert_eq!(testbed.run(&frame).verdict, Verdict::Transmit, "{source}");
        }
    }
}

/// S-ICMP-5: a packet larger than what reaches the backend is answered with the size that does.
#[test]
fn a_packet_that_does_not_fit_is_too_big() {
    const MAX_PACKET: u16 = 1400;
    let mut testbed = Testbed::with_one_backend_each();
    let limit = |testbed: &mut Testbed, max_packet| {
        testbed.write_backend(WEB, LISTEN, 1, SERVER, |b| b.max_packet = max_packet);
        testbed.write_backend(WEB6, LISTEN6, 2, SERVER6, |b| b.max_packet = max_packet);
    };
    limit(&mut testbed, MAX_PACKET);
    for (request, service, max_quote) in requests() {
        // A SYN with data (RFC 7413) is quoted with the MSS that it came with, too.
        for flags in [SYN, ACK] {
            for (description, packet) in variants(&request.clone().flags(flags)) {
                let packet = packet.payload(&[]);
                let fits = usize::from(MAX_PACKET) - packet.ip_length();
                let packet = packet.payload(&vec![0xc3; fits]);
                let outcome = testbed.run(&packet.build());
                assert_eq!(outcome.verdict, Verdict::Transmit, "{description}");
                for more in [1, 2, 3, 4, 100] {
                    let packet = packet.clone().payload(&vec![0xc3; fits + more]);
                    let answer = packet.icmp_error(IcmpError::TooBig(MAX_PACKET), max_quote);
                    let expect = Expect::Answer(service, Reason::TooBig, answer);
                    testbed.check(description, &packet.build(), &expect);
                }
            }
        }
    }
    for max_packet in [68, 1280, 9000, u16::MAX] {
        limit(&mut testbed, max_packet);
        for (request, service, max_quote) in requests() {
            let size = usize::from(max_packet).min(3000) + 1;
            let packet = request.payload(&vec![1; size - 40]);
            let expect = match max_packet {
                68 | 1280 => {
                    let answer = packet.icmp_error(IcmpError::TooBig(max_packet), max_quote);
                    Expect::Answer(service, Reason::TooBig, answer)
                }
                _ => {
                    assert_eq!(testbed.run(&packet.build()).verdict, Verdict::Transmit);
                    continue;
                }
            };
            testbed.check("another size", &packet.build(), &expect);
        }
    }
}

/// S-ICMP-6: a CPU sends a thousand errors a tick and no more; the rest is counted.
#[test]
fn icmp_errors_are_rate_limited() {
    const LIMIT: usize = 1000;
    let mut testbed = without_backends(NoBackend::Icmp);
    let frame = Packet::request().flags(SYN).build();
    // Rates are a CPU's, and test runs happen on that of the thread which asks for them.
    pin().expect("a thread may be pinned");
    let (before, verdicts) = within_a_tick(|| {
        let before = testbed.reasons();
        let verdicts = (0..LIMIT + 5).map(|_| testbed.run(&frame).verdict);
        (before, verdicts.collect::<Vec<_>>())
    });
    let (sent, limited) = verdicts.split_at(LIMIT);
    assert!(sent.iter().all(|verdict| *verdict == Verdict::Transmit));
    assert!(limited.iter().all(|verdict| *verdict == Verdict::Drop));
    let after = testbed.reasons();
    for (reason, count) in [
        (Reason::NoBackend, LIMIT as u64 + 5),
        (Reason::IcmpSent, LIMIT as u64),
        (Reason::IcmpLimited, 5),
    ] {
        let key = (Some(WEB), reason.name());
        let old = before.get(&key).copied().unwrap_or(0);
        assert_eq!(after.get(&key), Some(&(old + count)), "{reason:?}");
    }
    let_ticks_pass(1);
    assert_eq!(testbed.run(&frame).verdict, Verdict::Transmit);
    // Resets are not limited: they are no larger than what they answer.
    testbed.write_service_with(WEB, LISTEN, |record| record.no_backend = NoBackend::Rst);
    for _ in 0..2 * LIMIT {
        assert_eq!(testbed.run(&frame).verdict, Verdict::Transmit);
    }
}

/// What cannot be built is not sent, and is a refusal like any other.
#[test]
fn without_headroom_there_is_no_icmp_error() {
    let mut testbed = without_backends(NoBackend::Icmp);
    let packet = Packet::request().flags(SYN);
    let expect = Expect::Drop(Some(WEB), Reason::NoBackend);
    let before = testbed.reasons();
    let outcome = testbed.run_without_headroom(&packet.build());
    testbed.compare("no headroom", &[], &expect, &before, outcome);
    // A reset needs none.
    testbed.write_service_with(WEB, LISTEN, |record| record.no_backend = NoBackend::Rst);
    let expect = Expect::Answer(WEB, Reason::NoBackend, packet.reset());
    let before = testbed.reasons();
    let outcome = testbed.run_without_headroom(&packet.build());
    testbed.compare("no headroom", &[], &expect, &before, outcome);
}

/// A jumbo frame lies in several buffers, of which an answer has one.
#[test]
fn frames_of_several_buffers_are_answered() {
    for (answer, linear) in [(NoBackend::Rst, 200), (NoBackend::Icmp, 2000)] {
        let mut testbed = without_backends(answer);
        for (request, service, max_quote) in requests() {
            let packet = request.flags(ACK).payload(&[0x77; 8000]);
            let answer = match answer {
                NoBackend::Rst => packet.reset(),
                _ => packet.icmp_error(IcmpError::PortUnreachable, max_quote),
            };
            let before = testbed.reasons();
            let outcome = testbed.run_split(&packet.build(), linear);
            let expect = Expect::Answer(service, Reason::NoBackend, answer);
            testbed.compare("jumbo frame", &[], &expect, &before, outcome);
        }
    }
}

/// A quote ends with the first buffer.
#[test]
fn a_quote_ends_with_the_first_buffer() {
    let mut testbed = without_backends(NoBackend::Icmp);
    for (request, service, _) in requests() {
        let packet = request.flags(ACK).payload(&[0x77; 8000]);
        let answer = packet.icmp_error(IcmpError::PortUnreachable, 400 - 14);
        let before = testbed.reasons();
        let outcome = testbed.run_split(&packet.build(), 400);
        let expect = Expect::Answer(service, Reason::NoBackend, answer);
        testbed.compare("jumbo frame", &[], &expect, &before, outcome);
    }
}

/// S-CT-6: both ends of a connection that the balancer has ended are told so when they go on, and
/// a SYN begins a new one.
#[test]
fn both_ends_of_an_ended_connection_get_a_reset() {
    let mut testbed = Testbed::with_one_backend_each();
    for (service, client, listen, server) in [
        (WEB, CLIENT, LISTEN, SERVER),
        (WEB6, CLIENT6, LISTEN6, SERVER6),
    ] {
        let [client, listen, server] = [client, listen, server].map(address);
        testbed.connect(client, listen);
        testbed.set_state_of_all(State::ENDED);
        for (from, to) in [(client, listen), (server, client)] {
            for (description, packet) in variants(&Packet::new(from, to).flags(PSH | ACK)) {
                let expect = Expect::Answer(service, Reason::Ended, packet.reset());
                testbed.check(description, &packet.build(), &expect);
            }
            for flags in [RST, RST | ACK] {
                let frame = Packet::new(from, to).flags(flags).build();
                let expect = Expect::Drop(Some(service), Reason::Ended);
                testbed.check("RST", &frame, &expect);
            }
            let broken = Packet::new(from, to).tcp(|tcp| tcp.data_offset = Some(4));
            let expect = Expect::Drop(Some(service), Reason::MalformedTcp);
            testbed.check("malformed", &broken.build(), &expect);
        }
        assert_eq!(testbed.state(service, client), Some("ENDED"));
        assert_eq!(testbed.connect(client, listen), server);
        assert_eq!(testbed.state(service, client), Some("ESTABLISHED"));
    }
}
