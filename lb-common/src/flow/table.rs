//! Where in a table a flow's record may stand, and whether it is worth looking there.
//!
//! A flow has [`CANDIDATES`] buckets, in an order that its hash gives. Its record goes into the
//! first that has room, so that most packets touch one line, and a bit tells of every bucket that
//! was full then: only behind such a bucket is anything to be found. So whoever looks for a flow
//! that is not there touches one line, too, most of the time.
//!
//! The bits are few enough for a CPU's near caches: 45 KB for a million flows. They are there
//! twice, because a packet only sets them: [`refresh`] makes one half anew, of the records that are
//! there, while the other is read.

use super::{Bucket, FlowValue, Tick, Word};
use crate::hash::fast_range;

/// Buckets that may hold a flow.
///
/// With five, one flow in a thousand finds no place where seven in ten records are taken; with two,
/// it is one in fifty.
pub const CANDIDATES: u32 = 5;

/// The connection table of an address family.
pub trait Table {
    type Bucket: Bucket;

    fn buckets(&self) -> u32;
    /// Bucket `index`, of [`Table::buckets`].
    fn bucket(&self, index: u32) -> Option<&Self::Bucket>;
    /// Word `index` of the bits that tell which buckets have overflowed, of [`overflow_words`].
    fn overflow_word(&self, index: u32) -> Option<&<Self::Bucket as Bucket>::Word>;
}

/// Words of the overflow bits of so many buckets: one that says which half is read, 0 or 1, and
/// the halves, a bit a bucket.
#[inline(always)]
#[must_use]
pub const fn overflow_words(buckets: u32) -> u32 {
    1 + 2 * words_in_half(buckets)
}

#[inline(always)]
const fn words_in_half(buckets: u32) -> u32 {
    buckets.div_ceil(u64::BITS)
}

/// The buckets that may hold a flow, in the order in which they are looked at.
#[derive(Clone, Copy, Debug)]
pub struct Candidates {
    first: u32,
    step: u32,
    buckets: u32,
}

impl Candidates {
    /// Of the flow with this hash, in a table of so many buckets.
    #[inline(always)]
    #[must_use]
    pub const fn of(hash: u64, buckets: u32) -> Self {
        Self {
            first: hash as u32,
            step: (hash >> 32) as u32 | 1,
            buckets,
        }
    }

    /// The one that is looked at after `n` others.
    #[inline(always)]
    #[must_use]
    pub const fn bucket(self, n: u32) -> u32 {
        let random = self.first.wrapping_add(self.step.wrapping_mul(n));
        fast_range(random, self.buckets)
    }
}

/// Asks for the cache line in which a flow's record is looked for first, and in which a new one is
/// likely to be made ([`Word::request`]).
#[inline(always)]
pub fn request<T: Table>(table: &T, hash: u64) {
    let first = Candidates::of(hash, table.buckets()).bucket(0);
    // The last one, so that the others need not wait for the store.
    let last = super::RECORDS - 1;
    if let Some(word) = table.bucket(first).and_then(|bucket| bucket.value(last)) {
        word.request();
    }
}

/// The living record of a flow: its value's word, and what that says.
#[inline(always)]
pub fn find<T: Table>(
    table: &T,
    key: <T::Bucket as Bucket>::Key,
    hash: u64,
) -> Option<(&<T::Bucket as Bucket>::Word, FlowValue)> {
    let candidates = Candidates::of(hash, table.buckets());
    for n in 0..CANDIDATES {
        let index = candidates.bucket(n);
        let bucket = table.bucket(index)?;
        if let Some(found) = bucket.find(key) {
            return Some((bucket.value(found.slot)?, found.value));
        }
        if !has_overflowed(table, index) {
            return None;
        }
    }
    None
}

