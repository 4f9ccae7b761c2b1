//! "Auto last hop": replies go back the way the request came.

use lb_common::{
    flow::FlowValue,
    records::{Hop, Mac},
};

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
    let (theirs, ours) = (frame.ethernet.source, frame.ethernet.destination);
    Hop::new(
        Mac::of_pairs(theirs),
        Mac::of_pairs(ours),
        frame.ingress_ifindex(),
    )
    .tagged(frame.tag_count, frame.tags())
}
