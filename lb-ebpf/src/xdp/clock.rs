use aya_ebpf::{
    helpers::generated::{bpf_jiffies64, bpf_ktime_get_coarse_ns},
    macros::xdp,
    programs::XdpContext,
};
use lb_common::flow::Tick;

use super::maps;

/// The clock of the connection table: nanoseconds as `CLOCK_MONOTONIC` has them, to a jiffy or two.
///
/// The kernel's verifier makes a load of the call that reads the jiffies, where every clock is a
/// call; the daemon says what they amount to, and again and again, because they know nothing of
/// adjustments to the clock's rate.
#[inline(always)]
pub(crate) fn now() -> Tick {
    let offset = maps::settings().map_or(0, |settings| settings.clock_offset);
    let elapsed = jiffies().wrapping_mul(maps::nanoseconds_a_jiffy());
    Tick::from_nanoseconds(elapsed.wrapping_add(offset))
}

/// `CLOCK_MONOTONIC`, some milliseconds old.
#[inline(always)]
pub(crate) fn nanoseconds() -> u64 {
    // SAFETY: the helper takes no arguments and only reads a clock.
    unsafe { bpf_ktime_get_coarse_ns() }
}

#[inline(always)]
fn jiffies() -> u64 {
    // SAFETY: the helper takes no arguments and only reads a counter.
    unsafe { bpf_jiffies64() }
}

/// Writes the jiffies over the first eight bytes of a packet, which is the daemon's own: it asks
/// for them by `BPF_PROG_TEST_RUN`. The verdict is of no account.
#[xdp]
pub(crate) fn lb_clock(ctx: XdpContext) -> u32 {
    let place = ctx.data() as *mut u64;
    if place.wrapping_add(1) as usize <= ctx.data_end() {
        // SAFETY: within the packet, as was just checked; its alignment is not known.
        unsafe { place.write_unaligned(jiffies()) };
    }
    aya_ebpf::bindings::xdp_action::XDP_PASS
}
