//! Both ends of the wire: what sends the generator's frames, and what counts those that arrive.

use aya_ebpf::{
    bindings::xdp_action,
    macros::{map, xdp},
    maps::PerCpuArray,
    programs::XdpContext,
};
use lb_common::lab::{ADDRESSES, ARRIVED, STRAY};

/// Frames that have come to the sink.
#[map]
static SINK: PerCpuArray<u64> = PerCpuArray::with_max_entries(2, 0);

/// Behind the generator: its frame leaves by the interface that the test run names.
#[xdp(frags)]
pub(crate) fn send(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_TX
}

/// Counts and drops. The generator's frames are told from the kernel's own, of neighbour discovery
/// say, by the beginning of the destination.
#[xdp(frags)]
pub(crate) fn sink(ctx: XdpContext) -> u32 {
    let destination = ctx.data() as *const u32;
    let arrived = destination.wrapping_add(1) as usize <= ctx.data_end()
        // SAFETY: within the packet; its alignment is not known.
        && unsafe { destination.read_unaligned() } == u32::from_ne_bytes(ADDRESSES);
    let counter = SINK.get_ptr_mut(if arrived { ARRIVED } else { STRAY });
    if let Some(counter) = counter {
        // SAFETY: this CPU's own, and nothing else on it counts at the same time.
        unsafe { *counter += 1 };
    }
    xdp_action::XDP_DROP
}
