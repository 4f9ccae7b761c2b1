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

    #[inline(always)]
    fn set(&self, bits: u64) {
        // SAFETY: as in `load`. Compiles to BPF's atomic_or (Linux 5.12).
        unsafe {
            intrinsics::atomic_or::<u64, u64, { intrinsics::AtomicOrdering::SeqCst }>(
                self.0.get(),
                bits,
            )
        };
    }

    #[inline(always)]
    fn request(&self) {
        let highest = if cfg!(target_endian = "little") { 7 } else { 0 };
        let byte = self.0.get().cast::<u8>();
        // SAFETY: within the word. The byte is 0 in every value, so that no other CPU, which may
        // load or swap the whole word at the same time, sees it change.
        unsafe { ptr::write_volatile(byte.add(highest), 0) };
    }

    #[inline(always)]
    fn opaque(number: u64) -> u64 {
        opaque(number as usize) as u64
    }

    #[inline(always)]
    fn blur(number: u64, noise: u64) -> u64 {
        forget::<{ u64::MAX }>(number as usize, noise) as u64
    }
}

/// `number`, of which the verifier no longer knows more than that it is at most `MASK` (all ones),
/// as it must be: it walks what follows once, and not once for every number that is possible.
/// `noise` is anything that the verifier does not know either.
#[inline(always)]
pub(crate) fn forget<const MASK: u64>(number: usize, noise: u64) -> usize {
    let mut number = number as u64;
    // SAFETY: changes nothing but the register: the same bits are flipped twice. The verifier
    // keeps only the bounds of both operands, and the compiler cannot see through it.
    unsafe {
        core::arch::asm!(
            "{number} ^= {noise}",
            "{number} ^= {noise}",
            number = inout(reg) number,
            noise = in(reg) noise & MASK,
            options(pure, nomem, nostack),
        );
    }
    number as usize
}

/// The same number, of which the compiler no longer knows anything: it then leaves the bounds
/// check that the verifier wants to see.
#[inline(always)]
pub(crate) fn opaque(number: usize) -> usize {
    let mut number = number as u64;
    // SAFETY: a register is copied to itself. It must be an instruction: debug information of two
    // lines for one instruction is refused by the kernel.
    unsafe {
        core::arch::asm!("{0} = {0}", inout(reg) number, options(pure, nomem, nostack, preserves_flags));
    }
    number as usize
}
