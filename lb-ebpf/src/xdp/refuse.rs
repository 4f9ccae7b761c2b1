//! What is told to the sender of a refused packet.

use aya_ebpf::{bindings::xdp_action, programs::XdpContext};

use super::Stop;

#[inline(always)]
pub(crate) fn answer(_ctx: &XdpContext) -> Result<u32, Stop> {
    Ok(xdp_action::XDP_DROP)
}
