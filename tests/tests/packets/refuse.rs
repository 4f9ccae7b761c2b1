//! Broken and hostile packets: dropped with their reason where they are aimed at a service, passed
//! untouched where they are not.

use lb_common::reason::Reason;
use lb_tests::packets::{
    CLIENT, Expect, Extension, LISTEN, Packet, SERVER, Testbed, WEB, WEB6, address, flags,
};

/// The service a packet's drop is counted for.
#[derive(Clone, Copy)]
enum Counted {
    /// The packet's own.
    Service,
    /// None: ports cannot be read, so all that is known is the address.
    Address,
}

struct Case {
    description: &'static str,
    packet: Packet,
    reason: Reason,
    counted: Counted,
}

fn case(description: &'static str, packet: Packet, reason: Reason, counted: Counted) -> Case {
    Case {
        description,
        packet,
        reason,
        counted,
    }
}

fn v4() -> Packet {
    Packet::request().payload(b"payload")
}

fn v6() -> Packet {
    Packet::request6().payload(b"payload")
}

/// S-FWD-1
fn malformed_ip() -> Vec<Case> {
    use Counted::{Address, Service};
    use Reason::{BadIpChecksum, MalformedIp};
    let total = |length: u16| v4().v4(|ip| ip.total_length = Some(length));
    let whole = 20 + 20 + 7;
    vec![
        case(
            "version 0",
            v4().v4(|ip| ip.version = 0),
            MalformedIp,
            Address,
        ),
        case(
            "version 5",
            v4().v4(|ip| ip.version = 5),
            MalformedIp,
            Address,
        ),
        case(
            "version 6",
            v4().v4(|ip| ip.version = 6),
            MalformedIp,
            Address,
        ),
        case(
            "version 15",
            v4().v4(|ip| ip.version = 15),
            MalformedIp,
            Address,
        ),
        case(
            "IHL 0",
            v4().v4(|ip| ip.header_length = Some(0)),
            MalformedIp,
            Address,
        ),
        case(
            "IHL 4",
            v4().v4(|ip| ip.header_length = Some(4)),
            MalformedIp,
            Address,
        ),
        case("total length 0", total(0), MalformedIp, Service),
        case("total length below IHL", total(19), MalformedIp, Service),
        case(
            "total length below IHL with options",
            v4().v4(|ip| (ip.options, ip.total_length) = (vec![1; 8], Some(27))),
            MalformedIp,
            Service,
        ),
        case(
            "total length one beyond the frame",
            total(whole + 1),
            MalformedIp,
            Service,
        ),
        case(
            "total length far beyond the frame",
            total(u16::MAX),
            MalformedIp,
            Service,
        ),
        case(
            "checksum off by one",
            v4().v4(|ip| ip.checksum_error = 1),
            BadIpChecksum,
            Service,
        ),
        case(
            "checksum off in the high byte",
            v4().v4(|ip| ip.checksum_error = 0x0100),
            BadIpChecksum,
            Service,
        ),
        // S-FWD-4
        case(
            "checksum wrong in a header with options",
            v4().v4(|ip| (ip.options, ip.checksum_error) = (vec![1; 12], 0x1000)),
            BadIpChecksum,
            Service,
        ),
        case(
            "checksum wrong with the most options",
            v4().v4(|ip| (ip.options, ip.checksum_error) = (vec![0x44; 40], 7)),
            BadIpChecksum,
            Service,
        ),
        case(
            "version 4 under IPv6",
            v6().v6(|ip| ip.version = 4),
            MalformedIp,
            Address,
        ),
        case(
            "version 0 under IPv6",
            v6().v6(|ip| ip.version = 0),
            MalformedIp,
            Address,
        ),
        case(
            "payload one beyond the frame",
            v6().v6(|ip| ip.payload_length = Some(28)),
            MalformedIp,
            Service,
        ),
        case(
            "payload far beyond the frame",
            v6().v6(|ip| ip.payload_length = Some(u16::MAX)),
            MalformedIp,
            Service,
        ),
    ]
}

