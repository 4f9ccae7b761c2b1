//! Frames that a driver hands over in several buffers.

use lb_common::decap::Outcome;
use lb_tests::packets::Expected;

use super::{Family, Kind, backend, segment, through, tunnels};

/// What a further buffer must hold at least, for the kernel to run such a frame.
const PAYLOAD: usize = 6000;

/// Headers in the first buffer are enough, whatever lies in the others.
#[test]
fn large_frames_are_stripped() {
    let mut bed = backend();
    for (outer, inner, kind) in tunnels() {
        let tunnelled = through(outer, kind, segment(inner).payload(&[0x5a; PAYLOAD]));
        let frame = tunnelled.build();
        let outcome = match kind {
            Kind::Ipip => Outcome::Ipip,
            Kind::Gue => Outcome::Gue,
        };
        let expected = Expected::Stripped(outcome, tunnelled.inner.build());
        let headers = frame.len() - tunnelled.inner.ip_length()
            + match inner {
                Family::V4 => 20,
                Family::V6 => 40,
            };
        for linear in [headers, headers + 1, 300, 2048] {
            let description = format!(
                "{linear} of {}, {kind:?}, {inner:?} in {outer:?}",
                frame.len()
            );
            bed.check_split(&description, &frame, linear, &expected);
        }
        let truncated = Expected::Left(Outcome::InnerTruncated);
        bed.check_split("inner header in two", &frame, headers - 1, &truncated);
    }
}

/// S-FWD-1: lengths are held against all buffers.
#[test]
fn lengths_beyond_the_last_buffer_are_impossible() {
    let mut bed = backend();
    let tunnelled = through(
        Family::V4,
        Kind::Ipip,
        segment(Family::V4).payload(&[0x5a; PAYLOAD]),
    );
    let length = 20 + tunnelled.inner.ip_length() as u16;
    let beyond = tunnelled.outer4(|ip| ip.total_length = Some(length + 1));
    let expected = Expected::Left(Outcome::OuterLength);
    bed.check_split("one byte", &beyond.build(), 300, &expected);
}
