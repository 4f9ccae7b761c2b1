//! Counters that every CPU has of its own, read and cleared many at a time: a system call for each
//! of a thousand services' reasons is what a reader would wait for.

use std::{io, os::fd::AsFd as _};

use aya::maps::{Map, MapData, MapError};

use super::{DataPlaneError, batch};

/// Entries that are cleared by one system call.
const BATCH: u32 = 1024;

/// A per-CPU array whose entries are `WORDS` numbers of 64 bits.
pub(super) struct Counters<const WORDS: usize> {
    data: MapData,
    cpus: usize,
}

impl<const WORDS: usize> Counters<WORDS> {
    pub(super) fn new(map: Map) -> Result<Self, DataPlaneError> {
        let failed = |error: MapError| DataPlaneError::new("open the counters", error);
        let other = || DataPlaneError::new("open the counters", "the map is of another type");
        let Map::PerCpuArray(data) = map else {
            return Err(other());
        };
        let info = data.info().map_err(failed)?;
        if info.value_size() as usize != WORDS * size_of::<u64>() {
            return Err(other());
        }
        let cpus = aya::util::nr_cpus()
            .map_err(|(_, error)| DataPlaneError::new("count the CPUs", error))?;
        Ok(Self { data, cpus })
    }

    /// Entries `first`, `first + 1`, … as sums over all CPUs; of those that exist.
    pub(super) fn sums(&self, first: u32, count: u32) -> io::Result<Vec<[u64; WORDS]>> {
        let mut values = vec![0_u64; count as usize * self.words()];
        let read = batch::read_elements(self.data.fd().as_fd(), first, count, &mut values)?;
        let sum = |entry: &[u64]| {
            let of_word = |word| entry.iter().skip(word).step_by(WORDS).sum();
            std::array::from_fn(of_word)
        };
        let entries = values.chunks_exact(self.words());
        Ok(entries.take(read as usize).map(sum).collect())
    }

    /// Sets `count` entries from `first` on to zero.
    pub(super) fn clear(&self, first: u32, count: u32) -> io::Result<()> {
        let zeros = vec![0_u64; count.min(BATCH) as usize * self.words()];
        let end = first + count;
        for start in (first..end).step_by(BATCH as usize) {
            let count = (end - start).min(BATCH);
            let zeros = &zeros[..count as usize * self.words()];
            batch::write_elements(self.data.fd().as_fd(), start, count, zeros)?;
        }
        Ok(())
    }

    /// Of an entry, of all CPUs.
    fn words(&self) -> usize {
        self.cpus * WORDS
    }
}
