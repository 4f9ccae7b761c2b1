//! The packet's way, top to bottom:
//!
//! ```text
//! frame ─ parse ─ classify ─ request: find ─ hit ─────────────────────┐
//!                     │               └ SYN, or miss: open ─ select ──┤
//!                     ├ reply: find ──────────────────────────────────┤
//!                     └ neither: XDP_PASS                    rewrite ─┴ emit
//! ```
//!
//! Everything is generic over the address [`family`] and monomorphised for IPv4 and IPv6.
//!
//! What most packets do not need is in programs of its own, reached by tail calls, so that neither
//! the packets nor the verifier pay for it: [`open`], [`mss`], [`full_nat`], [`icmp`], [`refuse`],
//! and [`tunnel`] for what is not of a known connection.

mod clock;
mod collision;
mod emit;
mod errand;
mod family;
mod fib;
mod frame;
mod full_nat;
mod icmp;
mod ipv4;
mod ipv6;
mod last_hop;
mod maps;
mod mss;
mod open;
mod refuse;
mod reply;
mod request;
mod rewrite;
mod select;
mod shared;
mod snat;
mod sum;
mod tcp;
mod track;
mod tunnel;

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use aya_log_ebpf::debug;
use lb_common::{reason::Reason, records::Answer};

use self::{
    family::{Family, Parsed},
    frame::Frame,
    ipv4::Ipv4,
    ipv6::Ipv6,
};

/// Why a packet is not forwarded here.
pub(crate) enum Stop {
    /// Not ours: the host's own stack gets it untouched.
    Pass,
    Refuse(Refusal),
    /// Another program goes on with it.
    Continue(Program),
}

/// A packet that is dropped, and perhaps answered.
#[derive(Clone, Copy)]
pub(crate) struct Refusal {
    /// Whom it is counted for; 0: aimed at a service's address, not at its port.
    pub(crate) service: u16,
    pub(crate) reason: Reason,
    pub(crate) answer: Answer,
    /// What "too big" says, in bytes.
    pub(crate) mtu: u16,
}

impl Stop {
    /// Dropped without an answer.
    #[inline(always)]
    pub(crate) fn drop(service: u16, reason: Reason) -> Self {
        Self::answer(service, reason, Answer::Nothing)
    }

    #[inline(always)]
    pub(crate) fn answer(service: u16, reason: Reason, answer: Answer) -> Self {
        Self::Refuse(Refusal {
            service,
            reason,
            answer,
            mtu: 0,
        })
    }
}

/// Programs that are reached by a tail call, by their index in [`maps::PROGRAMS`].
#[repr(u32)]
#[derive(Clone, Copy)]
pub(crate) enum Program {
    Tunnel = lb_common::records::program::TUNNEL,
    FullNat4 = lb_common::records::program::FULL_NAT4,
    FullNat6 = lb_common::records::program::FULL_NAT6,
    Icmp = lb_common::records::program::ICMP,
    Refuse = lb_common::records::program::REFUSE,
    Open4 = lb_common::records::program::OPEN4,
    Open6 = lb_common::records::program::OPEN6,
    Rivals4 = lb_common::records::program::RIVALS4,
    Rivals6 = lb_common::records::program::RIVALS6,
    Mss = lb_common::records::program::MSS,
}

/// Two entry points of one function: with multi-buffer support (5.18), and for older kernels.
macro_rules! program {
    ($name:ident, $linear:ident, $run:expr) => {
        #[xdp(frags)]
        #[inline(always)]
        pub(crate) fn $name(ctx: XdpContext) -> u32 {
            conclude(&ctx, $run(&ctx))
        }

        #[xdp]
        #[inline(always)]
        pub(crate) fn $linear(ctx: XdpContext) -> u32 {
            conclude(&ctx, $run(&ctx))
        }
    };
}

program!(lb, lb_linear, balance);
program!(lb_open4, lb_open4_linear, open::balance::<Ipv4>);
program!(lb_open6, lb_open6_linear, open::balance::<Ipv6>);
program!(lb_rivals4, lb_rivals4_linear, collision::clear::<Ipv4>);
program!(lb_rivals6, lb_rivals6_linear, collision::clear::<Ipv6>);
program!(lb_mss, lb_mss_linear, mss::search);
program!(lb_tunnel, lb_tunnel_linear, tunnel::encapsulate);
program!(lb_full_nat4, lb_full_nat4_linear, full_nat::balance::<Ipv4>);
program!(lb_full_nat6, lb_full_nat6_linear, full_nat::balance::<Ipv6>);
program!(lb_icmp, lb_icmp_linear, icmp::balance);
program!(lb_refuse, lb_refuse_linear, refuse::answer);

/// From what became of a packet to what the driver is to do with it.
#[inline(always)]
fn conclude(ctx: &XdpContext, outcome: Result<u32, Stop>) -> u32 {
    match outcome {
        Ok(action) => action,
        Err(Stop::Pass) => xdp_action::XDP_PASS,
        Err(Stop::Continue(program)) => maps::continue_with(ctx, program),
        Err(Stop::Refuse(refusal)) => {
            let Refusal {
                service, reason, ..
            } = refusal;
            maps::count_reason(service, reason);
            debug!(ctx, "refused, reason {}, service {}", reason as u8, service);
            maps::leave_errand(|errand| errand.set_refusal(refusal));
            maps::continue_with(ctx, Program::Refuse)
        }
    }
}

#[inline(always)]
fn balance(ctx: &XdpContext) -> Result<u32, Stop> {
    let frame = Frame::parse(ctx).ok_or(Stop::Pass)?;
    if frame.is_ipv4() {
        forward::<Ipv4>(&frame)
    } else if frame.is_ipv6() {
        forward::<Ipv6>(&frame)
    } else {
        Err(Stop::Pass)
    }
}

#[inline(always)]
fn forward<F: Family>(frame: &Frame) -> Result<u32, Stop> {
    let mut segment = match F::parse(frame) {
        Parsed::Segment(segment) => segment,
        Parsed::Other => return Err(Stop::Pass),
        Parsed::Icmp => return Err(Stop::Continue(Program::Icmp)),
        Parsed::Suspect {
            destination,
            reason,
        } => {
            return Err(match maps::is_service_address::<F>(destination) {
                true => Stop::drop(0, reason),
                false => Stop::Pass,
            });
        }
    };
    if let Some(service) = maps::service_at::<F>(segment.destination(), segment.tcp.destination) {
        request::forward(frame, &mut segment, service)
    } else if let Some(backend) = maps::backend_at::<F>(segment.source(), segment.tcp.source) {
        reply::forward(frame, &mut segment, backend)
    } else {
        Err(Stop::Pass)
    }
}