fn malformed_tcp() -> Vec<Case> {
    use Counted::{Address, Service};
    use Reason::{ImpossibleFlags, MalformedTcp};
    let offset = |packet: Packet, words| packet.tcp(|tcp| tcp.data_offset = Some(words));
    let mut cases = vec![
        case("data offset 0", offset(v4(), 0), MalformedTcp, Service),
        case("data offset 4", offset(v4(), 4), MalformedTcp, Service),
        case(
            "data offset beyond the packet",
            offset(v4(), 7),
            MalformedTcp,
            Service,
        ),
        case(
            "data offset into the Ethernet padding",
            offset(v4(), 15).padding(64),
            MalformedTcp,
            Service,
        ),
        case(
            "total length inside the TCP header",
            v4().v4(|ip| ip.total_length = Some(39)),
            MalformedTcp,
            Service,
        ),
        case(
            "total length of the IP header alone",
            v4().v4(|ip| ip.total_length = Some(20)),
            MalformedTcp,
            Service,
        ),
        case(
            "IHL beyond the frame",
            v4().v4(|ip| ip.header_length = Some(15)).payload(b""),
            MalformedTcp,
            Address,
        ),
        case(
            "data offset 0, IPv6",
            offset(v6(), 0),
            MalformedTcp,
            Service,
        ),
        case(
            "data offset beyond the packet, IPv6",
            offset(v6(), 15),
            MalformedTcp,
            Service,
        ),
        case(
            "payload length 0",
            v6().v6(|ip| ip.payload_length = Some(0)),
            MalformedTcp,
            Service,
        ),
        case(
            "payload length inside the TCP header",
            v6().v6(|ip| ip.payload_length = Some(19)),
            MalformedTcp,
            Service,
        ),
    ];
    // FIN alone and without ACK, SYN with FIN or RST, nothing at all.
    for flags in [
        0,
        flags::FIN,
        flags::PSH,
        flags::URG,
        flags::FIN | flags::PSH | flags::URG,
        flags::SYN | flags::FIN,
        flags::SYN | flags::RST,
        flags::SYN | flags::FIN | flags::ACK,
        0x3f,
        0xff,
    ] {
        cases.push(case(
            "impossible flags",
            v4().flags(flags),
            ImpossibleFlags,
            Service,
        ));
        cases.push(case(
            "impossible flags",
            v6().flags(flags),
            ImpossibleFlags,
            Service,
        ));
    }
    cases
}

/// S-FWD-4, S-FWD-5
fn fragments_and_extensions() -> Vec<Case> {
    use Counted::Address;
    use Reason::{ExtensionHeaders, Fragment, MalformedIp};
    let options = |units| Extension::new(Extension::DESTINATION_OPTIONS, units);
    let with = |extensions: Vec<Extension>| v6().v6(|ip| ip.extensions = extensions);
    let fragment = |bits| v4().v4(|ip| ip.fragment = bits);
    vec![
        case("first fragment", fragment(0x2000), Fragment, Address),
        case(
            "first fragment with DF",
            fragment(0x6000),
            Fragment,
            Address,
        ),
        case("middle fragment", fragment(0x2000 | 100), Fragment, Address),
        case("last fragment", fragment(185), Fragment, Address),
        case(
            "the last fragment there can be",
            fragment(0x1fff),
            Fragment,
            Address,
        ),
        case(
            "first fragment, IPv6",
            with(vec![Extension::fragment(0, true)]),
            Fragment,
            Address,
        ),
        case(
            "middle fragment, IPv6",
            with(vec![Extension::fragment(100, true)]),
            Fragment,
            Address,
        ),
        case(
            "last fragment, IPv6",
            with(vec![Extension::fragment(185, false)]),
            Fragment,
            Address,
        ),
        case(
            "fragment behind and before other headers",
            with(vec![options(1), Extension::fragment(1, false), options(0)]),
            Fragment,
            Address,
        ),
        case(
            "seven extension headers",
            with(vec![options(0); 7]),
            ExtensionHeaders,
            Address,
        ),
        case(
            "longer extension headers than are read",
            with(vec![options(200), options(200)]).payload(&[0; 900]),
            ExtensionHeaders,
            Address,
        ),
        case(
            "an extension header beyond the frame",
            with(vec![Extension {
                kind: Extension::DESTINATION_OPTIONS,
                body: vec![100; 3],
            }])
            .payload(b""),
            Reason::MalformedTcp,
            Address,
        ),
        case(
            "two extension headers, the second beyond the frame",
            with(vec![
                Extension {
                    kind: Extension::DESTINATION_OPTIONS,
                    body: vec![200; 7],
                },
                options(0),
            ])
            .payload(b""),
            MalformedIp,
            Address,
        ),
    ]
}

