//! When connections began.
//!
//! The packet path does not spend a cache line on it, so it is when a record was first seen here.
//! Nothing is spent on it either while there is no connection.

use std::{
    fs,
    path::PathBuf,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use aya::maps::{Array, IterableMap as _, Map, MapData, MapError, MapInfo};
use lb_common::flow::{FlowValue, RECORDS};
use tracing::warn;

use super::{
    DataPlaneError,
    clock::Moment,
    flows::NAME,
    mapped::{MappedArray, mapped},
    pins::Pins,
};

/// Births of a table's records: for each 27 bits of ticks since boot (4 years), four that tell one
/// connection from the next in the same record, and one that says that there is a birth. Two a word.
pub(super) struct Births {
    words: OnceLock<Words>,
    entries: u32,
    /// Where they are pinned, so that ages survive the daemon.
    pin: Option<PathBuf>,
}

enum Words {
    Map(MappedArray<AtomicU64>),
    Own(Box<[AtomicU64]>),
    /// The kernel has none left.
    Nowhere,
}

impl Births {
    /// Those that an earlier life has pinned, if they are for as many buckets; otherwise none yet.
    pub(super) fn pinned(pins: &Pins, name: &str, buckets: u32) -> Result<Self, DataPlaneError> {
        let entries = buckets * (RECORDS as u32 / 2);
        let path = pins.map(name);
        let failed = |error: MapError| DataPlaneError::new("open the flows' ages", error);
        let words = OnceLock::new();
        if path.exists() {
            if MapInfo::from_pin(&path).is_ok_and(|info| info.max_entries() == entries) {
                let data = MapData::from_pin(&path).map_err(failed)?;
                let map: Array<_, u64> = Map::Array(data).try_into().map_err(failed)?;
                let _ = words.set(Words::Map(mapped(map.map(), entries, NAME)?));
            } else {
                fs::remove_file(&path)
                    .map_err(|error| DataPlaneError::new("remove the flows' old ages", error))?;
            }
        }
        Ok(Self {
            words,
            entries,
            pin: Some(path),
        })
    }

    /// None yet, and those to come end with this process.
    pub(super) fn of_this_process(buckets: usize) -> Self {
        Self {
            words: OnceLock::new(),
            entries: (buckets * RECORDS / 2) as u32,
            pin: None,
        }
    }

    /// For how many ticks the living connection in this record has been there, as far as is known.
    pub(super) fn age(&self, record: usize, value: FlowValue, now: Moment) -> u32 {
        const TICKS: u32 = (1 << 27) - 1;
        let Some(births) = self.words().get(record / 2) else {
            return 0;
        };
        let shift = 32 * (record % 2);
        let word = births.load(Ordering::Relaxed);
        let birth = (word >> shift) as u32;
        let mark = 1 << 31 | u32::from(value.generation()) << 27;
        if birth & !TICKS == mark {
            return now.ticks().wrapping_sub(birth) & TICKS;
        }
        let birth = u64::from(now.ticks() & TICKS | mark);
        births.store(
            word & !(0xffff_ffff << shift) | birth << shift,
            Ordering::Relaxed,
        );
        0
    }

    fn words(&self) -> &[AtomicU64] {
        let make = || match &self.pin {
            None => Words::Own((0..self.entries).map(|_| AtomicU64::new(0)).collect()),
            Some(path) => make_map(self.entries, path.clone()).unwrap_or_else(|error| {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "ages of connections are not known"
                );
                Words::Nowhere
            }),
        };
        match self.words.get_or_init(make) {
            Words::Map(words) => words.as_slice(),
            Words::Own(words) => words,
            Words::Nowhere => &[],
        }
    }
}

fn make_map(entries: u32, path: PathBuf) -> Result<Words, DataPlaneError> {
    /// `BPF_F_MMAPABLE`
    const MMAPABLE: u32 = 1 << 10;
    let map = Array::<MapData, u64>::create(entries, MMAPABLE)
        .map_err(|error| DataPlaneError::new("make room for the flows' ages", error))?;
    let words = mapped(map.map(), entries, NAME)?;
    if let Err(error) = map.pin(&path) {
        warn!(
            error = &error as &dyn std::error::Error,
            "ages of connections will not be known after a restart"
        );
    }
    Ok(Words::Map(words))
}
