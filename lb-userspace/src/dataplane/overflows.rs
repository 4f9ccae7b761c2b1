//! Keeps the connection tables' overflow bits ([`lb_common::flow::refresh`]) those of flows that
//! are there.

use std::{
    sync::{Mutex, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use aya::maps::MapData;
use lb_common::{
    flow::{self, Bucket, FlowKey4, FlowKey6},
    hash::HashKey,
};

use super::{
    DataPlaneError,
    flows::{NAME, Tables},
    mapped::{MappedArray, Shared, mapped},
    sys,
};

/// Forgets that buckets have overflowed because of connections that are no more, so that packets
/// without a connection are not looked for behind them.
pub struct Overflows {
    tables: Tables,
    key: HashKey,
    words: Mutex<Words>,
}

struct Words {
    v4: MappedArray<AtomicU64>,
    v6: MappedArray<AtomicU64>,
}

/// A connection table as packets see it.
struct Table<'a, B> {
    buckets: &'a [B],
    words: &'a [AtomicU64],
}

impl<B: Bucket<Word = AtomicU64>> flow::Table for Table<'_, B> {
    type Bucket = B;

    fn buckets(&self) -> u32 {
        self.buckets.len() as u32
    }

    fn bucket(&self, index: u32) -> Option<&B> {
        self.buckets.get(index as usize)
    }

    fn overflow_word(&self, index: u32) -> Option<&AtomicU64> {
        self.words.get(index as usize)
    }
}

impl Overflows {
    /// How often it is worth it.
    pub const INTERVAL: Duration = Duration::from_secs(60);

    /// `key` is that of the flows' hash.
    pub(super) fn new(
        tables: Tables,
        v4: &MapData,
        v6: &MapData,
        key: HashKey,
    ) -> Result<Self, DataPlaneError> {
        let map = |data, buckets: usize| mapped(data, flow::overflow_words(buckets as u32), NAME);
        let words = Words {
            v4: map(v4, tables.v4.buckets.as_slice().len())?,
            v6: map(v6, tables.v6.buckets.as_slice().len())?,
        };
        Ok(Self {
            tables,
            key,
            words: Mutex::new(words),
        })
    }

    /// To be called every [`Overflows::INTERVAL`]; takes some ten milliseconds for a million
    /// connections, and waits for the kernel meanwhile.
    ///
    /// # Errors
    ///
    /// The kernel does not tell when packets have passed. Nothing is lost but time: more buckets
    /// are looked at.
    pub fn refresh(&self) -> Result<(), DataPlaneError> {
        let words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        refresh(&self.tables.v4.buckets, &words.v4, |key: FlowKey4| {
            key.hash(self.key)
        })?;
        refresh(&self.tables.v6.buckets, &words.v6, |key: FlowKey6| {
            key.hash(self.key)
        })
    }
}

fn refresh<B: Bucket<Word = AtomicU64> + Shared>(
    buckets: &MappedArray<B>,
    words: &MappedArray<AtomicU64>,
    hash: impl Fn(B::Key) -> u64,
) -> Result<(), DataPlaneError> {
    let table = Table {
        buckets: buckets.as_slice(),
        words: words.as_slice(),
    };
    flow::refresh(&table, hash, sys::wait_for_packets)
        .map_err(|error| DataPlaneError::new("wait until packets have passed", error))
}
