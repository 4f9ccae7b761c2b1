//! The program's clock, for tests of what it does only so often.

use std::time::{Duration, Instant};

use lb_common::flow::Tick;

use crate::{
    clock::{TOLERANCE, nanoseconds},
    lab::wait_until,
};

/// Waits until so many ticks have begun and ended by the program's clock.
///
/// # Panics
///
/// Where there is no such clock, or it stands still.
pub fn let_ticks_pass(ticks: u64) {
    let last = tick(nanoseconds() + TOLERANCE) + ticks;
    wait_until(
        Duration::from_secs(2 * (1 + ticks)),
        "a new tick begins",
        || tick(nanoseconds() - TOLERANCE) >= last,
    );
}

/// Runs `test` within one tick; again if the tick has changed meanwhile.
///
/// # Panics
///
/// If half a minute of tries was not enough.
pub fn within_a_tick<T>(mut test: impl FnMut() -> T) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let_ticks_pass(1);
        let begun = tick(nanoseconds() - TOLERANCE);
        let result = test();
        if tick(nanoseconds() + TOLERANCE) == begun {
            return result;
        }
        assert!(Instant::now() < deadline, "the machine is too slow");
    }
}

fn tick(nanoseconds: u64) -> u64 {
    nanoseconds / Tick::NANOSECONDS
}
