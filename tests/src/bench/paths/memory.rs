//! Memory of an interpreted program: regions that end where they end.

use anyhow::{Context as _, ensure};

/// An address is a region's number in the upper half and an offset in the lower one: what runs over a
/// region's end meets nothing. Region 0 is never there, so that null leads nowhere.
#[derive(Default)]
pub(super) struct Memory {
    regions: Vec<Region>,
}

struct Region {
    bytes: Vec<u8>,
    access: Access,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    ReadWrite,
    ReadOnly,
}

impl Memory {
    /// Its address.
    pub(super) fn add(&mut self, bytes: Vec<u8>, access: Access) -> u64 {
        self.regions.push(Region { bytes, access });
        (self.regions.len() as u64) << 32
    }

    /// A number of `size` bytes, at most eight, in native order.
    ///
    /// # Errors
    ///
    /// Not all of them are in one region.
    pub(super) fn load(&self, address: u64, size: usize) -> anyhow::Result<u64> {
        let bytes = self.bytes(address, size)?;
        let mut word = [0; 8];
        let place = if cfg!(target_endian = "little") {
            &mut word[..size]
        } else {
            &mut word[8 - size..]
        };
        place.copy_from_slice(bytes);
        Ok(u64::from_ne_bytes(word))
    }

    /// Stores the low `size` bytes of a number.
    ///
    /// # Errors
    ///
    /// As [`Memory::load`]; or the region is read-only.
    pub(super) fn store(&mut self, address: u64, size: usize, value: u64) -> anyhow::Result<()> {
        let word = value.to_ne_bytes();
        let bytes = if cfg!(target_endian = "little") {
            &word[..size]
        } else {
            &word[8 - size..]
        };
        let stored = self.region(address).and_then(|region| {
            let region = self.regions.get_mut(region)?;
            let start = offset(address);
            let place = region.bytes.get_mut(start..start + size)?;
            (region.access == Access::ReadWrite).then(|| place.copy_from_slice(bytes))
        });
        stored.with_context(|| format!("{size} bytes at {address:#x} may not be stored"))
    }

    /// # Errors
    ///
    /// As [`Memory::load`].
    pub(super) fn bytes(&self, address: u64, size: usize) -> anyhow::Result<&[u8]> {
        let start = offset(address);
        self.region(address)
            .and_then(|region| self.regions.get(region)?.bytes.get(start..start + size))
            .with_context(|| format!("{size} bytes at {address:#x} may not be read"))
    }

    /// Replaces a region's first bytes.
    ///
    /// # Errors
    ///
    /// It has fewer.
    pub(super) fn overwrite(&mut self, address: u64, bytes: &[u8]) -> anyhow::Result<()> {
        let region = self.region(address);
        let region = region.and_then(|region| self.regions.get_mut(region));
        let region = region.with_context(|| format!("there is nothing at {address:#x}"))?;
        ensure!(
            offset(address) == 0 && bytes.len() <= region.bytes.len(),
            "{} bytes do not fit {address:#x}",
            bytes.len()
        );
        region.bytes[..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn region(&self, address: u64) -> Option<usize> {
        ((address >> 32) as usize).checked_sub(1)
    }
}

fn offset(address: u64) -> usize {
    address as u32 as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_access_is_within_one_region() {
        let mut memory = Memory::default();
        let first = memory.add(vec![0; 8], Access::ReadWrite);
        let second = memory.add(vec![1; 8], Access::ReadOnly);
        memory.store(first + 6, 2, 0xabcd).unwrap();
        assert_eq!(memory.load(first + 6, 2).unwrap(), 0xabcd);
        assert!(memory.load(first + 7, 2).is_err());
        assert!(memory.load(first.wrapping_sub(1), 1).is_err());
        assert!(memory.load(0, 1).is_err());
        assert_eq!(memory.load(second, 1).unwrap(), 1);
        assert!(memory.store(second, 1, 0).is_err());
        assert!(memory.load(second + (1 << 32), 1).is_err());
    }
}
