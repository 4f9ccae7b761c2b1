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

/// SipHash-1-3 of a message of `BYTES` bytes that leaves at least one byte of its last word free,
/// as little-endian words with zeros behind it.
///
/// The last word of any message holds the message's length in its top byte. One that fills whole
/// words needs a word and a round more for that.
#[inline(always)]
#[must_use]
pub fn sip13<const BYTES: u64, const WORDS: usize>(key: HashKey, words: [u64; WORDS]) -> u64 {
    const { assert!(WORDS as u64 == BYTES / 8 + 1 && BYTES < 256) };
    let mut state = State {
        v0: key.k0 ^ 0x736f_6d65_7073_6575,
        v1: key.k1 ^ 0x646f_7261_6e64_6f6d,
        v2: key.k0 ^ 0x6c79_6765_6e65_7261,
        v3: key.k1 ^ 0x7465_6462_7974_6573,
    };
    for (n, word) in words.into_iter().enumerate() {
        let length = if n == WORDS - 1 { BYTES << 56 } else { 0 };
        state.absorb(word | length);
    }
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
            let reference = |message: &[u8]| {
                let mut hasher = siphasher::sip::SipHasher13::new_with_keys(k0, k1);
                hasher.write(message);
                hasher.finish()
            };
            let message: Vec<u8> = [a, b, c].into_iter().flat_map(u64::to_le_bytes).collect();
            let key = HashKey { k0, k1 };
            let short = |word: u64, bytes: u32| word & ((1 << (8 * bytes)) - 1);
            prop_assert_eq!(sip13::<6, 1>(key, [short(a, 6)]), reference(&message[..6]));
            prop_assert_eq!(sip13::<8, 2>(key, [a, 0]), reference(&message[..8]));
            prop_assert_eq!(sip13::<18, 3>(key, [a, b, short(c, 2)]), reference(&message[..18]));
        }

        #[test]
        fn fast_range_stays_in_range(random: u32, n in 1..=u32::MAX) {
            prop_assert!(fast_range(random, n) < n);
        }
    }
}
