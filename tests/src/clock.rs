//! The packet path's clock, as it can be read from here.

/// How far it may be from [`nanoseconds`]: the daemon keeps it in step, but not to a jiffy.
pub(crate) const TOLERANCE: u64 = 25_000_000;

/// `CLOCK_MONOTONIC_COARSE`, which is also what `bpf_ktime_get_coarse_ns` gives.
///
/// # Panics
///
/// Where there is no such clock.
pub(crate) fn nanoseconds() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: a valid place for the answer.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut time) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
