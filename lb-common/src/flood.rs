//! Tells a flood of SYNs from many new connections: by their number, CPU by CPU.

use crate::flow::Tick;

/// How many SYNs without a record a CPU has seen of late.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FloodMeter {
    /// The tick that `count` is of.
    tick: u32,
    count: u32,
    /// 1 while SYNs are not to be recorded.
    flooded: u32,
    reserved: u32,
}

impl FloodMeter {
    /// Counts a SYN that would make a record; whether it comes in a flood.
    ///
    /// A flood begins with more than `limit` in a tick, at once, and goes on in the next tick if
    /// more than half the limit came in this one: one near the limit does not switch back and
    /// forth.
    #[inline(always)]
    pub fn count(&mut self, now: Tick, limit: u32) -> bool {
        if self.tick != now.get() {
            *self = self.next(now, limit);
        }
        self.count = self.count.saturating_add(1);
        if self.count > limit {
            self.flooded = 1;
        }
        self.flooded != 0
    }

    #[inline(always)]
    fn next(self, now: Tick, limit: u32) -> Self {
        let follows = now.since(Tick::new(self.tick)) == 1;
        let goes_on = self.count > limit || (self.flooded != 0 && self.count > limit / 2);
        Self {
            tick: now.get(),
            count: 0,
            flooded: u32::from(follows && goes_on),
            reserved: 0,
        }
    }

    /// Whether SYNs are not recorded at this time.
    #[must_use]
    pub fn is_flooded(self, now: Tick) -> bool {
        self.flooded != 0 && now.since(Tick::new(self.tick)) <= 1
    }
}

const _: () = assert!(size_of::<FloodMeter>() == 16);

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u32 = 10;

    /// Counts so many in a tick; how many of them came in a flood.
    fn flooded(meter: &mut FloodMeter, tick: u32, count: u32) -> u32 {
        let in_flood = |_| u32::from(meter.count(Tick::new(tick), LIMIT));
        (0..count).map(in_flood).sum()
    }

    /// S-CT-1
    #[test]
    fn a_flood_begins_above_the_limit_and_at_once() {
        let mut meter = FloodMeter::default();
        assert_eq!(flooded(&mut meter, 5, LIMIT), 0);
        assert!(!meter.is_flooded(Tick::new(5)));
        assert_eq!(flooded(&mut meter, 5, 3), 3);
        assert!(meter.is_flooded(Tick::new(6)));
    }

    #[test]
    fn it_goes_on_while_more_than_half_the_limit_comes() {
        let mut meter = FloodMeter::default();
        flooded(&mut meter, 5, LIMIT + 1);
        assert_eq!(flooded(&mut meter, 6, 6), 6);
        assert_eq!(flooded(&mut meter, 7, 5), 5);
        assert_eq!(flooded(&mut meter, 8, 6), 0);
        assert_eq!(flooded(&mut meter, 9, LIMIT), 0);
    }

    #[test]
    fn it_is_over_after_a_tick_without_syns() {
        let mut meter = FloodMeter::default();
        flooded(&mut meter, 5, 2 * LIMIT);
        assert!(!meter.is_flooded(Tick::new(7)));
        assert_eq!(flooded(&mut meter, 7, LIMIT), 0);
    }

    #[test]
    fn ticks_wrap() {
        let mut meter = FloodMeter::default();
        flooded(&mut meter, 0x00ff_ffff, 2 * LIMIT);
        assert_eq!(flooded(&mut meter, 0, 1), 1);
    }
}
