//! What is not aimed at a service reaches the host byte for byte, and is counted nowhere.

use lb_tests::packets::{
    CLIENT, CLIENT6, Expect, Extension, LISTEN, LISTEN6, Packet, SERVER, SERVER6, Tag, Testbed,
    Verdict, address, flags,
};

/// An Ethernet frame with this payload.
fn frame(ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    frame.extend_from_slice(&ether_type.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

fn v4(source: &str, destination: &str) -> Packet {
    Packet::new(address(source), address(destination)).payload(b"untouched")
}

/// S-FWD-7: other addresses, other ports, ARP, neighbour discovery, other protocols.
#[test]
fn what_is_not_ours_passes_untouched() {
    let mut testbed = Testbed::with_model().and_one_backend_each();
    let arp = [
        &[0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 198, 51, 100, 7][..],
        &[0, 0, 0, 0, 0, 0, 192, 0, 2, 10],
    ]
    .concat();
    let table: Vec<(&str, Vec<u8>)> = vec![
        ("another port", v4(CLIENT, "192.0.2.10:81").build()),
        ("another address", v4(CLIENT, "192.0.2.11:80").build()),
        ("port 0", v4(CLIENT, "192.0.2.10:0").build()),
        (
            "another port, IPv6",
            v4(CLIENT6, "[2001:db8::10]:81").build(),
        ),
        (
            "another address, IPv6",
            v4(CLIENT6, "[2001:db8::11]:80").build(),
        ),
        ("from the service itself", v4(LISTEN, CLIENT).build()),
        (
            "from another port of a backend",
            v4("10.0.0.1:8081", CLIENT).build(),
        ),
        (
            "another port, two tags",
            v4(CLIENT, "192.0.2.10:81")
                .tags(&[Tag::dot1ad(7), Tag::dot1q(9)])
                .build(),
        ),
        (
            "UDP to address and port of a service",
            v4(CLIENT, LISTEN).v4(|ip| ip.protocol = 17).build(),
        ),
        (
            "UDP to address and port of an IPv6 service",
            v4(CLIENT6, LISTEN6).v6(|ip| ip.protocol = 17).build(),
        ),
        (
            "ICMP to a service's address",
            v4(CLIENT, LISTEN).v4(|ip| ip.protocol = 1).build(),
        ),
        (
            "ICMPv6 to a service's address",
            v4(CLIENT6, LISTEN6).v6(|ip| ip.protocol = 58).build(),
        ),
        (
            "SCTP to a service's address",
            v4(CLIENT, LISTEN).v4(|ip| ip.protocol = 132).build(),
        ),
        (
            "ESP to an IPv6 service's address",
            v4(CLIENT6, LISTEN6).v6(|ip| ip.protocol = 50).build(),
        ),
        (
            "UDP behind extension headers",
            v4(CLIENT6, LISTEN6)
                .v6(|ip| {
                    ip.protocol = 17;
                    ip.extensions = vec![Extension::new(Extension::DESTINATION_OPTIONS, 0)];
                })
                .build(),
        ),
        (
            "UDP behind as many extension headers as are read",
            v4(CLIENT6, LISTEN6)
                .v6(|ip| {
                    ip.protocol = 17;
                    ip.extensions = vec![Extension::new(Extension::DESTINATION_OPTIONS, 0); 6];
                })
                .build(),
        ),
        (
            "first fragment of UDP",
            v4(CLIENT, LISTEN)
                .v4(|ip| (ip.protocol, ip.fragment) = (17, 0x2000))
                .build(),
        ),
        (
            "first fragment of UDP, IPv6",
            v4(CLIENT6, LISTEN6)
                .v6(|ip| {
                    ip.protocol = 17;
                    ip.extensions = vec![Extension::fragment(0, true)];
                })
                .build(),
        ),
        (
            "last fragment of UDP, IPv6",
            v4(CLIENT6, LISTEN6)
                .v6(|ip| {
                    ip.protocol = 17;
                    ip.extensions = vec![Extension::fragment(100, false)];
                })
                .build(),
        ),
        ("ARP for a service's address", frame(0x0806, &arp)),
        ("LLDP", frame(0x88cc, &[2, 7, 4, 2, 0, 0, 0, 0, 1])),
        ("IPv4 header under the EtherType of IPv6", {
            let mut bytes = v4(CLIENT, "192.0.2.11:80").build();
            bytes[12..14].copy_from_slice(&0x86dd_u16.to_be_bytes());
            bytes
        }),
        (
            "three tags",
            Packet::request()
                .tags(&[Tag::dot1ad(1), Tag::dot1q(2), Tag::dot1q(3)])
                .build(),
        ),
        (
            "reply of a backend to nobody we know (a health check)",
            v4(SERVER, CLIENT).flags(flags::SYN_ACK).build(),
        ),
        (
            "reply of an IPv6 backend to nobody we know",
            v4(SERVER6, CLIENT6).flags(flags::SYN_ACK).build(),
        ),
        (
            "to a backend directly",
            v4(CLIENT, SERVER).flags(flags::SYN).build(),
        ),
    ];
    for (description, frame) in table {
        testbed.check(description, &frame, &Expect::Pass);
    }
    assert_eq!(testbed.totals().used, 0);
}

/// S-FWD-1, S-FWD-7: a frame that ends early is not ours as long as nothing says that it is.
#[test]
fn frames_cut_short_are_never_forwarded() {
    let mut testbed = Testbed::with_one_backend_each();
    let tags = [Tag::dot1ad(7), Tag::dot1q(9)];
    for whole in [
        Packet::request(),
        Packet::request().tags(&tags),
        Packet::request6(),
        Packet::request6().tags(&tags),
    ] {
        let whole = whole.build();
        // 14 bytes are the least that the kernel runs.
        for length in 14..whole.len() {
            let outcome = testbed.run(&whole[..length]);
            assert!(
                matches!(outcome.verdict, Verdict::Pass | Verdict::Drop),
                "{length}"
            );
            assert!(
                outcome.frame == whole[..length],
                "{length} bytes were changed"
            );
        }
    }
    assert_eq!(testbed.totals().used, 0);
}

/// S-FWD-7: short frames of nothing in particular.
#[test]
fn short_frames_and_garbage_pass() {
    let mut testbed = Testbed::with_model().and_one_backend_each();
    for length in 14..=60 {
        for filler in [0, 0x45, 0x60, 0xff] {
            for ether_type in [0x0000, 0x0800, 0x86dd, 0x8100, 0x88a8, 0xffff] {
                let frame = frame(ether_type, &vec![filler; length - 14]);
                let description = format!("{length} bytes of {filler:#x}, type {ether_type:#06x}");
                testbed.check(&description, &frame, &Expect::Pass);
            }
        }
    }
}
