//! Where services listen and backends answer: from (address, port) to an index, in one cache line.
//!
//! A table is an array of lines of eight words. A word holds a key of 48 bits and an index of 16;
//! 0 is a place that was never used, index 0 one that is free again. A key has a home line, which is
//! filled from its first word on, and goes to the next line when that one is full. So a reader may
//! give up at the first word of 0, which in a table that is not full is most often the first one
//! it looks at: that is what a packet costs that is none of ours.
//!
//! The daemon is the only writer, and a word changes at one stroke: readers need no lock, and never
//! see a key with another's index.

use crate::flow::Word;

/// Words in a line.
const WORDS: usize = 8;
/// Lines that may hold a key, from its home on.
pub const WINDOW: u32 = 2;
const KEY: u64 = 0xffff_ffff_ffff;

/// A cache line of a table.
#[repr(C, align(64))]
pub struct Line<W> {
    words: [W; WORDS],
}

/// What a line says of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sought {
    Here(u16),
    Nowhere,
    /// Not here, perhaps in the next line.
    Further,
}

/// There is no room for a key in its lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Key of an IPv4 endpoint, which it names exactly. Address and port stand as in the packet, read in
/// native byte order.
#[inline(always)]
#[must_use]
pub const fn key4(address: u32, port: u16) -> u64 {
    address as u64 | (port as u64) << 32
}

/// Key of an IPv6 endpoint, in words as for [`key4`]: 48 bits of a hash, so that whoever finds an
/// index by it makes sure that the index is of this very endpoint.
#[inline(always)]
#[must_use]
pub const fn key6(address: [u64; 2], port: u16) -> u64 {
    // Multipliers of MurmurHash3's finaliser. Who chooses a colliding address reaches nobody by it.
    let mut hash = (address[0] ^ port as u64).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ hash >> 32 ^ address[1]).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash = (hash ^ hash >> 32).wrapping_mul(0xff51_afd7_ed55_8ccd);
    // Never 0, which no word may hold that was used.
    hash >> 16 | 1
}

