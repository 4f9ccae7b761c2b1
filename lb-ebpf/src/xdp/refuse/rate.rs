//! What is done only so often in a tick.

use lb_common::{
    flow::Tick,
    rate::{ICMP_ERRORS_PER_TICK, SAMPLES_PER_TICK, TickMeter},
};

use crate::xdp::maps;

/// Whether one more ICMP error may be sent (S-ICMP-6, RFC 1812 §4.3.2.8, RFC 4443 §2.4 (f)).
#[inline(always)]
pub(super) fn admits_icmp_error(now: Tick) -> bool {
    admits(TickMeter::ICMP_ERRORS, ICMP_ERRORS_PER_TICK, now)
}

/// Whether one more refusal for this reason is worth a sample.
#[inline(always)]
pub(super) fn admits_sample(reason: u8, now: Tick) -> bool {
    admits(reason.into(), SAMPLES_PER_TICK, now)
}

#[inline(always)]
fn admits(index: u32, limit: u32, now: Tick) -> bool {
    maps::tick_meter(index).is_some_and(|meter| meter.admits(now, limit))
}