/// S-FWD-2
fn used_up() -> Vec<Case> {
    use Counted::Service;
    use Reason::TtlExpired;
    vec![
        case("TTL 0", v4().hops(0), TtlExpired, Service),
        case("TTL 1", v4().hops(1), TtlExpired, Service),
        case("hop limit 0", v6().hops(0), TtlExpired, Service),
        case("hop limit 1", v6().hops(1), TtlExpired, Service),
    ]
}

/// S-FWD-1, S-FWD-2, S-FWD-4, S-FWD-5: each is dropped with its own reason when it is aimed at a
/// service, and passes untouched when it is not.
#[test]
fn broken_packets_are_dropped_with_their_reason() {
    let mut testbed = Testbed::with_model().and_one_backend_each();
    let cases = [
        malformed_ip(),
        malformed_tcp(),
        fragments_and_extensions(),
        used_up(),
    ];
    for case in cases.into_iter().flatten() {
        let Case {
            description,
            packet,
            reason,
            counted,
        } = case;
        let v6 = packet.destination().is_ipv6();
        let own = if v6 { WEB6 } else { WEB };
        let counted = match counted {
            Counted::Service => Some(own),
            Counted::Address => None,
        };
        for frame in [packet.build(), packet.clone().flags(flags::SYN).build()] {
            // A SYN is refused just so, except that its flags are no longer impossible.
            if reason == Reason::ImpossibleFlags && frame != packet.build() {
                continue;
            }
            testbed.check(description, &frame, &Expect::Drop(counted, reason));
        }
        let elsewhere = if v6 {
            "[2001:db8::99]:80"
        } else {
            "192.0.2.99:80"
        };
        let passed = packet.to(address(elsewhere)).build();
        testbed.check(description, &passed, &Expect::Pass);
    }
    assert_eq!(testbed.totals().used, 0, "nothing of this is a connection");
}

/// S-FWD-1, S-FWD-7: another port of a service's address is not a service: the host's own stack
/// judges its packets, as far as the port can be told.
#[test]
fn broken_packets_to_another_port_of_a_service_pass() {
    let mut testbed = Testbed::with_model().and_one_backend_each();
    let cases = [malformed_ip(), malformed_tcp(), used_up()];
    for case in cases.into_iter().flatten() {
        if matches!(case.counted, Counted::Address) {
            continue;
        }
        let mut other = case.packet.destination();
        other.set_port(81);
        let frame = case.packet.to(other).build();
        testbed.check(case.description, &frame, &Expect::Pass);
    }
}

/// S-FWD-1, S-FWD-2: replies of a connection are judged like requests.
#[test]
fn broken_replies_are_dropped_with_their_reason() {
    let mut testbed = Testbed::with_one_backend_each();
    testbed.connect(address(CLIENT), address(LISTEN));
    let reply = || Packet::new(address(SERVER), address(CLIENT)).payload(b"payload");
    for (description, packet, reason) in [
        (
            "checksum",
            reply().v4(|ip| ip.checksum_error = 1),
            Reason::BadIpChecksum,
        ),
        (
            "total length",
            reply().v4(|ip| ip.total_length = Some(99)),
            Reason::MalformedIp,
        ),
        ("TTL 1", reply().hops(1), Reason::TtlExpired),
        (
            "data offset",
            reply().tcp(|tcp| tcp.data_offset = Some(3)),
            Reason::MalformedTcp,
        ),
        (
            "flags",
            reply().flags(flags::SYN | flags::FIN),
            Reason::ImpossibleFlags,
        ),
    ] {
        testbed.check(
            description,
            &packet.build(),
            &Expect::Drop(Some(WEB), reason),
        );
        let nobody = packet.to(address("198.51.100.7:40001"));
        testbed.check(description, &nobody.build(), &Expect::Pass);
    }
    // The address that a fragment goes to is a client's: the host may route it.
    let fragment = reply().v4(|ip| ip.fragment = 0x2000);
    testbed.check("fragment", &fragment.build(), &Expect::Pass);
    assert_eq!(testbed.state(WEB, address(CLIENT)), Some("ESTABLISHED"));
}

/// S-NAT-7: a SYN-ACK from the client side is never a new connection.
#[test]
fn a_syn_ack_of_a_stranger_is_dropped() {
    let mut testbed = Testbed::with_model().and_one_backend_each();
    for (packet, service) in [(Packet::request(), WEB), (Packet::request6(), WEB6)] {
        let expected = Expect::Drop(Some(service), Reason::UnexpectedSynAck);
        let packet = packet.flags(flags::SYN_ACK);
        testbed.check("SYN-ACK", &packet.build(), &expected);
    }
    assert_eq!(testbed.totals().used, 0);
}
