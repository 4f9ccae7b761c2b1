//! The packet path's clock.

use crate::clock::{TOLERANCE, nanoseconds};

/// The first tick that it may be by the packet path's clock.
pub(super) fn earliest() -> u32 {
    tick(nanoseconds() - TOLERANCE)
}

/// The last one.
pub(super) fn latest() -> u32 {
    tick(nanoseconds() + TOLERANCE)
}

/// In ticks of 2^30 ns, modulo 2^22.
fn tick(nanoseconds: u64) -> u32 {
    (nanoseconds >> 30) as u32 & TICKS
}

/// Ticks are counted modulo this plus one.
pub(super) const TICKS: u32 = 0x003f_ffff;
