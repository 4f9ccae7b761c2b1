//! The packet path's clock.

/// How far the packet path's clock may be from the one that is read here, in nanoseconds.
const TOLERANCE: u64 = 25_000_000;

/// The first tick that it may be by the packet path's clock.
pub(super) fn earliest() -> u32 {
    tick(nanoseconds() - TOLERANCE)
}

/// The last one.
pub(super) fn latest() -> u32 {
    tick(nanoseconds() + TOLERANCE)
}

/// In ticks of 2^30 ns, modulo 2^24.
fn tick(nanoseconds: u64) -> u32 {
    (nanoseconds >> 30) as u32 & TICKS
}

/// The coarse monotonic clock.
fn nanoseconds() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: a valid place for the answer; this clock exists since Linux 2.6.32.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Ticks are counted modulo this plus one.
pub(super) const TICKS: u32 = 0x00ff_ffff;
