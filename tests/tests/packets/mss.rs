//! The MSS of SYNs, and packets that are larger than what reaches a backend (S-ICMP-5).

use lb_common::reason::Reason;
use lb_tests::packets::{
    BALANCER, CLIENT, CLIENT6, Expect, GATEWAY, IcmpError, LISTEN, LISTEN6, Link, Outer, Packet,
    SERVER, SERVER6, Testbed, Verdict, WEB, WEB6, address, flags,
};
use lb_userspace::model::Forwarding;

/// Bytes that reach the backends.
const MAX_PACKET: u16 = 1400;
const LIMIT4: [u8; 2] = (MAX_PACKET - 40).to_be_bytes();
const LIMIT6: [u8; 2] = (MAX_PACKET - 60).to_be_bytes();

const OUTER4: &str = "10.0.0.1:80";

fn testbed(forwarding: Forwarding) -> Testbed {
    let mut testbed = Testbed::new();
    let servers = match forwarding {
        Forwarding::Nat => [SERVER, SERVER6],
        Forwarding::Dsr => [OUTER4, "[fd00::1]:80"],
        _ => [OUTER4, OUTER4],
    };
    for (service, listen, backend) in [
        (WEB, LISTEN, (1, servers[0])),
        (WEB6, LISTEN6, (2, servers[1])),
    ] {
        testbed.add_service_with(
            service,
            listen,
            &[backend],
            forwarding,
            |_| {},
            |record| record.max_packet = MAX_PACKET,
        );
    }
    testbed
}

/// Options, and which bytes of them are the MSS that is to be clamped.
fn options() -> Vec<(&'static str, Vec<u8>, Option<usize>)> {
    const MSS: [u8; 4] = [2, 4, 0x05, 0xb4];
    let with = |before: &[u8], behind: &[u8]| [before, &MSS, behind].concat();
    let timestamp = [8, 10, 1, 2, 3, 4, 0, 0, 0, 0];
    let unknown = |length: u8| [vec![77, length], vec![0xaa; usize::from(length) - 2]].concat();
    vec![
        ("MSS alone", with(&[], &[]), Some(2)),
        ("MSS first", with(&[], &[4, 2, 1, 3, 3, 7]), Some(2)),
        ("MSS after one byte", with(&[1], &[1, 1, 1]), Some(3)),
        ("MSS after three bytes", with(&[1, 1, 1], &[1]), Some(5)),
        ("MSS after a timestamp", with(&timestamp, &[1, 1]), Some(12)),
        ("MSS last", with(&[1; 36], &[]), Some(38)),
        (
            "MSS at an odd place behind much",
            with(&unknown(35), &[1]),
            Some(37),
        ),
        ("the first MSS counts", with(&[], &MSS), Some(2)),
        ("the largest MSS", vec![2, 4, 0xff, 0xff], Some(2)),
        (
            "one more than the limit",
            [&[2, 4], &LIMIT4[..]].concat(),
            None,
        ),
        ("a small MSS", vec![2, 4, 0x02, 0x18], None),
        ("no options", vec![], None),
        ("no MSS", vec![4, 2, 1, 1], None),
        ("an end before it", with(&[1, 0], &[0, 0]), None),
        (
            "an option without length before it",
            with(&[77, 0], &[1, 1]),
            None,
        ),
        (
            "an option of one byte before it",
            with(&[77, 1], &[1, 1]),
            None,
        ),
        (
            "an option that ends behind the header",
            with(&[77, 40], &[1, 1]),
            None,
        ),
        ("an MSS of three bytes", vec![2, 3, 0xff, 1], None),
        (
            "an MSS of five bytes",
            vec![2, 5, 0xff, 0xff, 0xff, 1, 1, 1],
            None,
        ),
        (
            "an MSS that is cut off",
            [&[1; 6][..], &[2, 4]].concat(),
            None,
        ),
    ]
}

/// The packet as it is and as it is to become.
fn cases(packet: &Packet) -> Vec<(&'static str, Packet, Packet)> {
    let limit = if packet.source().is_ipv4() {
        LIMIT4
    } else {
        LIMIT6
    };
    let cases = options().into_iter().map(|(description, options, at)| {
        let before = packet.clone().tcp(|tcp| tcp.options = options);
        let after = before.clone().tcp(|tcp| {
            // IPv6's limit is the lower one.
            let at = at.or_else(|| {
                (description == "one more than the limit" && limit == LIMIT6).then_some(2)
            });
            if let Some(at) = at {
                tcp.options[at..at + 2].copy_from_slice(&limit);
            }
        });
        (description, before, after)
    });
    cases.collect()
}

