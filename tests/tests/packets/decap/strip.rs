//! What is taken out of its tunnel.

use lb_common::decap::Outcome;
use lb_tests::packets::{DecapBed, Expected, Extension, Packet, Tag, Tunnelled};

use super::{
    BACKEND4, BALANCER4, Family, GUE_PORT, Kind, OWN, backend, ip, segment, through, tunnels,
};

/// What is left of a packet in a tunnel that the host has the end of.
fn stripped(tunnelled: &Tunnelled) -> Expected {
    let outcome = match tunnelled.gue {
        None => Outcome::Ipip,
        Some(_) => Outcome::Gue,
    };
    Expected::Stripped(outcome, tunnelled.inner.build())
}

#[track_caller]
fn check(bed: &mut DecapBed, description: &str, tunnelled: &Tunnelled) {
    bed.check(description, &tunnelled.build(), &stripped(tunnelled));
}

/// S-FWD-6: every tunnel with every number of tags, which stay as they are.
#[test]
fn every_tunnel_is_stripped_and_tags_stay() {
    for mut bed in [backend(), DecapBed::linear(&OWN)] {
        for (outer, inner, kind) in tunnels() {
            for tags in [
                &[][..],
                &[Tag::dot1q(0x2007)],
                &[Tag::dot1ad(0xf123), Tag::dot1q(9)],
            ] {
                let tunnelled = through(outer, kind, segment(inner).tags(tags));
                let description = format!("{kind:?}, {inner:?} in {outer:?}, {tags:?}");
                check(&mut bed, &description, &tunnelled);
                let padded = through(outer, kind, segment(inner).tags(tags).padding(13));
                check(&mut bed, &format!("{description}, padded"), &padded);
            }
        }
    }
}

/// S-FWD-4: the inner packet is looked for behind the outer header's options, not among them.
#[test]
fn options_of_the_outer_header_are_honoured() {
    let mut bed = backend();
    for (_, inner, kind) in tunnels() {
        for words in 1..=10 {
            let tunnelled = through(Family::V4, kind, segment(inner).tags(&[Tag::dot1q(5)]))
                .outer4(|ip| ip.options = vec![1; 4 * words]);
            check(
                &mut bed,
                &format!("{words} words, {inner:?}, {kind:?}"),
                &tunnelled,
            );
        }
    }
}

/// The inner packet is the host's affair: its options, extension headers, fragments, checksums.
#[test]
fn the_inner_packet_may_be_anything() {
    let mut bed = backend();
    let v4 = || segment(Family::V4);
    let v6 = || segment(Family::V6);
    let table: [(&str, Packet); 8] = [
        ("options", v4().v4(|ip| ip.options = vec![7; 40])),
        ("a fragment", v4().v4(|ip| ip.fragment = 0x2000 | 100)),
        ("another protocol", v4().v4(|ip| ip.protocol = 132)),
        (
            "a wrong header checksum",
            v4().v4(|ip| ip.checksum_error = 1),
        ),
        (
            "a wrong TCP checksum",
            v4().tcp(|tcp| tcp.checksum_error = 1),
        ),
        ("TTL 1", v4().hops(1)),
        (
            "extension headers",
            v6().v6(|ip| ip.extensions = vec![Extension::new(Extension::DESTINATION_OPTIONS, 3)]),
        ),
        (
            "an IPv6 fragment",
            v6().v6(|ip| ip.extensions = vec![Extension::fragment(7, true)]),
        ),
    ];
    for (description, inner) in table {
        for (outer, kind) in [(Family::V4, Kind::Ipip), (Family::V6, Kind::Gue)] {
            check(&mut bed, description, &through(outer, kind, inner.clone()));
        }
    }
}

/// A tunnel may do without a UDP checksum, and with one it is not verified: the transport's own
/// covers what is delivered.
#[test]
fn whatever_the_udp_checksum_is() {
    let mut bed = backend();
    for outer in [Family::V4, Family::V6] {
        for checksum in [0, 1, 0xffff] {
            let tunnelled =
                through(outer, Kind::Gue, segment(Family::V4)).udp(|udp| udp.checksum = checksum);
            check(&mut bed, &format!("{outer:?}, {checksum:#06x}"), &tunnelled);
        }
    }
}

