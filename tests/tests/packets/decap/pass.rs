//! What reaches the host as it came.

use lb_common::decap::Outcome;
use lb_tests::packets::{Expected, Extension, Packet, Tag, Tunnelled};

use super::{
    BACKEND4, BACKEND6, BALANCER4, BALANCER6, Family, GUE_PORT, Kind, backend, ip, segment,
    through, tunnels,
};

fn ipip(outer: Family) -> Tunnelled {
    through(outer, Kind::Ipip, segment(Family::V4))
}

fn gue(outer: Family) -> Tunnelled {
    through(outer, Kind::Gue, segment(Family::V4))
}

/// S-FWD-7: what nobody has sent to this host through a tunnel is not even counted.
#[test]
fn what_is_not_for_us_passes_uncounted() {
    let mut bed = backend();
    let v4 = Family::V4;
    let v6 = Family::V6;
    let extension = |kind| {
        move |ip: &mut lb_tests::packets::Ipv6| {
            ip.extensions = vec![Extension::new(kind, 0)];
        }
    };
    let to_group = |mut tunnelled: Tunnelled| {
        tunnelled.inner.link.to = [0x01, 0, 0x5e, 0, 0, 1];
        tunnelled
    };
    let table: Vec<(&str, Vec<u8>)> = vec![
        ("TCP to the host", segment(v4).build()),
        ("TCP to the host, IPv6", segment(v6).build()),
        (
            "to another host",
            ipip(v4)
                .outer4(|ip| ip.destination = [10, 2, 0, 12].into())
                .build(),
        ),
        (
            "to another host, GUE",
            gue(v4)
                .outer4(|ip| ip.destination = [10, 2, 0, 12].into())
                .build(),
        ),
        (
            "to another host, IPv6",
            ipip(v6)
                .outer6(|ip| ip.destination = "fd00:2::12".parse().unwrap())
                .build(),
        ),
        (
            "to another host, GUE, IPv6",
            gue(v6)
                .outer6(|ip| ip.destination = "fd00:2::12".parse().unwrap())
                .build(),
        ),
        ("to a group", to_group(ipip(v4)).build()),
        ("GRE", ipip(v4).outer4(|ip| ip.protocol = 47).build()),
        ("ICMP", ipip(v4).outer4(|ip| ip.protocol = 1).build()),
        (
            "IPv6 without a next header",
            ipip(v6).outer6(|ip| ip.protocol = 59).build(),
        ),
        (
            "another UDP port",
            gue(v4).udp(|udp| udp.destination = GUE_PORT + 1).build(),
        ),
        ("UDP port 0", gue(v4).udp(|udp| udp.destination = 0).build()),
        (
            "from the GUE port",
            gue(v4)
                .udp(|udp| (udp.source, udp.destination) = (GUE_PORT, 53))
                .build(),
        ),
        (
            "another UDP port, IPv6",
            gue(v6).udp(|udp| udp.destination = 53).build(),
        ),
        (
            "a first fragment of UDP",
            gue(v4).outer4(|ip| ip.fragment = 0x2000).build(),
        ),
        (
            "a later fragment of UDP",
            gue(v4).outer4(|ip| ip.fragment = 0x0010).build(),
        ),
        (
            "a fragment, IPv6",
            ipip(v6)
                .outer6(|ip| ip.extensions = vec![Extension::fragment(0, true)])
                .build(),
        ),
        (
            "an atomic fragment, IPv6",
            gue(v6)
                .outer6(|ip| ip.extensions = vec![Extension::fragment(0, false)])
                .build(),
        ),
        (
            "destination options",
            ipip(v6)
                .outer6(extension(Extension::DESTINATION_OPTIONS))
                .build(),
        ),
        (
            "hop-by-hop options",
            gue(v6).outer6(extension(Extension::HOP_BY_HOP)).build(),
        ),
        (
            "a routing header",
            ipip(v6).outer6(extension(Extension::ROUTING)).build(),
        ),
        (
            "outer version 5",
            ipip(v4).outer4(|ip| ip.version = 5).build(),
        ),
        (
            "outer version 4 as IPv6",
            ipip(v6).outer6(|ip| ip.version = 4).build(),
        ),
        (
            "IHL 4 of UDP",
            gue(v4).outer4(|ip| ip.header_length = Some(4)).build(),
        ),
        (
            "three tags",
            through(
                v4,
                Kind::Ipip,
                segment(v4).tags(&[Tag::dot1ad(1), Tag::dot1q(2), Tag::dot1q(3)]),
            )
            .build(),
        ),
        (
            "UDP cut off in its header",
            gue(v4).build()[..14 + 20 + 7].to_vec(),
        ),
        (
            "an IPv4 header cut off",
            ipip(v4).build()[..14 + 19].to_vec(),
        ),
        (
            "an IPv6 header cut off",
            ipip(v6).build()[..14 + 39].to_vec(),
        ),
    ];
    for (description, frame) in table {
        bed.check(description, &frame, &Expected::Pass);
    }
}

