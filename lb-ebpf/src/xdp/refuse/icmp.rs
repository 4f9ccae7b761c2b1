//! ICMP errors about a refused packet (RFC 792, RFC 1191, RFC 4443).

use lb_common::checksum;

use super::header::{Head, Headers};
use crate::xdp::{
    emit::{self, Way, cut},
    family::Segment,
    frame::{Frame, Header},
    last_hop,
};

/// DSCP CS6, as routers send errors (RFC 1812 §4.3.2.5).
const INTERNETWORK_CONTROL: u8 = 0xc0;
/// The quote is a whole number of these, each summed up at once.
type Word = [u8; 4];

/// Type and code.
pub(super) type Kind = [u8; 2];

/// What ICMP is in a family.
pub(super) struct Icmp {
    pub(super) protocol: u8,
    pub(super) port_unreachable: Kind,
    pub(super) too_big: Kind,
    /// Bytes of the packet that are quoted at most, so that every host can take the error: it has
    /// 576 bytes (RFC 1812 §4.3.2.3), or 1280 (RFC 4443 §2.4 (c)).
    pub(super) max_quote: usize,
    /// Whether the checksum covers a pseudo-header, too (RFC 4443 §2.3).
    pub(super) has_pseudo_header: bool,
}

/// The header of the errors that are sent here.
#[repr(C)]
struct ErrorHeader {
    kind: Kind,
    checksum: [u8; 2],
    /// The MTU, or zero.
    parameter: [u8; 4],
}

// SAFETY: byte arrays only.
unsafe impl Header for ErrorHeader {}

/// Puts an error in front of the packet, which it quotes as it came; `mtu` is in bytes and 0 where
/// the error says nothing of it.
#[inline(always)]
pub(super) fn write<F: Headers>(
    frame: &Frame<'_>,
    segment: &Segment<'_, F>,
    kind: Kind,
    mtu: u16,
) -> Option<()> {
    let quote = quote(segment);
    let head = Head::<F> {
        source: segment.destination(),
        destination: segment.source(),
        protocol: F::ICMP.protocol,
        service_type: INTERNETWORK_CONTROL,
        payload: (size_of::<ErrorHeader>() + quote) as u16,
    };
    let way = Way {
        service: 0,
        hop: last_hop::back(frame),
    };
    cut(frame, segment.room_of_all(frame) - quote)?;
    let headers = F::LENGTH + size_of::<ErrorHeader>();
    let mut cursor = emit::address(frame, &way, frame.ether_type(), headers).ok()?;
    F::write(&head, &mut cursor)?;
    let error = cursor.take::<ErrorHeader>()?;
    error.kind = kind;
    error.parameter = u32::from(mtu).to_be_bytes();
    let mut sum =
        u64::from(u16::from_ne_bytes(kind)) + u64::from(u32::from_ne_bytes(error.parameter));
    if F::ICMP.has_pseudo_header {
        sum += u64::from(F::pseudo_header(&head));
    }
    // The frame ends with the quote.
    for _ in 0..F::ICMP.max_quote / size_of::<Word>() {
        match cursor.take::<Word>() {
            Some(word) => sum += u64::from(u32::from_ne_bytes(*word)),
            None => break,
        }
    }
    error.checksum = (!fold(sum)).to_ne_bytes();
    emit::leave(frame, &way).is_ok().then_some(())
}

/// Bytes of the packet that are quoted.
#[inline(always)]
fn quote<F: Headers>(segment: &Segment<'_, F>) -> usize {
    let length = segment.length().min(segment.room).min(F::ICMP.max_quote);
    length & !(size_of::<Word>() - 1)
}

/// The sum of words of 32 bits, at most 2^15 of them, as one of 16 bits.
#[inline(always)]
fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
    checksum::fold(sum as u32)
}
