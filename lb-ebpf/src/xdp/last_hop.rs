//! "Auto last hop": replies go back the way the request came.

use lb_common::{flow::FlowValue, records::Hop};

use super::{frame::Frame, maps};

/// Index of the hop that this frame came from.
#[inline(always)]
pub(crate) fn learn(frame: &Frame<'_>) -> u16 {
    maps::last_hop_index(&back(frame))
}

/// The record with its last hop brought up to date: a client may have moved to another router.
#[inline(always)]
pub(crate) fn refresh(frame: &Frame<'_>, value: FlowValue) -> FlowValue {
    match maps::last_hop(value.last_hop()) {
        Some(hop) if *hop == back(frame) => value,
        _ => value.with_last_hop(learn(frame)),
    }
}

/// The way back to whoever sent this frame.
#[inline(always)]
pub(crate) fn back(frame: &Frame<'_>) -> Hop {
    Hop {
        destination: frame.ethernet.src_addr,
        mtu: 0,
        source: frame.ethernet.dst_addr,
        tag_count: frame.tag_count,
        tags: frame.tags(),
        ifindex: frame.ingress_ifindex(),
        reserved: 0,
    }
}
