//! The MSS option of a SYN (RFC 9293 §3.7.1).

use super::segment::Segment;

const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const MSS: u8 = 2;

/// Where in the packet the value of the segment's MSS option stands, if it is a SYN that has one
/// and the first buffer holds it.
pub(super) fn option(segment: &Segment<'_>) -> Option<usize> {
    if !segment.flags.syn() {
        return None;
    }
    let end = segment.tcp + segment.header_length();
    let mut at = segment.tcp + 20;
    while at < end {
        match segment.packet[at] {
            END => return None,
            NO_OPERATION => at += 1,
            kind => {
                if at + 1 >= end {
                    return None;
                }
                let length = usize::from(segment.packet[at + 1]);
                if length < 2 || at + length > end {
                    return None;
                }
                if (kind, length) == (MSS, 4) {
                    return (at + 4 <= segment.linear).then_some(at + 2);
                }
                at += length;
            }
        }
    }
    None
}
