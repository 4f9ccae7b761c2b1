//! The connection table as the packet path uses it.

use lb_common::{
    flow::{Bucket, Claim, FlowValue, Tick, Word, candidates},
    records::Service,
    tcp::State,
};

use super::{family::Family, shared::SharedWord};

/// A flow's record.
#[derive(Clone, Copy)]
pub(crate) struct Record {
    word: &'static SharedWord,
    pub(crate) value: FlowValue,
}

impl Record {
    /// Writes a new value unless the record has changed since it was read: whoever changed it was
    /// as well informed as we are, and the next packet gets another chance.
    #[inline(always)]
    pub(crate) fn update(&self, new: FlowValue) {
        if new != self.value {
            self.word.replace(self.value.bits(), new.bits());
        }
    }
}

/// The record of a flow.
#[inline(always)]
pub(crate) fn find<F: Family>(key: F::Key) -> Option<Record> {
    let [first, second] = candidates(F::hash(key), F::buckets());
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

/// Makes a record for a flow: in an empty or expired place of its two buckets, or else in that of
/// a half-open flow. Whether there was one.
#[inline(always)]
pub(crate) fn insert<F: Family>(key: F::Key, value: FlowValue, now: Tick) -> bool {
    let [first, second] = candidates(F::hash(key), F::buckets());
    let (Some(first), Some(second)) = (F::bucket(first), F::bucket(second)) else {
        return false;
    };
    let taken = |claim| matches!(claim, Claim::Taken(_));
    taken(first.claim(key, value, now))
        || taken(second.claim(key, value, now))
        || taken(first.displace_half_open(key, value))
        || taken(second.displace_half_open(key, value))
}

/// When a record in `state` expires if this is its last packet.
#[inline(always)]
pub(crate) fn expiry(service: &Service, state: State, now: Tick) -> Tick {
    now.after(service.timeouts[state.timeout_class() as usize])
}