/// Of what the outer lengths leave room for, the inner packet need not fill all.
#[test]
fn bytes_behind_the_inner_packet_stay_behind_it() {
    let mut bed = backend();
    for (outer, inner, kind) in tunnels() {
        let tunnelled = through(outer, kind, segment(inner));
        let surplus = [&tunnelled.inner.build_ip()[..], &[0xee; 5]].concat();
        let left = [&tunnelled.inner.build()[..], &[0xee; 5]].concat();
        let outcome = match kind {
            Kind::Ipip => Outcome::Ipip,
            Kind::Gue => Outcome::Gue,
        };
        bed.check(
            &format!("{kind:?}, {inner:?} in {outer:?}"),
            &tunnelled.build_around(&surplus),
            &Expected::Stripped(outcome, left),
        );
    }
    // A datagram that is shorter than the packet around it.
    let short = through(Family::V4, Kind::Gue, segment(Family::V4));
    let length = 8 + short.inner.ip_length() as u16;
    let short = short.udp(|udp| udp.length = Some(length));
    let surplus = [&short.inner.build_ip()[..], &[0xee; 5]].concat();
    let left = [&short.inner.build()[..], &[0xee; 5]].concat();
    bed.check(
        "surplus of UDP",
        &short.build_around(&surplus),
        &Expected::Stripped(Outcome::Gue, left),
    );
}

/// The smallest packets there are.
#[test]
fn headers_alone_are_enough() {
    let mut bed = backend();
    for (outer, inner, kind) in tunnels() {
        let bare = match inner {
            Family::V4 => segment(inner)
                .v4(|ip| ip.total_length = Some(20))
                .build_ip()[..20]
                .to_vec(),
            Family::V6 => segment(inner)
                .v6(|ip| ip.payload_length = Some(0))
                .build_ip()[..40]
                .to_vec(),
        };
        let tunnelled = through(outer, kind, segment(inner));
        let mut left = tunnelled.inner.build()[..14].to_vec();
        left.extend_from_slice(&bare);
        let outcome = match kind {
            Kind::Ipip => Outcome::Ipip,
            Kind::Gue => Outcome::Gue,
        };
        bed.check(
            &format!("{kind:?}, {inner:?} in {outer:?}"),
            &tunnelled.build_around(&bare),
            &Expected::Stripped(outcome, left),
        );
    }
}

/// The outer packet may be to a service's address, and the inner one to the host's own.
#[test]
fn any_of_the_host_s_addresses_will_do() {
    let mut bed = backend();
    let inner = segment(Family::V4).v4(|ip| ip.destination = BACKEND4.parse().unwrap());
    let tunnelled = Tunnelled::ipip(ip(BALANCER4), ip("192.0.2.10"), inner);
    check(&mut bed, "crosswise", &tunnelled);
}

/// Addresses and port can change under way.
#[test]
fn addresses_and_port_are_those_that_were_set_last() {
    let mut bed = backend();
    let ipip = through(Family::V4, Kind::Ipip, segment(Family::V6));
    let gue = through(Family::V6, Kind::Gue, segment(Family::V4));
    check(&mut bed, "at first", &ipip);
    bed.set_addresses(&OWN[..3]);
    let not_ours = Expected::Left(Outcome::InnerAddress);
    bed.check("inner address gone", &ipip.build(), &not_ours);
    check(&mut bed, "the others are known still", &gue);
    bed.set_addresses(&OWN[1..]);
    bed.check("outer address gone", &ipip.build(), &Expected::Pass);
    bed.set_addresses(&OWN);
    check(&mut bed, "again", &ipip);

    let other_port = gue.clone().udp(|udp| udp.destination = 7000);
    bed.check("another port", &other_port.build(), &Expected::Pass);
    let wanted = std::num::NonZeroU16::new(7000);
    for (wanted, port) in [(None, GUE_PORT), (wanted, 7000), (None, 7000)] {
        assert_eq!(bed.decapsulator().set_gue_port(wanted).unwrap(), port);
    }
    check(&mut bed, "the new port", &other_port);
    bed.check("the old port", &gue.build(), &Expected::Pass);
}
