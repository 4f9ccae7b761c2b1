//! Incremental updates of Internet checksums (RFC 1624).
//!
//! The Internet checksum is the ones' complement of the ones' complement sum of 16-bit words. Such
//! a sum does not care for byte order as long as all words are loaded alike (RFC 1071 §2 (B)), so
//! everything here takes words as they stand in memory (`u16::from_ne_bytes`) and gives back the
//! checksum as it is to be stored.
//!
//! RFC 1624 equation 3 is `HC' = ~(~HC + ~m + m')`. The middle term, `~m + m'`, depends on what
//! is replaced by what and not on the packet: [`difference`] computes it once per backend, in the
//! daemon, and [`update`] costs one addition per packet. Equation 3, unlike equation 2, never
//! turns a valid checksum into its other representation (0x0000 for 0xFFFF), and a wrong checksum
//! stays wrong by the same amount.

/// Adds the carries of a sum back until it fits 16 bits (RFC 1071 §1).
///
/// `sum` may hold up to 65 536 words.
#[inline(always)]
#[must_use]
pub const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// The checksum after a change described by `difference`.
#[inline(always)]
#[must_use]
pub const fn update(checksum: u16, difference: u16) -> u16 {
    !fold(!checksum as u32 + difference as u32)
}

/// The difference that undoes `difference`.
#[inline(always)]
#[must_use]
pub const fn reverse(difference: u16) -> u16 {
    !difference
}

/// What replacing the words `old` by the words `new` does to a checksum, for [`update`].
#[must_use]
pub fn difference(old: &[u16], new: &[u16]) -> u16 {
    let sum: u32 = old
        .iter()
        .map(|&word| u32::from(!word))
        .chain(new.iter().map(|&word| u32::from(word)))
        .sum();
    fold(sum)
}

/// The sum of two differences: both changes at once.
#[inline(always)]
#[must_use]
pub const fn combine(one: u16, other: u16) -> u16 {
    fold(one as u32 + other as u32)
}

/// What decrementing the TTL does to an IPv4 header checksum: the word (TTL, protocol) becomes
/// smaller by one in its first byte.
pub const TTL_DECREMENT: u16 = !u16::from_ne_bytes([1, 0]);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn full(words: &[u16]) -> u16 {
        !fold(words.iter().map(|&w| u32::from(w)).sum())
    }

    proptest! {
        /// S-FWD-3: a full recomputation agrees after every rewrite.
        #[test]
        fn update_agrees_with_full_recomputation(
            mut words in prop::collection::vec(any::<u16>(), 2..30),
            new in prop::collection::vec(any::<u16>(), 1..10),
        ) {
            // A real header is never all zero, and a sum of nothing but zeros is the one case in
            // which the two representations of zero differ.
            words[0] |= 1;
            let n = new.len().min(words.len() - 1);
            let old = words[1..=n].to_vec();
            let before = full(&words);
            words[1..=n].copy_from_slice(&new[..n]);
            let change = difference(&old, &new[..n]);
            prop_assert_eq!(update(before, change), full(&words));
        }

        /// S-FWD-3: a wrong checksum stays wrong.
        #[test]
        fn a_wrong_checksum_stays_wrong(words in prop::collection::vec(any::<u16>(), 2..20), error in 1..0xffffu16, new: u16) {
            let mut words = words;
            words[0] |= 1;
            let wrong = fold(u32::from(full(&words)) + u32::from(error));
            let change = difference(&words[1..2], &[new]);
            words[1] = new;
            let verifies = |check: u16| fold(words.iter().map(|&w| u32::from(w)).sum::<u32>() + u32::from(check)) == 0xffff;
            prop_assert!(verifies(full(&words)));
            prop_assert!(!verifies(update(wrong, change)));
        }

        #[test]
        fn reverse_undoes(check in 0..0xffffu16, old in prop::collection::vec(any::<u16>(), 6), new in prop::collection::vec(any::<u16>(), 6)) {
            let there = difference(&old, &new);
            prop_assert_eq!(update(update(check, there), reverse(there)), check);
        }

        #[test]
        fn ttl_decrement_is_the_difference_of_its_words(ttl in 1..=255u8, protocol: u8, check in 0..0xffffu16) {
            let change = difference(&[u16::from_ne_bytes([ttl, protocol])], &[u16::from_ne_bytes([ttl - 1, protocol])]);
            prop_assert_eq!(update(check, TTL_DECREMENT), update(check, change));
        }
    }

    /// S-FWD-3: the corner cases of RFC 1624 §4, whose equation 2 gives 0xFFFF here.
    #[test]
    fn rfc_1624_example() {
        let (hc, old, new) = (0xdd2f, 0x5555, 0x3285);
        assert_eq!(update(hc, difference(&[old], &[new])), 0x0000);
    }
}
