//! What is done only so often.

use crate::{flow::Tick, reason::Reason};

/// How often something has been done in a tick (one entry a CPU and index: the reason of a
/// refusal, or one of the constants).
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TickMeter {
    /// The tick that `count` is of.
    tick: u32,
    count: u32,
}

impl TickMeter {
    /// Index of the meter of ICMP errors. What is before it counts samples, by their [`Reason`].
    pub const ICMP_ERRORS: u32 = Reason::ROW;
    /// How many meters there are.
    pub const COUNT: u32 = Self::ICMP_ERRORS + 1;

    /// Whether it may be done once more in this tick; counts it if so.
    #[inline(always)]
    pub fn admits(&mut self, now: Tick, limit: u32) -> bool {
        if self.tick != now.get() {
            *self = Self {
                tick: now.get(),
                count: 0,
            };
        }
        let admitted = self.count < limit;
        self.count += u32::from(admitted);
        admitted
    }
}

/// ICMP errors that one CPU sends in a tick (S-ICMP-6).
pub const ICMP_ERRORS_PER_TICK: u32 = 1000;
/// Samples of one reason that one CPU leaves in a tick.
pub const SAMPLES_PER_TICK: u32 = 8;

const _: () = assert!(size_of::<TickMeter>() == 8);

#[cfg(test)]
mod tests {
    use super::*;

    /// S-ICMP-6
    #[test]
    fn every_tick_has_its_own_count() {
        let mut meter = TickMeter::default();
        for tick in [0, 1, 5, Tick::new(u32::MAX).get()] {
            for n in 0..10 {
                assert_eq!(meter.admits(Tick::new(tick), 3), n < 3, "{n} in {tick}");
            }
        }
    }

    #[test]
    fn nothing_is_admitted_by_a_limit_of_zero() {
        assert!(!TickMeter::default().admits(Tick::new(7), 0));
    }
}
