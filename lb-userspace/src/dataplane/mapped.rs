//! BPF arrays in this process's memory.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
    ptr::NonNull,
    sync::atomic::AtomicU64,
};

use aya::maps::MapData;
use lb_common::{
    endpoints::Line,
    flow::{Bucket4, Bucket6},
};

use super::DataPlaneError;

/// Types that may be laid over shared map memory.
///
/// # Safety
///
/// Made of `AtomicU64` only, so that the kernel and other threads may write them at any time, and
/// any bytes are a value; aligned to no more than a page.
pub(super) unsafe trait Shared {}

// SAFETY: eight words.
unsafe impl Shared for [AtomicU64; 8] {}
// SAFETY: one word.
unsafe impl Shared for AtomicU64 {}
// SAFETY: words only.
unsafe impl Shared for Line<AtomicU64> {}
// SAFETY: keys and values are words.
unsafe impl Shared for Bucket4<AtomicU64> {}
// SAFETY: heads and addresses are words.
unsafe impl Shared for Bucket6<AtomicU64> {}

/// A `BPF_F_MMAPABLE` array whose values are `T`s, mapped whole.
pub(super) struct MappedArray<T> {
    start: NonNull<T>,
    entries: usize,
}

// SAFETY: `T: Shared` is made of atomics, and the mapping lives until the last owner drops it.
unsafe impl<T: Shared> Send for MappedArray<T> {}
// SAFETY: as above.
unsafe impl<T: Shared> Sync for MappedArray<T> {}

impl<T: Shared> MappedArray<T> {
    /// Maps the array behind `fd`, whose value size is that of `T` (a multiple of eight bytes).
    ///
    /// # Errors
    ///
    /// The kernel's: `EPERM` or `ENOTSUPP` for a map that is not mmapable, `EINVAL` for more
    /// entries than it has.
    pub(super) fn new(fd: BorrowedFd<'_>, entries: u32) -> io::Result<Self> {
        const { assert!(size_of::<T>().is_multiple_of(8)) };
        let entries = entries as usize;
        // SAFETY: a new shared mapping at an address of the kernel's choice; the fd is open.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                Self::bytes(entries),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { start, entries })
    }

    /// An array of no map, all zero.
    #[cfg(test)]
    pub(super) fn in_memory(entries: u32) -> io::Result<Self> {
        let file = tempfile::tempfile()?;
        file.set_len(Self::bytes(entries as usize) as u64)?;
        Self::new(file.as_fd(), entries)
    }

    pub(super) fn as_slice(&self) -> &[T] {
        // SAFETY: mapped for as long as `self` lives, page-aligned, `entries` long, and `T` is
        // made of atomics that others may write.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.entries) }
    }

    fn bytes(entries: usize) -> usize {
        // The kernel maps whole pages; entries are contiguous.
        (entries * size_of::<T>()).next_multiple_of(4096)
    }
}

impl<T> Drop for MappedArray<T> {
    fn drop(&mut self) {
        let bytes = (self.entries * size_of::<T>()).next_multiple_of(4096);
        // SAFETY: the mapping made in `new`, which nobody can reach any more. Unmapping what was
        // mapped cannot fail.
        unsafe { libc::munmap(self.start.as_ptr().cast(), bytes) };
    }
}

/// Maps an array; its name is for messages.
pub(super) fn mapped<T: Shared>(
    data: &MapData,
    entries: u32,
    name: &str,
) -> Result<MappedArray<T>, DataPlaneError> {
    MappedArray::new(data.fd().as_fd(), entries)
        .map_err(|error| DataPlaneError::new(format!("map {name} into memory"), error))
}
