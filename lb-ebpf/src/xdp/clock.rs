use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use lb_common::flow::Tick;

/// The coarse clock costs a tenth of the fine one, and a tick is a second.
#[inline(always)]
pub(crate) fn now() -> Tick {
    // SAFETY: the helper takes no arguments and only reads a clock.
    Tick::from_nanoseconds(unsafe { bpf_ktime_get_coarse_ns() })
}