/// Makes a record for a flow that has none; whether there was a place.
///
/// An empty or expired record gives way, in the first bucket that has any; if none has, a half-open
/// one, the one of its bucket that expires first. A living established flow never gives way (S-CT-1,
/// S-CT-2): if a record becomes established between the look and the swap, the swap fails.
#[inline(always)]
pub fn insert<T: Table>(
    table: &T,
    key: <T::Bucket as Bucket>::Key,
    hash: u64,
    value: FlowValue,
    now: Tick,
) -> bool {
    let candidates = Candidates::of(hash, table.buckets());
    for most in [0, FlowValue::PRICELESS - 1] {
        for n in 0..CANDIDATES {
            let Some(bucket) = table.bucket(candidates.bucket(n)) else {
                return false;
            };
            let offer = bucket.cheapest(now);
            if offer.price > most {
                continue;
            }
            for passed in 0..n {
                note_overflow(table, candidates.bucket(passed));
            }
            // Another CPU may be faster: there are other buckets.
            if bucket.take(offer.slot, offer.value, key, value) {
                return true;
            }
        }
    }
    false
}

/// Whether there may be a flow behind this bucket that has it among its candidates.
#[inline(always)]
fn has_overflowed<T: Table>(table: &T, bucket: u32) -> bool {
    let half = table.overflow_word(0).map_or(0, Word::load) as u32;
    match table.overflow_word(place_in(half, bucket, table.buckets())) {
        Some(word) => word.load() >> (bucket % u64::BITS) & 1 != 0,
        None => true,
    }
}

/// From now on, flows are looked for behind this bucket.
#[inline(always)]
fn note_overflow<T: Table>(table: &T, bucket: u32) {
    // In both halves: whichever is read next has to know of it.
    for half in 0..2 {
        note_overflow_in(table, half, bucket);
    }
}

#[inline(always)]
fn note_overflow_in<T: Table>(table: &T, half: u32, bucket: u32) {
    let bit = 1 << (bucket % u64::BITS);
    if let Some(word) = table.overflow_word(place_in(half, bucket, table.buckets()))
        && word.load() & bit == 0
    {
        word.set(bit);
    }
}

/// The word of a bucket's bit.
#[inline(always)]
const fn place_in(half: u32, bucket: u32, buckets: u32) -> u32 {
    1 + (half & 1) * words_in_half(buckets) + bucket / u64::BITS
}

/// Forgets that buckets have overflowed because of flows that are no more. For the daemon, and only
/// one of its threads at a time.
///
/// `wait` returns when every packet that was on its way has passed: one that has set a bit before it
/// was forgotten then has a record, and is found.
///
/// # Errors
///
/// That of `wait`: the bits stay as they are, except for those that nobody reads.
pub fn refresh<T: Table, E>(
    table: &T,
    hash: impl Fn(<T::Bucket as Bucket>::Key) -> u64,
    mut wait: impl FnMut() -> Result<(), E>,
) -> Result<(), E> {
    let buckets = table.buckets();
    let Some(read) = table.overflow_word(0) else {
        return Ok(());
    };
    let half = read.load() as u32 & 1;
    let words = || (0..words_in_half(buckets)).map(|n| n * u64::BITS);
    let is_set = |bucket| {
        let word = table.overflow_word(place_in(half, bucket, buckets));
        word.is_some_and(|word| word.load() != 0)
    };
    if !words().any(is_set) {
        return Ok(());
    }
    let spare = half ^ 1;
    // Until then it may be read still, by packets that began before the last refreshment.
    wait()?;
    for bucket in words() {
        if let Some(word) = table.overflow_word(place_in(spare, bucket, buckets)) {
            word.store(0);
        }
    }
    wait()?;
    for index in 0..buckets {
        let Some(bucket) = table.bucket(index) else {
            continue;
        };
        for slot in 0..super::RECORDS {
            let Some((key, _)) = bucket.at(slot) else {
                continue;
            };
            let candidates = Candidates::of(hash(key), buckets);
            for passed in (0..CANDIDATES).map(|n| candidates.bucket(n)) {
                if passed == index {
                    break;
                }
                note_overflow_in(table, spare, passed);
            }
        }
    }
    read.store(spare.into());
    Ok(())
}