/// The first line that may hold a key, of `lines` (a power of two).
#[inline(always)]
#[must_use]
pub const fn home(key: u64, lines: u32) -> u32 {
    (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u32 & (lines - 1)
}

impl<W: Word> Line<W> {
    #[inline(always)]
    pub fn find(&self, key: u64) -> Sought {
        for word in &self.words {
            let word = word.load();
            if word == 0 {
                return Sought::Nowhere;
            }
            if word & KEY == key {
                return match index_of(word) {
                    0 => Sought::Nowhere,
                    index => Sought::Here(index),
                };
            }
        }
        Sought::Further
    }

    /// Makes never used what is free at the end of the line, unless the line was full and readers
    /// have to go on behind it.
    fn trim(&self) {
        if self.words[WORDS - 1].load() != 0 {
            return;
        }
        for word in self.words.iter().rev() {
            if index_of(word.load()) != 0 {
                break;
            }
            word.store(0);
        }
    }
}

#[inline(always)]
const fn index_of(word: u64) -> u16 {
    (word >> 48) as u16
}

/// Gives a key its index, which is not 0; the old one is replaced.
///
/// # Errors
///
/// The lines for this key are full: nothing has changed.
pub fn insert<W: Word>(lines: &[Line<W>], key: u64, index: u16) -> Result<(), Full> {
    let mut free = None;
    for word in window(lines, key).flat_map(|line| &line.words) {
        let seen = word.load();
        if seen != 0 && seen & KEY == key {
            free = Some(word);
            break;
        }
        if index_of(seen) == 0 && free.is_none() {
            free = Some(word);
        }
    }
    free.ok_or(Full)?.store(key | u64::from(index) << 48);
    Ok(())
}

/// Forgets a key; that of nobody is no error.
pub fn remove<W: Word>(lines: &[Line<W>], key: u64) {
    for line in window(lines, key) {
        for word in &line.words {
            let seen = word.load();
            if seen & KEY == key && index_of(seen) != 0 {
                word.store(key);
                line.trim();
                return;
            }
        }
    }
}

/// Every key that has an index.
pub fn keys<W: Word>(lines: &[Line<W>]) -> impl Iterator<Item = u64> {
    let words = lines.iter().flat_map(|line| &line.words).map(Word::load);
    words
        .filter(|word| index_of(*word) != 0)
        .map(|word| word & KEY)
}

fn window<W: Word>(lines: &[Line<W>], key: u64) -> impl Iterator<Item = &Line<W>> {
    let home = home(key, lines.len() as u32) as usize;
    (home..home + WINDOW as usize).map(|line| &lines[line % lines.len()])
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Line<u64>>() == 64);

#[cfg(all(test, not(loom)))]
mod tests {
    use core::sync::atomic::AtomicU64;
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn table(lines: usize) -> Vec<Line<AtomicU64>> {
        let line = || Line {
            words: core::array::from_fn(|_| AtomicU64::new(0)),
        };
        (0..lines).map(|_| line()).collect()
    }

    /// As the packet path does it.
    fn find(lines: &[Line<AtomicU64>], key: u64) -> Option<u16> {
        for line in window(lines, key) {
            match line.find(key) {
                Sought::Here(index) => return Some(index),
                Sought::Nowhere => return None,
                Sought::Further => {}
            }
        }
        None
    }

    proptest! {
        /// In lines so few that they overflow into each other.
        #[test]
        fn is_a_map_that_may_be_full(steps in prop::collection::vec(
            (1_u64..40, prop::option::of(1_u16..)), 1..300,
        )) {
            let lines = table(2);
            let mut reference = HashMap::new();
            for (key, index) in steps {
                match index {
                    Some(index) => match insert(&lines, key, index) {
                        Ok(()) => { reference.insert(key, index); }
                        Err(Full) => prop_assert_eq!(reference.len(), 16),
                    },
                    None => {
                        remove(&lines, key);
                        reference.remove(&key);
                    }
                }
                for key in 0..40 {
                    prop_assert_eq!(find(&lines, key), reference.get(&key).copied(), "{}", key);
                }
                let mut listed: Vec<_> = keys(&lines).collect();
                listed.sort_unstable();
                let mut expected: Vec<_> = reference.keys().copied().collect();
                expected.sort_unstable();
                prop_assert_eq!(listed, expected);
            }
        }

        #[test]
        fn ipv6_endpoints_that_differ_have_keys_that_differ(a: [u64; 2], port: u16, bit in 0_u32..128) {
            let mut b = a;
            b[(bit / 64) as usize] ^= 1 << (bit % 64);
            prop_assert_ne!(key6(a, port), key6(b, port));
            prop_assert_ne!(key6(a, port), key6(a, port ^ 1 << (bit % 16)));
            prop_assert!(key6(a, port) <= KEY);
        }
    }

    #[test]
    fn an_empty_place_is_no_endpoint() {
        let lines = table(2);
        assert_eq!(find(&lines, key4(0, 0)), None);
        insert(&lines, 7, 1).unwrap();
        assert_eq!(find(&lines, key4(0, 0)), None);
    }

    #[test]
    fn a_line_that_was_emptied_is_as_new() {
        let lines = table(64);
        for key in 1..30 {
            insert(&lines, key, 1).unwrap();
        }
        for key in 1..30 {
            remove(&lines, key);
        }
        assert!(lines.iter().all(|line| Word::load(&line.words[0]) == 0));
    }

    /// As many of each kind as there may be find their place.
    #[test]
    fn a_table_takes_as_many_as_it_has_lines() {
        let lines = table(16_384);
        for n in 0..16_384_u32 {
            let address = (0x0a00_0000 + n).to_be();
            insert(&lines, key4(address, 8080_u16.to_be()), 1).unwrap();
        }
        let longest = lines.iter().map(|line| {
            let used = line.words.iter().filter(|word| Word::load(*word) != 0);
            used.count()
        });
        assert!(longest.max() < Some(WORDS));
        assert_eq!(keys(&lines).count(), 16_384);
    }
}
