//! The program's clock, for tests of what it does only so often.

use std::time::{Duration, Instant};

use lb_common::flow::Tick;

use crate::lab::wait_until;

/// The tick that the program's clock is in.
///
/// # Panics
///
/// Where there is no such clock.
pub fn tick() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid place for the answer.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut time) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    (time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64) / Tick::NANOSECONDS
}

/// Runs `test` within one tick; again if the tick has changed meanwhile.
///
/// # Panics
///
/// If half a minute of tries was not enough.
pub fn within_a_tick<T>(mut test: impl FnMut() -> T) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let before = tick();
        wait_until(Duration::from_secs(3), "a new tick begins", || {
            tick() != before
        });
        let begun = tick();
        let result = test();
        if tick() == begun {
            return result;
        }
        assert!(Instant::now() < deadline, "the machine is too slow");
    }
}
