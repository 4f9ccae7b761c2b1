//! The entry points, and the whole way on one page.

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use lb_common::{
    decap::{Outcome, Verdict},
    ecn::Ecn,
};

use super::{
    frame::Frame,
    ip::{self, Ip},
    ipv4::Ipv4,
    ipv6::Ipv6,
    maps,
    strip::strip,
    tunnel::{self, Tunnel},
};

/// Why a packet is not stripped.
pub(crate) enum Stop {
    /// Nobody has sent it to this host through a tunnel: it passes, and nobody counts it.
    NotOurs,
    /// Aimed at us and yet passed or dropped, with a reason.
    Counted(Outcome),
}

impl From<Outcome> for Stop {
    #[inline(always)]
    fn from(outcome: Outcome) -> Self {
        Self::Counted(outcome)
    }
}

/// Entry point where the kernel has multi-buffer XDP (5.18).
#[xdp(frags)]
#[inline(always)]
pub(crate) fn lb_decap(ctx: XdpContext) -> u32 {
    run::<true>(&ctx)
}

/// Entry point for older kernels.
#[xdp]
#[inline(always)]
pub(crate) fn lb_decap_linear(ctx: XdpContext) -> u32 {
    run::<false>(&ctx)
}

/// `BUFFERS`: whether a frame may have more than one buffer.
#[inline(always)]
fn run<const BUFFERS: bool>(ctx: &XdpContext) -> u32 {
    let Some(frame) = Frame::parse(ctx) else {
        return xdp_action::XDP_PASS;
    };
    let stripped = if frame.is_ipv4() {
        decapsulate::<Ipv4, BUFFERS>(&frame)
    } else if frame.is_ipv6() {
        decapsulate::<Ipv6, BUFFERS>(&frame)
    } else {
        Err(Stop::NotOurs)
    };
    let outcome = match stripped {
        Ok(outcome) | Err(Stop::Counted(outcome)) => outcome,
        Err(Stop::NotOurs) => return xdp_action::XDP_PASS,
    };
    maps::count(outcome);
    match outcome.verdict() {
        Verdict::Dropped => xdp_action::XDP_DROP,
        Verdict::Stripped | Verdict::Passed => xdp_action::XDP_PASS,
    }
}

#[inline(always)]
fn decapsulate<O: Ip, const BUFFERS: bool>(frame: &Frame<'_>) -> Result<Outcome, Stop> {
    let outer = ip::Outer::<O>::read(frame)?;
    let tunnel = tunnel::recognise(&outer)?;
    match tunnel.version {
        Ipv4::VERSION => unwrap::<O, Ipv4, BUFFERS>(frame, &outer, tunnel),
        Ipv6::VERSION => unwrap::<O, Ipv6, BUFFERS>(frame, &outer, tunnel),
        _ => Err(Outcome::InnerVersion.into()),
    }
}

/// Leaves an inner packet of version `I`, if all is well with it.
#[inline(always)]
fn unwrap<O: Ip, I: Ip, const BUFFERS: bool>(
    frame: &Frame<'_>,
    outer: &ip::Outer<'_, O>,
    tunnel: Tunnel<'_>,
) -> Result<Outcome, Stop> {
    let mut first = tunnel.body;
    let mut body = tunnel.body;
    let first = first.take::<u8>().ok_or(Outcome::InnerTruncated)?;
    if ip::version(*first) != I::VERSION {
        return Err(Outcome::InnerVersion.into());
    }
    let inner = body.take::<I::Header>().ok_or(Outcome::InnerTruncated)?;
    if !I::is_own(inner) {
        return Err(Outcome::InnerAddress.into());
    }

    let inside = outer.check::<BUFFERS>(frame)?;
    let inside = tunnel.check(inside)?;
    let length = I::length(inner);
    if I::header_length(inner) < size_of::<I::Header>()
        || length < I::header_length(inner)
        || length > inside
    {
        return Err(Outcome::InnerLength.into());
    }

    let before = Ecn::of(I::traffic_class(inner));
    let after = before
        .decapsulated(Ecn::of(O::traffic_class(outer.header)))
        .ok_or(Outcome::Ecn)?;
    if after != before {
        I::set_ecn(inner, after);
    }
    strip(
        frame,
        outer.header_length + tunnel.header_length,
        I::ETHER_TYPE,
    )
    .ok_or(Outcome::NotStripped)?;
    Ok(tunnel.outcome)
}
