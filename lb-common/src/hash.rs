//! SipHash-1-3, the keyed hash that picks buckets and slots.
//!
//! Keyed with a secret, so that nobody outside can aim packets at one bucket or at one backend.
//! SipHash: Aumasson and Bernstein, "SipHash: a fast short-input PRF" (2012); one compression and
//! three finalisation rounds are what Rust's and Linux's hash tables use too.

/// A secret of 128 bits.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKey {
    pub k0: u64,
    pub k1: u64,
}

struct State {
    v0: u64,
    v1: u64,
    v2: u64,
    v3: u64,
}

impl State {
    #[inline(always)]
    fn round(&mut self) {
        self.v0 = self.v0.wrapping_add(self.v1);
        self.v2 = self.v2.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(13) ^ self.v0;
        self.v3 = self.v3.rotate_left(16) ^ self.v2;
        self.v0 = self.v0.rotate_left(32);
        self.v2 = self.v2.wrapping_add(self.v1);
        self.v0 = self.v0.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(17) ^ self.v2;
        self.v3 = self.v3.rotate_left(21) ^ self.v0;
        self.v2 = self.v2.rotate_left(32);
    }

    #[inline(always)]
    fn absorb(&mut self, word: u64) {
        self.v3 ^= word;
        self.round();
        self.v0 ^= word;
    }
}

/// SipHash-1-3 of `WORDS` 64-bit words, as if they were written out in little-endian order.
#[inline(always)]
#[must_use]
pub fn sip13<const WORDS: usize>(key: HashKey, words: [u64; WORDS]) -> u64 {
    let mut state = State {
        v0: key.k0 ^ 0x736f_6d65_7073_6575,
        v1: key.k1 ^ 0x646f_7261_6e64_6f6d,
        v2: key.k0 ^ 0x6c79_6765_6e65_7261,
        v3: key.k1 ^ 0x7465_6462_7974_6573,
    };
    for word in words {
        state.absorb(word);
    }
    // The last block holds the length in bytes, modulo 256, in its top byte.
    state.absorb(((WORDS as u64 * 8) & 0xff) << 56);
    state.v2 ^= 0xff;
    state.round();
    state.round();
    state.round();
    state.v0 ^ state.v1 ^ state.v2 ^ state.v3
}

/// Maps 32 uniformly random bits to `0..n` without a division (Lemire 2019).
#[inline(always)]
#[must_use]
pub const fn fast_range(random: u32, n: u32) -> u32 {
    ((random as u64 * n as u64) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use core::hash::Hasher as _;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_the_reference(k0: u64, k1: u64, a: u64, b: u64, c: u64) {
            let mut reference = siphasher::sip::SipHasher13::new_with_keys(k0, k1);
            reference.write(&a.to_le_bytes());
            prop_assert_eq!(sip13(HashKey { k0, k1 }, [a]), reference.finish());
            reference.write(&b.to_le_bytes());
            reference.write(&c.to_le_bytes());
            prop_assert_eq!(sip13(HashKey { k0, k1 }, [a, b, c]), reference.finish());
        }

        #[test]
        fn fast_range_stays_in_range(random: u32, n in 1..=u32::MAX) {
            prop_assert!(fast_range(random, n) < n);
        }
    }
}
