//! The packet path's clock.

/// The coarse monotonic clock in ticks of 2^30 ns, modulo 2^24.
pub(super) fn tick() -> u32 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: a valid place for the answer; this clock exists since Linux 2.6.32.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut time) };
    let nanoseconds = time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64;
    (nanoseconds >> 30) as u32 & TICKS
}

/// Ticks are counted modulo this plus one.
pub(super) const TICKS: u32 = 0x00ff_ffff;
