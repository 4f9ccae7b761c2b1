//! What is aimed at us and cannot be right: dropped, with a reason.

use lb_common::decap::Outcome;
use lb_tests::packets::{Expected, Tunnelled};

use super::{Family, Kind, backend, segment, through, tunnels};

/// S-FWD-1: outer header checksum, outer lengths, inner lengths.
#[test]
fn impossible_headers_are_dropped_with_their_reason() {
    let mut bed = backend();
    let v4 = || through(Family::V4, Kind::Ipip, segment(Family::V4));
    let v6 = || through(Family::V6, Kind::Ipip, segment(Family::V6));
    let gue4 = || through(Family::V4, Kind::Gue, segment(Family::V4));
    let gue6 = || through(Family::V6, Kind::Gue, segment(Family::V6));
    let inner = v4().inner.ip_length() as u16;
    let inner6 = v6().inner.ip_length() as u16;
    let mut table: Vec<(String, Outcome, Tunnelled)> = Vec::new();
    let mut add = |description: &str, outcome, tunnelled| {
        table.push((description.to_owned(), outcome, tunnelled));
    };
    for error in [1, 0x100, 0x8000] {
        let wrong = |ip: &mut lb_tests::packets::Ipv4| ip.checksum_error = error;
        add("checksum", Outcome::OuterChecksum, v4().outer4(wrong));
        add(
            "checksum, GUE",
            Outcome::OuterChecksum,
            gue4().outer4(wrong),
        );
        let with_options = v4().outer4(|ip| ip.options = vec![1; 8]).outer4(wrong);
        add(
            "checksum with options",
            Outcome::OuterChecksum,
            with_options,
        );
    }
    for words in 0..5 {
        let ihl = v4().outer4(|ip| ip.header_length = Some(words));
        add("IHL", Outcome::OuterHeader, ihl);
    }
    for length in [0, 19, 20 + inner + 1, u16::MAX] {
        let cut = v4().outer4(|ip| ip.total_length = Some(length));
        add("total length", Outcome::OuterLength, cut);
    }
    for length in [inner6 + 1, u16::MAX] {
        let cut = v6().outer6(|ip| ip.payload_length = Some(length));
        add("payload length", Outcome::OuterLength, cut);
    }
    for length in [0, 7, 8 + inner + 1, u16::MAX] {
        let udp = gue4().udp(|udp| udp.length = Some(length));
        add("UDP length", Outcome::OuterLength, udp);
    }
    let udp = gue6().udp(|udp| udp.length = Some(8 + inner6 + 1));
    add("UDP length, IPv6", Outcome::OuterLength, udp);

    // The outer length leaves less room than the inner packet wants.
    for length in [20, 20 + inner - 1] {
        let cut = v4().outer4(|ip| ip.total_length = Some(length));
        add("inner packet cut short", Outcome::InnerLength, cut);
    }
    for length in [0, inner6 - 1] {
        let cut = v6().outer6(|ip| ip.payload_length = Some(length));
        add("inner packet cut short, IPv6", Outcome::InnerLength, cut);
    }
    for length in [8, 8 + inner - 1] {
        let cut = gue4().udp(|udp| udp.length = Some(length));
        add("inner packet cut short by UDP", Outcome::InnerLength, cut);
    }
    for length in [0, 19, inner + 1] {
        let mut tunnelled = v4();
        tunnelled.inner = tunnelled.inner.v4(|ip| ip.total_length = Some(length));
        add("inner total length", Outcome::InnerLength, tunnelled);
    }
    for words in 0..5 {
        let mut tunnelled = gue4();
        tunnelled.inner = tunnelled.inner.v4(|ip| ip.header_length = Some(words));
        add("inner IHL", Outcome::InnerLength, tunnelled);
    }
    let mut tunnelled = gue6();
    tunnelled.inner = tunnelled
        .inner
        .v6(|ip| ip.payload_length = Some(inner6 - 40 + 1));
    add("inner payload length", Outcome::InnerLength, tunnelled);

    for (description, outcome, tunnelled) in table {
        let description = format!("{description}: {tunnelled:?}");
        bed.check(&description, &tunnelled.build(), &Expected::Left(outcome));
    }
}

/// S-FWD-1: an inner header that is not all there.
#[test]
fn an_inner_header_cut_short_is_dropped() {
    let mut bed = backend();
    for (outer, inner, kind) in tunnels() {
        let tunnelled = through(outer, kind, segment(inner));
        let packet = tunnelled.inner.build_ip();
        let header = match inner {
            Family::V4 => 20,
            Family::V6 => 40,
        };
        // Without its first byte, nothing says that it is GUE of variant 1.
        let least = match kind {
            Kind::Ipip => 0,
            Kind::Gue => 1,
        };
        for length in least..header {
            bed.check(
                &format!("{length} bytes, {kind:?}, {inner:?} in {outer:?}"),
                &tunnelled.build_around(&packet[..length]),
                &Expected::Left(Outcome::InnerTruncated),
            );
        }
    }
}
