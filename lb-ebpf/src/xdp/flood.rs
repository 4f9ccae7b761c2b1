//! Floods of SYNs: while there is one, connections that a hash spreads are not recorded at their
//! first packet, so that a flood costs neither inserts nor room in the table (S-CT-1).

use lb_common::{flow::Tick, records::FloodMeter};

use super::maps;

/// Counts a SYN that would make a record; whether it comes in a flood.
#[inline(always)]
pub(crate) fn count(now: Tick) -> bool {
    let Some(settings) = maps::settings() else {
        return false;
    };
    let Some(meter) = maps::flood_meter() else {
        return false;
    };
    if meter.tick != now.get() {
        *meter = next(*meter, now, settings.flood_limit);
    }
    meter.count = meter.count.saturating_add(1);
    if meter.count > settings.flood_limit {
        meter.flooded = 1;
    }
    meter.flooded != 0
}

/// The meter at the first SYN of a tick. A flood goes on while more than half the limit comes, so
/// that one near the limit does not switch back and forth.
#[inline(always)]
fn next(last: FloodMeter, now: Tick, limit: u32) -> FloodMeter {
    let follows = now.since(Tick::new(last.tick)) == 1;
    let goes_on = last.count > limit || (last.flooded != 0 && last.count > limit / 2);
    FloodMeter {
        tick: now.get(),
        count: 0,
        flooded: u32::from(follows && goes_on),
        reserved: 0,
    }
}
