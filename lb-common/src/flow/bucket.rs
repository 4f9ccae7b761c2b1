use super::{FlowKey4, FlowKey6, FlowValue, Tick, Word};
use crate::tcp::State;

/// Records in a bucket.
pub const RECORDS: usize = 4;
const SLOT_BITS: u32 = RECORDS.trailing_zeros();
const SLOT: u64 = RECORDS as u64 - 1;

/// A record that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub slot: usize,
    pub value: FlowValue,
}

/// A record that may give way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    pub(super) slot: usize,
    pub(super) value: FlowValue,
    /// [`FlowValue::price`]
    pub(super) price: u64,
}

/// Puts a flow in a free or expired record of this bucket, and says in which. A half-open record
/// does not give way here: where a record is a port in use, its port is too (S-NAT-4).
#[inline(always)]
pub fn insert_vacant<B: Bucket>(
    bucket: &B,
    key: B::Key,
    value: FlowValue,
    now: Tick,
) -> Option<usize> {
    let offer = bucket.cheapest(now);
    let vacant = offer.price == 0 && bucket.take(offer.slot, offer.value, key, value);
    vacant.then_some(offer.slot)
}

/// Four records of one address family. See the [module](super) for who may write what.
pub trait Bucket {
    type Key: Copy;
    type Word: Word;

    /// The value word of record `slot`; `None` where there is no such record.
    fn value(&self, slot: usize) -> Option<&Self::Word>;
    /// The key of record `slot`, which means something only while its value is live.
    fn key(&self, slot: usize) -> Option<Self::Key>;
    /// Whether the key words of record `slot` are those of `key`.
    fn key_is(&self, slot: usize, key: Self::Key) -> bool;
    /// Writes the key words of record `slot`, which the caller has claimed.
    fn write_key(&self, slot: usize, key: Self::Key);

    /// The living record of `key`.
    #[inline(always)]
    fn find(&self, key: Self::Key) -> Option<Found> {
        for slot in 0..RECORDS {
            let word = self.value(slot)?;
            let before = FlowValue::from_bits(word.load());
            if !self.key_is(slot, key) {
                continue;
            }
            let value = FlowValue::from_bits(word.load());
            if before.state().is_live() && value.state().is_live() && before.same_generation(value)
            {
                let slot = (Self::Word::blur(slot as u64, value.bits()) & SLOT) as usize;
                return Some(Found { slot, value });
            }
        }
        None
    }

    /// The living record in `slot`, whosever it is.
    #[inline(always)]
    fn at(&self, slot: usize) -> Option<(Self::Key, FlowValue)> {
        let word = self.value(slot)?;
        let before = FlowValue::from_bits(word.load());
        let key = self.key(slot)?;
        let value = FlowValue::from_bits(word.load());
        let whole =
            before.state().is_live() && value.state().is_live() && before.same_generation(value);
        whole.then_some((key, value))
    }

    /// The record whose place is cheapest to give to another flow ([`FlowValue::price`]), the
    /// first of those that cost the same.
    #[inline(always)]
    fn cheapest(&self, now: Tick) -> Offer {
        // Price and slot in one number, and no branches, for the reason that `FlowValue::price` has.
        let (mut lowest, mut of) = (FlowValue::PRICELESS << SLOT_BITS | SLOT, 0);
        for slot in 0..RECORDS {
            let Some(word) = self.value(slot) else { break };
            let value = word.load();
            let price = FlowValue::from_bits(value).price::<Self::Word>(now);
            let rank = price << SLOT_BITS | slot as u64;
            // All ones if it is lower.
            let lower = (Self::Word::opaque(rank.wrapping_sub(lowest)) as i64 >> 63) as u64;
            lowest ^= (lowest ^ rank) & lower;
            of ^= (of ^ value) & lower;
        }
        Offer {
            slot: (lowest & SLOT) as usize,
            value: FlowValue::from_bits(of),
            price: lowest >> SLOT_BITS,
        }
    }

