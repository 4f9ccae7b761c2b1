//! The least that a program can do with a packet: what every other figure is compared with.

use aya_ebpf::{
    bindings::xdp_action,
    macros::{map, xdp},
    maps::DevMap,
    programs::XdpContext,
};

/// Where [`floor_redirect`] sends everything.
#[map]
static OUT: DevMap = DevMap::with_max_entries(1, 0);

#[xdp(frags)]
pub(crate) fn floor_drop(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_DROP
}

#[xdp(frags)]
pub(crate) fn floor_pass(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// Sends a frame back to where it came from.
#[xdp(frags)]
pub(crate) fn floor_swap_tx(ctx: XdpContext) -> u32 {
    let addresses = ctx.data() as *mut [[u16; 3]; 2];
    if addresses.wrapping_add(1) as usize > ctx.data_end() {
        return xdp_action::XDP_ABORTED;
    }
    // SAFETY: within the packet, which nobody else looks at, and frames begin at even addresses.
    let addresses = unsafe { &mut *addresses };
    let [destination, source] = *addresses;
    *addresses = [source, destination];
    xdp_action::XDP_TX
}

/// Sends a frame to an interface that is always the same.
#[xdp(frags)]
pub(crate) fn floor_redirect(_ctx: XdpContext) -> u32 {
    OUT.redirect(0, 0).unwrap_or(xdp_action::XDP_ABORTED)
}
