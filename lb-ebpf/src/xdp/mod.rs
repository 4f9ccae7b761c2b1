//! The packet's way, top to bottom:
//!
//! ```text
//! frame ─ parse ─ classify ─ request: find ─ hit ──────────┐
//!                     │               └ miss ─ select ─────┤
//!                     ├ reply: find ───────────────────────┤
//!                     └ neither: XDP_PASS         rewrite ─┴ emit
//! ```
//!
//! Everything is generic over the address [`family`] and monomorphised for IPv4 and IPv6.

mod clock;
mod collision;
mod emit;
mod family;
mod fib;
mod frame;
mod ipv4;
mod ipv6;
mod last_hop;
mod maps;
mod reply;
mod request;
mod rewrite;
mod select;
mod shared;
mod tcp;
mod track;

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use aya_log_ebpf::debug;
use lb_common::reason::Reason;

use self::{
    emit::emit,
    family::{Family, Parsed},
    frame::Frame,
    ipv4::Ipv4,
    ipv6::Ipv6,
};

/// Why a packet is not forwarded.
pub(crate) enum Stop {
    /// Not ours: the host's own stack gets it untouched.
    Pass,
    /// Dropped, and counted for this service (0: aimed at a service's address, not at its port).
    Drop { service: u16, reason: Reason },
}

/// Entry point where the kernel has multi-buffer XDP (5.18).
#[xdp(frags)]
#[inline(always)]
pub(crate) fn lb(ctx: XdpContext) -> u32 {
    balance(&ctx)
}

/// Entry point for older kernels.
#[xdp]
#[inline(always)]
pub(crate) fn lb_linear(ctx: XdpContext) -> u32 {
    balance(&ctx)
}

#[inline(always)]
fn balance(ctx: &XdpContext) -> u32 {
    let Some(frame) = Frame::parse(ctx) else {
        return xdp_action::XDP_PASS;
    };
    let sent = if frame.is_ipv4() {
        forward::<Ipv4>(&frame)
    } else if frame.is_ipv6() {
        forward::<Ipv6>(&frame)
    } else {
        Err(Stop::Pass)
    };
    match sent {
        Ok(action) => action,
        Err(Stop::Pass) => xdp_action::XDP_PASS,
        Err(Stop::Drop { service, reason }) => {
            maps::count_reason(service, reason);
            debug!(ctx, "dropped, reason {}, service {}", reason as u8, service);
            xdp_action::XDP_DROP
        }
    }
}

#[inline(always)]
fn forward<F: Family>(frame: &Frame) -> Result<u32, Stop> {
    let mut segment = match F::parse(frame) {
        Parsed::Segment(segment) => segment,
        Parsed::Other => return Err(Stop::Pass),
        Parsed::Suspect {
            destination,
            reason,
        } => {
            return Err(match maps::service_at::<F>(destination, [0; 2]) {
                Some(_) => Stop::Drop { service: 0, reason },
                None => Stop::Pass,
            });
        }
    };
    let way = if let Some(service) =
        maps::service_at::<F>(segment.destination(), segment.tcp.destination)
    {
        request::translate(frame, &mut segment, service)?
    } else if let Some(backend) = maps::backend_at::<F>(segment.source(), segment.tcp.source) {
        reply::translate(frame, &mut segment, backend)?
    } else {
        return Err(Stop::Pass);
    };
    emit(frame, way)
}