    /// Takes over the record whose value is still `old`.
    #[inline(always)]
    fn take(&self, slot: usize, old: FlowValue, key: Self::Key, value: FlowValue) -> bool {
        let Some(word) = self.value(slot) else {
            return false;
        };
        if !word.replace(old.bits(), old.with_state(State::CLAIMED).bits()) {
            return false;
        }
        self.write_key(slot, key);
        word.store(value.succeeding(old).bits());
        true
    }
}

/// Four IPv4 records in one cache line.
#[repr(C, align(64))]
pub struct Bucket4<W> {
    records: [Record4<W>; RECORDS],
}

#[repr(C)]
struct Record4<W> {
    key: W,
    value: W,
}

#[cfg(test)]
impl<W: Word> Bucket4<W> {
    pub(super) fn empty(word: impl Fn() -> W) -> Self {
        Self {
            records: core::array::from_fn(|_| Record4 {
                key: word(),
                value: word(),
            }),
        }
    }
}

impl<W: Word> Bucket for Bucket4<W> {
    type Key = FlowKey4;
    type Word = W;

    #[inline(always)]
    fn value(&self, slot: usize) -> Option<&W> {
        Some(&self.records.get(slot)?.value)
    }

    #[inline(always)]
    fn key(&self, slot: usize) -> Option<FlowKey4> {
        let record = self.records.get(slot)?;
        Some(FlowKey4::from_bits(record.key.load()))
    }

    #[inline(always)]
    fn key_is(&self, slot: usize, key: FlowKey4) -> bool {
        match self.records.get(slot) {
            Some(record) => record.key.load() == key.bits(),
            None => false,
        }
    }

    #[inline(always)]
    fn write_key(&self, slot: usize, key: FlowKey4) {
        if let Some(record) = self.records.get(slot) {
            record.key.store(key.bits());
        }
    }
}

/// Four IPv6 records in two neighbouring cache lines: what decides in the first, addresses in the
/// second, which the CPU's adjacent-line prefetch brings along.
#[repr(C, align(64))]
pub struct Bucket6<W> {
    heads: [Head6<W>; RECORDS],
    addresses: [[W; 2]; RECORDS],
}

#[repr(C)]
struct Head6<W> {
    tail: W,
    value: W,
}

#[cfg(test)]
impl<W: Word> Bucket6<W> {
    pub(super) fn empty(word: impl Fn() -> W) -> Self {
        Self {
            heads: core::array::from_fn(|_| Head6 {
                tail: word(),
                value: word(),
            }),
            addresses: core::array::from_fn(|_| core::array::from_fn(|_| word())),
        }
    }
}

impl<W: Word> Bucket for Bucket6<W> {
    type Key = FlowKey6;
    type Word = W;

    #[inline(always)]
    fn value(&self, slot: usize) -> Option<&W> {
        Some(&self.heads.get(slot)?.value)
    }

    #[inline(always)]
    fn key(&self, slot: usize) -> Option<FlowKey6> {
        let head = self.heads.get(slot)?;
        let [low, high] = self.addresses.get(slot)?;
        Some(FlowKey6 {
            address: [low.load(), high.load()],
            tail: head.tail.load(),
        })
    }

    #[inline(always)]
    fn key_is(&self, slot: usize, key: FlowKey6) -> bool {
        match (self.heads.get(slot), self.addresses.get(slot)) {
            (Some(head), Some([low, high])) => {
                head.tail.load() == key.tail
                    && low.load() == key.address[0]
                    && high.load() == key.address[1]
            }
            _ => false,
        }
    }

    #[inline(always)]
    fn write_key(&self, slot: usize, key: FlowKey6) {
        if let (Some(head), Some([low, high])) = (self.heads.get(slot), self.addresses.get(slot)) {
            head.tail.store(key.tail);
            low.store(key.address[0]);
            high.store(key.address[1]);
        }
    }
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Bucket4<u64>>() == 64 && size_of::<Bucket6<u64>>() == 128);
#[cfg(not(loom))]
const _: () = assert!(align_of::<Bucket4<u64>>() == 64);
