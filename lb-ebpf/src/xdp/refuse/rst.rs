//! A reset, for a segment of a connection that there is not (RFC 9293 §3.10.7.1).

use lb_common::{checksum, tcp::Flags};

use super::header::{Head, Headers};
use crate::xdp::{
    emit::{cut, turn_back},
    family::Segment,
    frame::Frame,
    sum::word32,
    tcp::TcpHeader,
};

const TCP: u8 = 6;
/// The data offset of a header without options, as it stands in its byte.
const NO_OPTIONS: u8 = 5 << 4;
const LENGTH: usize = size_of::<TcpHeader>();

/// What a reset says; the numbers in network order.
struct Reset {
    source: [u8; 2],
    destination: [u8; 2],
    sequence: [u8; 4],
    acknowledgement: [u8; 4],
    flags: u8,
}

/// Writes a reset over the segment; `None`, before anything is changed, for a segment that has no
/// answer.
#[inline(always)]
pub(super) fn write<F: Headers>(frame: &Frame<'_>, segment: &Segment<'_, F>) -> Option<()> {
    let reset = reset(segment)?;
    let head = Head::<F> {
        source: segment.destination(),
        destination: segment.source(),
        protocol: TCP,
        service_type: 0,
        payload: LENGTH as u16,
    };
    let mut cursor = frame.network();
    let rest = segment.room_of_all(frame);
    F::write(&head, &mut cursor)?;
    write_tcp(cursor.take::<TcpHeader>()?, &reset, F::pseudo_header(&head));
    turn_back(frame)?;
    cut(frame, rest - F::LENGTH - LENGTH)
}

/// "If the incoming segment has an ACK field, the reset takes its sequence number from the ACK
/// field of the segment; otherwise, the reset has sequence number zero and the ACK field is set to
/// the sum of the sequence number and segment length of the incoming segment."
#[inline(always)]
fn reset<F: Headers>(segment: &Segment<'_, F>) -> Option<Reset> {
    let flags = segment.flags();
    if flags.rst() {
        return None;
    }
    let tcp = &*segment.tcp;
    let (sequence, acknowledgement, flags) = if flags.ack() {
        (tcp.acknowledgement, [0; 4], Flags::RST)
    } else {
        let data = segment
            .length()
            .checked_sub(segment.tcp_offset + tcp.length())?;
        let length = data as u32 + u32::from(flags.syn()) + u32::from(flags.fin());
        let next = u32::from_be_bytes(tcp.sequence).wrapping_add(length);
        ([0; 4], next.to_be_bytes(), Flags::RST | Flags::ACK)
    };
    Some(Reset {
        source: tcp.destination,
        destination: tcp.source,
        sequence,
        acknowledgement,
        flags,
    })
}

#[inline(always)]
fn write_tcp(tcp: &mut TcpHeader, reset: &Reset, pseudo_header: u32) {
    tcp.source = reset.source;
    tcp.destination = reset.destination;
    tcp.sequence = reset.sequence;
    tcp.acknowledgement = reset.acknowledgement;
    tcp.offset = NO_OPTIONS;
    tcp.flags = reset.flags;
    tcp.window = [0; 2];
    tcp.urgent = [0; 2];
    let sum = pseudo_header
        + u32::from(u16::from_ne_bytes(reset.source))
        + u32::from(u16::from_ne_bytes(reset.destination))
        + word32(u32::from_ne_bytes(reset.sequence))
        + word32(u32::from_ne_bytes(reset.acknowledgement))
        + u32::from(u16::from_ne_bytes([NO_OPTIONS, reset.flags]));
    tcp.set_checksum(!checksum::fold(sum));
}
