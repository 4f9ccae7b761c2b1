//! Congestion marks of the tunnel's way.

use lb_common::decap::Outcome;
use lb_tests::packets::{Dissection, Expected, Packet, Tunnelled};

use super::{Family, Kind, backend, segment, through, tunnels};

/// DSCP of the packets, which is not the tunnel's.
const DSCP: u8 = 0b10_1110 << 2;
const OUTER_DSCP: u8 = 0b01_0010 << 2;

fn marked(packet: Packet, family: Family, ecn: u8) -> Packet {
    match family {
        Family::V4 => packet.v4(|ip| ip.service_type = DSCP | ecn),
        Family::V6 => packet.v6(|ip| ip.traffic_class = DSCP | ecn),
    }
}

fn outer_marked(tunnelled: Tunnelled, family: Family, ecn: u8) -> Tunnelled {
    match family {
        Family::V4 => tunnelled.outer4(|ip| ip.service_type = OUTER_DSCP | ecn),
        Family::V6 => tunnelled.outer6(|ip| ip.traffic_class = OUTER_DSCP | ecn),
    }
}

/// RFC 6040 §4.2, figure 4: rows are the inner field, columns the outer one, both in the order
/// Not-ECT, ECT(0), ECT(1), CE.
const NOT_ECT: u8 = 0b00;
const ECT0: u8 = 0b10;
const ECT1: u8 = 0b01;
const CE: u8 = 0b11;
const FIELDS: [u8; 4] = [NOT_ECT, ECT0, ECT1, CE];
const DROP: u8 = u8::MAX;
const FIGURE: [[u8; 4]; 4] = [
    [NOT_ECT, NOT_ECT, NOT_ECT, DROP],
    [ECT0, ECT0, ECT1, CE],
    [ECT1, ECT1, ECT1, CE],
    [CE, CE, CE, CE],
];

/// S-FWD-8: every combination of marks, in every tunnel; DSCP is the inner packet's own.
#[test]
fn marks_are_carried_over_by_rfc_6040() {
    let mut bed = backend();
    for (outer, inner, kind) in tunnels() {
        for (row, inner_ecn) in FIGURE.into_iter().zip(FIELDS) {
            for (left, outer_ecn) in row.into_iter().zip(FIELDS) {
                let description =
                    format!("{kind:?}, {inner:?} {inner_ecn:02b} in {outer:?} {outer_ecn:02b}");
                let packet = marked(segment(inner), inner, inner_ecn);
                let tunnelled = outer_marked(through(outer, kind, packet), outer, outer_ecn);
                let expected = if left == DROP {
                    Expected::Left(Outcome::Ecn)
                } else {
                    let outcome = match kind {
                        Kind::Ipip => Outcome::Ipip,
                        Kind::Gue => Outcome::Gue,
                    };
                    let frame = marked(segment(inner), inner, left).build();
                    let dissection = Dissection::of(&frame).unwrap();
                    assert!(dissection.ip_checksum_verifies && dissection.tcp_checksum_verifies);
                    Expected::Stripped(outcome, frame)
                };
                bed.check(&description, &tunnelled.build(), &expected);
            }
        }
    }
}

/// S-FWD-3: a header checksum that was wrong is wrong by the same amount when a mark is carried
/// over, so that the host drops the packet.
#[test]
fn a_wrong_inner_checksum_stays_wrong() {
    let mut bed = backend();
    for error in [1, 0x100, 0x8000, 0xfffe] {
        let packet =
            |ecn| marked(segment(Family::V4), Family::V4, ecn).v4(|ip| ip.checksum_error = error);
        for outer in [Family::V4, Family::V6] {
            let tunnelled = outer_marked(through(outer, Kind::Ipip, packet(ECT0)), outer, CE);
            let frame = packet(CE).build();
            assert!(!Dissection::of(&frame).unwrap().ip_checksum_verifies);
            bed.check(
                &format!("{outer:?}, wrong by {error:#x}"),
                &tunnelled.build(),
                &Expected::Stripped(Outcome::Ipip, frame),
            );
        }
    }
}
