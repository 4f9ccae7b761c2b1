//! When the next probe starts. Pure but for [`random`].

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    time::Duration,
};

/// However long the interval, an operator who adds a backend wants to know about it now.
const FIRST_WITHIN: Duration = Duration::from_secs(1);

/// Wait before the first probe of a target: a random part of the interval, but at most a second,
/// so that the probes of targets that begin together are spread from the start.
///
/// `random` is in `0.0..1.0`.
pub(super) fn first_wait(interval: Duration, random: f64) -> Duration {
    interval.min(FIRST_WITHIN).mul_f64(random)
}

/// Wait from the start of one probe to the start of the next: the interval ±10 %, so that probes
/// that have fallen into step (several balancers, one backend) fall out of it again.
///
/// `random` is in `0.0..1.0`.
pub(super) fn next_wait(interval: Duration, random: f64) -> Duration {
    interval.mul_f64(0.9 + 0.2 * random)
}

/// A number in `0.0..1.0`, uniform and good enough to spread probes.
///
/// Each `RandomState` has a key of its own, seeded by the operating system, and so its keyed hash
/// of nothing is a random number; that saves a generator and its state.
pub(super) fn random() -> f64 {
    const MANTISSA_BITS: u32 = f64::MANTISSA_DIGITS;
    let bits = RandomState::new().build_hasher().finish() >> (u64::BITS - MANTISSA_BITS);
    bits as f64 / (1_u64 << MANTISSA_BITS) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_first_probe_comes_within_the_interval_and_within_a_second() {
        assert_eq!(first_wait(200 * MS, 0.0), Duration::ZERO);
        assert_eq!(first_wait(200 * MS, 0.5), 100 * MS);
        assert_eq!(first_wait(Duration::from_secs(60), 0.5), 500 * MS);
    }

    #[test]
    fn a_wait_is_within_a_tenth_of_the_interval() {
        assert_eq!(next_wait(1000 * MS, 0.0), 900 * MS);
        assert_eq!(next_wait(1000 * MS, 0.5), 1000 * MS);
        let longest = next_wait(1000 * MS, 1.0 - f64::EPSILON);
        assert!(longest > 1099 * MS && longest <= 1100 * MS, "{longest:?}");
    }

    #[test]
    fn the_longest_interval_that_can_be_written_does_not_overflow() {
        let longest = Duration::from_millis(u64::MAX);
        assert!(next_wait(longest, 1.0) > longest);
    }

    #[test]
    fn random_numbers_reach_every_tenth_of_the_range() {
        let mut tenths = [0; 10];
        for _ in 0..2000 {
            let number = random();
            assert!((0.0..1.0).contains(&number), "{number}");
            tenths[(number * 10.0) as usize] += 1;
        }
        assert!(tenths.iter().all(|&hits| hits > 0), "{tenths:?}");
    }
}
