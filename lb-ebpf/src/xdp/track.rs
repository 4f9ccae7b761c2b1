//! The connection table as the packet path uses it.

use lb_common::{
    flow::{self, FlowValue, Tick, Word},
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
    let (word, value) = flow::find(F::table(), key, hash)?;
    Some(Record { word, value })
}

/// Asks for the line that a new connection's record will stand in, long before it is looked at.
#[inline(always)]
pub(crate) fn request<F: Family>(hash: u64) {
    flow::request(F::table(), hash);
}

/// Makes a record for a flow; whether there was a place ([`flow::insert`]).
#[inline(always)]
pub(crate) fn insert<F: Family>(key: F::Key, hash: u64, value: FlowValue, now: Tick) -> bool {
    flow::insert(F::table(), key, hash, value, now)
}

/// When a record in `state` expires if this is its last packet.
#[inline(always)]
pub(crate) fn expiry(service: &Service, state: State, now: Tick) -> Tick {
    let timeout = service.timeouts.get(opaque(state.timeout_class()));
    now.after(timeout.copied().unwrap_or(0))
}
