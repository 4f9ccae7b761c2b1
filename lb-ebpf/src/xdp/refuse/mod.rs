//! What is told to the sender of a refused packet (S-CT-7, S-ICMP-5).
//!
//! The packet has been counted, and whatever has an answer is whole and stands in the frame as it
//! came. What cannot be answered is dropped without a word more.

mod header;
mod icmp;
mod rate;
mod rst;
mod sample;

use aya_ebpf::{bindings::xdp_action, programs::XdpContext};
use lb_common::{reason::Reason, records::Answer};

use self::header::Headers;
use super::{
    Stop, clock, errand::Errand, family::Parsed, frame::Frame, ipv4::Ipv4, ipv6::Ipv6, maps,
};

#[inline(always)]
pub(crate) fn answer(ctx: &XdpContext) -> Result<u32, Stop> {
    let dropped = Ok(xdp_action::XDP_DROP);
    let (Some(errand), Some(frame)) = (maps::errand(), Frame::parse(ctx)) else {
        return dropped;
    };
    let sent = if frame.is_ipv4() {
        reply::<Ipv4>(&frame, errand)
    } else {
        reply::<Ipv6>(&frame, errand)
    };
    match sent {
        Some(reason) => {
            maps::count_reason(errand.service, reason);
            Ok(xdp_action::XDP_TX)
        }
        None => dropped,
    }
}

/// Makes the frame its own answer, unless there is none; what that counts as.
#[inline(always)]
fn reply<F: Headers>(frame: &Frame<'_>, errand: &Errand) -> Option<Reason> {
    let parsed = F::parse(frame);
    sample::take(frame, errand, &parsed);
    let Parsed::Segment(segment) = parsed else {
        return None;
    };
    if !F::is_host(segment.source()) {
        return None;
    }
    let (kind, mtu) = match errand.answer() {
        Answer::Nothing => return None,
        Answer::Rst => return rst::write(frame, &segment).map(|()| Reason::RstSent),
        Answer::PortUnreachable => (F::ICMP.port_unreachable, 0),
        Answer::TooBig => (F::ICMP.too_big, errand.mtu()),
    };
    if !rate::admits_icmp_error(clock::now()) {
        maps::count_reason(errand.service, Reason::IcmpLimited);
        return None;
    }
    icmp::write(frame, &segment, kind, mtu).map(|()| Reason::IcmpSent)
}
