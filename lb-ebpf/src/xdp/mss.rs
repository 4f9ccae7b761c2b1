//! The MSS option of a SYN (RFC 9293 §3.7.1), made smaller where a segment of that size would not
//! reach the backend (S-ICMP-5).

use aya_ebpf::programs::XdpContext;
use lb_common::{
    checksum,
    records::{Backend, Hop},
};

use super::{
    Program, Stop,
    emit::{Way, emit},
    family::{Family, Parsed, Segment},
    frame::Frame,
    ipv4::Ipv4,
    ipv6::Ipv6,
    maps,
    shared::{forget, opaque},
    tcp::TcpHeader,
};

const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const MSS: u8 = 2;
const MSS_LENGTH: usize = 4;
/// Bytes of options at most, as the data offset has four bits.
const MAX_OPTIONS: usize = 40;
/// All ones, and no less than [`MAX_OPTIONS`].
const MASK: u64 = 63;

/// Clamps the MSS of a segment with SYN to what reaches this backend, if it is the first option, as
/// nearly every host has it. Otherwise `Some(limit)`: [`search`] has to be asked.
#[inline(always)]
pub(crate) fn clamp<F: Family>(segment: &mut Segment<'_, F>, backend: &Backend) -> Option<u16> {
    if !segment.flags().syn()
        || segment.tcp.length() == size_of::<TcpHeader>()
        || backend.max_packet <= F::TCP_AND_IP
    {
        return None;
    }
    let limit = backend.max_packet - F::TCP_AND_IP;
    let mut options = segment.tcp_options;
    let first = options.take::<[u8; 4]>()?;
    if (first[0], usize::from(first[1])) != (MSS, MSS_LENGTH) {
        return Some(limit);
    }
    let old = u16::from_be_bytes([first[2], first[3]]);
    if old > limit {
        [first[2], first[3]] = limit.to_be_bytes();
        segment.update_checksum(difference(0, old, limit));
    }
    None
}

/// Leaves a packet that is ready to be sent to [`search`].
#[inline(always)]
pub(crate) fn search_later(service: u16, hop: &Hop, limit: u16, wrap: bool) -> Stop {
    maps::leave_errand(|errand| {
        errand.hop = *hop;
        errand.service = service;
        errand.mss = limit;
        errand.wrap = wrap.into();
    });
    Stop::Continue(Program::Mss)
}

/// Goes on with a SYN whose first option is another one than the MSS.
#[inline(always)]
pub(crate) fn search(ctx: &XdpContext) -> Result<u32, Stop> {
    let errand = maps::errand().ok_or(Stop::Pass)?;
    let frame = Frame::parse(ctx).ok_or(Stop::Pass)?;
    if frame.is_ipv4() {
        clamp_any::<Ipv4>(&frame, errand.mss);
    } else {
        clamp_any::<Ipv6>(&frame, errand.mss);
    }
    if errand.wrap != 0 {
        return Err(Stop::Continue(Program::Tunnel));
    }
    emit(
        &frame,
        Way {
            service: errand.service,
            hop: errand.hop,
        },
    )
}

#[inline(always)]
fn clamp_any<F: Family>(frame: &Frame<'_>, limit: u16) {
    if let Parsed::Segment(mut segment) = F::parse(frame)
        && let Some(difference) = write(&segment, limit)
    {
        segment.update_checksum(difference);
    }
}

/// Writes the limit over a larger MSS; what that does to the checksum.
#[inline(always)]
fn write<F: Family>(segment: &Segment<'_, F>, limit: u16) -> Option<u16> {
    let length = segment.tcp.length().checked_sub(size_of::<TcpHeader>())?;
    let noise = u64::from(segment.tcp.checksum());
    let mut at = 0;
    for _ in 0..MAX_OPTIONS {
        if at >= length {
            return None;
        }
        let mut option = segment.tcp_options;
        option.skip(at);
        let kind = *option.take::<u8>()?;
        if kind == END {
            return None;
        }
        let size = if kind == NO_OPERATION {
            1
        } else {
            usize::from(*option.take::<u8>()?)
        };
        if size < 2 && kind != NO_OPERATION {
            return None;
        }
        if at + size > length {
            return None;
        }
        if kind == MSS && size == MSS_LENGTH {
            let value = option.take::<[u8; 2]>()?;
            let old = u16::from_be_bytes(*value);
            if old <= limit {
                return None;
            }
            *value = limit.to_be_bytes();
            return Some(difference(at, old, limit));
        }
        // The verifier is to walk the next round once, not once for each way here; and it has not
        // seen that this is less than the length, which the compiler has.
        at = forget::<MASK>(opaque(at + size) & MASK as usize, noise);
    }
    None
}

/// An option at an odd place stands across two of the checksum's words, where its bytes change
/// places (RFC 1071 §2 (B)).
#[inline(always)]
fn difference(at: usize, old: u16, new: u16) -> u16 {
    let difference = checksum::fold(u32::from(!old.to_be()) + u32::from(new.to_be()));
    if at.is_multiple_of(2) {
        difference
    } else {
        difference.swap_bytes()
    }
}