/// What is aimed at the host's own tunnels, if it has any, or at nobody's: counted, so that it can
/// be seen why it is not stripped.
#[test]
fn near_misses_pass_and_are_counted() {
    let mut bed = backend();
    let v4 = Family::V4;
    let v6 = Family::V6;
    let to = |destination: &str| -> Packet {
        segment(v4).v4(|ip| ip.destination = destination.parse().unwrap())
    };
    let header = |bytes: &[u8]| {
        let bytes = bytes.to_vec();
        |udp: &mut lb_tests::packets::Gue| udp.header = bytes
    };
    let table: Vec<(&str, Outcome, Tunnelled)> = vec![
        (
            "a first fragment",
            Outcome::Fragment,
            ipip(v4).outer4(|ip| ip.fragment = 0x2000),
        ),
        (
            "a last fragment",
            Outcome::Fragment,
            ipip(v4).outer4(|ip| ip.fragment = 0x0010),
        ),
        (
            "GUE variant 0, IPv4 inside",
            Outcome::GueVariant,
            gue(v4).udp(header(&[0, 4, 0, 0])),
        ),
        (
            "GUE variant 0, IPv6 outside",
            Outcome::GueVariant,
            gue(v6).udp(header(&[0, 4, 0, 0])),
        ),
        (
            "GUE variant 2",
            Outcome::GueVariant,
            gue(v4).udp(header(&[0x80, 4, 0, 0])),
        ),
        (
            "GUE variant 3",
            Outcome::GueVariant,
            gue(v4).udp(header(&[0xff, 4, 0, 0])),
        ),
        (
            "IP version 5 in GUE",
            Outcome::InnerVersion,
            gue(v4).udp(header(&[0x50, 0, 0, 0])),
        ),
        (
            "IP version 7 in GUE",
            Outcome::InnerVersion,
            gue(v6).udp(header(&[0x70, 0, 0, 0])),
        ),
        (
            "IPv4 announced as IPv6",
            Outcome::InnerVersion,
            ipip(v4).outer4(|ip| ip.protocol = 41),
        ),
        (
            "IPv4 announced as IPv6, in IPv6",
            Outcome::InnerVersion,
            ipip(v6).outer6(|ip| ip.protocol = 41),
        ),
        (
            "IPv6 announced as IPv4",
            Outcome::InnerVersion,
            through(v4, Kind::Ipip, segment(v6)).outer4(|ip| ip.protocol = 4),
        ),
        (
            "inner packet to another host",
            Outcome::InnerAddress,
            Tunnelled::ipip(ip(BALANCER4), ip(BACKEND4), to("192.0.2.11")),
        ),
        (
            "the same in GUE",
            Outcome::InnerAddress,
            Tunnelled::ipip(ip(BALANCER6), ip(BACKEND6), to("192.0.2.11")).gue(GUE_PORT),
        ),
        (
            "the same broken",
            Outcome::InnerAddress,
            Tunnelled::ipip(ip(BALANCER4), ip(BACKEND4), to("192.0.2.11"))
                .outer4(|ip| ip.checksum_error = 1),
        ),
        (
            "inner packet to loopback",
            Outcome::InnerAddress,
            Tunnelled::ipip(ip(BALANCER4), ip(BACKEND4), to("127.0.0.1")),
        ),
    ];
    for (description, outcome, tunnelled) in table {
        bed.check(description, &tunnelled.build(), &Expected::Left(outcome));
    }
    let empty = gue(v4).build_around(&[]);
    bed.check(
        "an empty datagram",
        &empty,
        &Expected::Left(Outcome::GueVariant),
    );
}

/// Whatever a frame holds, it is passed as it came, dropped, or stripped: never half of it.
#[test]
fn frames_cut_short_anywhere_are_never_half_stripped() {
    let mut bed = backend();
    for (outer, inner, kind) in tunnels() {
        let tags = [Tag::dot1ad(7), Tag::dot1q(9)];
        let whole = through(outer, kind, segment(inner).tags(&tags)).build();
        // 14 bytes are the least that the kernel runs.
        for length in 14..whole.len() {
            let frame = &whole[..length];
            let outcome = bed.run(frame);
            assert_eq!(outcome.frame, frame, "{length} bytes were changed");
        }
    }
}
