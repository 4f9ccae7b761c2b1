use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use lb_common::flow::Tick;

/// The coarse clock costs a tenth of the fine one, and a tick is a second.
#[inline(always)]
pub(crate) fn now() -> Tick {
    Tick::from_nanoseconds(nanoseconds())
}

/// `CLOCK_MONOTONIC`, some milliseconds old.
#[inline(always)]
pub(crate) fn nanoseconds() -> u64 {
    // SAFETY: the helper takes no arguments and only reads a clock.
    unsafe { bpf_ktime_get_coarse_ns() }
}
