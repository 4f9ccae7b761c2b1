//! Echo requests to a service's address, which no host need have (S-ICMP-4).

use aya_ebpf::bindings::xdp_action;
use lb_common::{checksum, reason::Reason};

use super::message::{IcmpHeader, Message, Messages};
use crate::xdp::{Stop, emit::turn_back, frame::Frame, maps};

/// TTL or hop limit of the reply.
const HOPS: u8 = 64;
/// What is counted is about an address, which may be several services'.
const NO_SERVICE: u16 = 0;

/// Sends the request back to whoever sent it, as a reply.
#[inline(always)]
pub(super) fn answer<F: Messages>(frame: &Frame<'_>, message: Message<'_, F>) -> Result<u32, Stop> {
    let (source, destination) = (F::source(message.ip), F::destination(message.ip));
    if !maps::is_service_address::<F>(destination)
        || maps::settings().is_none_or(|settings| settings.answer_echo == 0)
        || !F::is_host(source)
    {
        return Err(Stop::Pass);
    }
    message
        .check(frame, size_of::<F::Header>() + size_of::<IcmpHeader>())
        .map_err(|reason| Stop::drop(NO_SERVICE, reason))?;
    let Message { ip, icmp, .. } = message;
    // Sums do not care which address comes first.
    F::set_source(ip, destination, 0);
    F::set_destination(ip, source, 0);
    F::set_hop_limit(ip, HOPS);
    icmp.kind = F::ECHO_REPLY;
    let difference = checksum::combine(!kind_word(F::ECHO_REQUEST), kind_word(F::ECHO_REPLY));
    icmp.update_checksum(difference);
    turn_back(frame).ok_or(Stop::Pass)?;
    maps::count_reason(NO_SERVICE, Reason::EchoAnswered);
    Ok(xdp_action::XDP_TX)
}

/// Type and code as they stand in a message.
#[inline(always)]
const fn kind_word(kind: u8) -> u16 {
    u16::from_ne_bytes([kind, 0])
}
