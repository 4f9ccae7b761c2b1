//! The program's clock, for tests of what it does only so often.

use std::time::{Duration, Instant};

use lb_common::flow::Tick;

use crate::lab::wait_until;

/// How far the packet path's clock may be from the one that is read here.
const TOLERANCE: u64 = 25_000_000;

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

fn nanoseconds() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid place for the answer.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut time) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