/// S-ICMP-5, S-FWD-3: `nat` clamps requests and replies; checksums are those of the new packet.
#[test]
fn nat_clamps_syn_and_syn_ack() {
    let mut testbed = testbed(Forwarding::Nat);
    for (request, server, client, listen, index) in [
        (Packet::request(), SERVER, CLIENT, LISTEN, 1),
        (Packet::request6(), SERVER6, CLIENT6, LISTEN6, 2),
    ] {
        for (description, before, after) in cases(&request.flags(flags::SYN)) {
            let expect = Expect::Transmit(after.at_backend(index, server).build());
            testbed.check(description, &before.build(), &expect);
        }
        let reply = Packet::new(address(server), address(client)).flags(flags::SYN_ACK);
        for (description, before, after) in cases(&reply) {
            let link = Link {
                to: GATEWAY,
                from: BALANCER,
                tags: Vec::new(),
            };
            let expected = after.forwarded(link).from(address(listen));
            let expect = Expect::Transmit(expected.build());
            testbed.check(description, &before.build(), &expect);
        }
    }
}

/// S-ICMP-5: tunnels clamp what they see, which is the SYN.
#[test]
fn tunnels_clamp_the_syn() {
    for forwarding in [Forwarding::Ipip, Forwarding::Gue] {
        let mut testbed = testbed(forwarding);
        for request in [Packet::request(), Packet::request6()] {
            for (description, before, after) in cases(&request.flags(flags::SYN)) {
                let outcome = testbed.run(&before.build());
                assert_eq!(outcome.verdict, Verdict::Transmit, "{description}");
                let outer = Outer::of(&outcome.frame);
                let hops = 63;
                let inner = after.hops(hops).build()[14..].to_vec();
                assert_eq!(outer.inner, inner, "{forwarding} {description}");
                assert!(outer.udp.is_none_or(|udp| udp.checksum_verifies));
            }
        }
    }
}

/// Only a SYN says how large segments may be; and `dsr` touches none.
#[test]
fn nothing_else_is_clamped() {
    let mut nat = testbed(Forwarding::Nat);
    let ack = Packet::request().tcp(|tcp| tcp.options = vec![2, 4, 0xff, 0xff]);
    let expect = Expect::Transmit(ack.clone().at_backend(1, SERVER).build());
    nat.check("an ACK", &ack.build(), &expect);

    let mut dsr = testbed(Forwarding::Dsr);
    let syn = ack.flags(flags::SYN);
    let outcome = dsr.run(&syn.build());
    assert_eq!(outcome.verdict, Verdict::Transmit);
    assert_eq!(outcome.frame[14..], syn.build()[14..]);
}

/// A wrong checksum stays wrong when the MSS changes.
#[test]
fn clamping_mends_no_wrong_checksum() {
    let mut testbed = testbed(Forwarding::Nat);
    for (description, before, after) in cases(&Packet::request().flags(flags::SYN)) {
        let break_it = |packet: Packet| packet.tcp(|tcp| tcp.checksum_error = 0x1234);
        let expect = Expect::Transmit(break_it(after).at_backend(1, SERVER).build());
        testbed.check(description, &break_it(before).build(), &expect);
    }
}

/// S-ICMP-5: the largest packet that reaches the backend goes, in every mode; one more byte is too
/// much, and the client is told so.
#[test]
fn what_is_too_big_is_refused() {
    for forwarding in [
        Forwarding::Nat,
        Forwarding::Dsr,
        Forwarding::Ipip,
        Forwarding::Gue,
    ] {
        let mut testbed = testbed(forwarding);
        for (packet, service, headers, max_quote) in [
            (Packet::request(), WEB, 40, 548),
            (Packet::request6(), WEB6, 60, 1232),
        ] {
            let room = usize::from(MAX_PACKET) - headers;
            let fits = packet.clone().payload(&vec![1; room]);
            let verdict = testbed.run(&fits.build()).verdict;
            assert_eq!(verdict, Verdict::Transmit, "{forwarding}");
            let packet = packet.payload(&vec![1; room + 1]);
            let answer = packet.icmp_error(IcmpError::TooBig(MAX_PACKET), max_quote);
            let expect = Expect::Answer(service, Reason::TooBig, answer);
            testbed.check(&forwarding.to_string(), &packet.build(), &expect);
        }
    }
}
