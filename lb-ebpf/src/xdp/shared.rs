//! Words that several CPUs and the daemon read and write at the same time.

use core::{cell::UnsafeCell, intrinsics, ptr};

use lb_common::flow::Word;

/// A 64-bit word in a map.
#[repr(transparent)]
pub(crate) struct SharedWord(UnsafeCell<u64>);

// SAFETY: every access goes through the methods below, each of which is one aligned 64-bit load,
// store or compare-and-swap.
unsafe impl Sync for SharedWord {}

impl Word for SharedWord {
    #[inline(always)]
    fn load(&self) -> u64 {
        // SAFETY: the pointer comes from a reference, and map values are aligned to eight bytes.
        // Volatile, so that it is one load and happens where it is written; x86-64 orders loads
        // among themselves, which makes it an acquire.
        unsafe { ptr::read_volatile(self.0.get()) }
    }

    #[inline(always)]
    fn store(&self, value: u64) {
        // SAFETY: as in `load`; x86-64 orders stores among themselves, which makes it a release.
        unsafe { ptr::write_volatile(self.0.get(), value) }
    }

    #[inline(always)]
    fn replace(&self, current: u64, new: u64) -> bool {
        // SAFETY: as in `load`. Compiles to BPF's cmpxchg_64, a full barrier (Linux 5.12).
        let (seen, _) = unsafe {
            intrinsics::atomic_cxchg::<
                u64,
                { intrinsics::AtomicOrdering::SeqCst },
                { intrinsics::AtomicOrdering::SeqCst },
            >(self.0.get(), current, new)
        };
        seen == current
    }
}
