//! The connection table as the packet path uses it.

use lb_common::{
    flow::{self, Bucket, FlowValue, Tick, Word, candidates},
    records::Service,
    tcp::State,
};

use super::{
    family::Family,
    shared::{SharedWord, opaque},
};

/// A flow's record.
#[derive(Clone, Copy)]
pub(crate) struct Record {
    word: &'static SharedWord,
    pub(crate) value: FlowValue,
}

impl Record {
    /// `value` is what has been read of `word`.
    #[inline(always)]
    pub(crate) fn new(word: &'static SharedWord, value: FlowValue) -> Self {
        Self { word, value }
    }

    /// Writes a new value unless the record has changed since it was read: whoever changed it was
    /// as well informed as we are, and the next packet gets another chance. Whether the record has
    /// the new value.
    #[inline(always)]
    pub(crate) fn update(&self, new: FlowValue) -> bool {
        new == self.value || self.word.replace(self.value.bits(), new.bits())
    }
}

/// The record of a flow, by its key and the key's hash.
#[inline(always)]
pub(crate) fn find<F: Family>(key: F::Key, hash: u64) -> Option<Record> {
    let [first, second] = candidates(hash, F::buckets());
    find_in::<F>(first, key).or_else(|| find_in::<F>(second, key))
}

#[inline(always)]
fn find_in<F: Family>(index: u32, key: F::Key) -> Option<Record> {
    let bucket = F::bucket(index)?;
    let found = bucket.find(key)?;
    Some(Record {
        word: bucket.value(found.slot)?,
        value: found.value,
    })
}

/// Makes a record for a flow; whether there was a place ([`flow::insert`]).
#[inline(always)]
pub(crate) fn insert<F: Family>(key: F::Key, hash: u64, value: FlowValue, now: Tick) -> bool {
    let [first, second] = candidates(hash, F::buckets());
    match (F::bucket(first), F::bucket(second)) {
        (Some(first), Some(second)) => flow::insert(first, second, key, value, now),
        _ => false,
    }
}

/// When a record in `state` expires if this is its last packet.
#[inline(always)]
pub(crate) fn expiry(service: &Service, state: State, now: Tick) -> Tick {
    let timeout = service.timeouts.get(opaque(state.timeout_class()));
    now.after(timeout.copied().unwrap_or(0))
}
