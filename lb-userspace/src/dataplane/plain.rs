//! Records of `lb-common` as aya takes them.

use lb_common::{
    decap,
    records::{Backend, BackendCounters, Hop, Sample, Service, Settings, Tunnel},
    snat::SnatPool,
};

/// Types whose every byte counts: `repr(C)`, no padding, any bytes are a value.
///
/// # Safety
///
/// The implementor must be all of that.
pub(super) unsafe trait Record: Copy + 'static {}

// SAFETY: repr(C) with explicit padding, integers and byte arrays only; sizes are asserted there.
unsafe impl Record for Service {}
// SAFETY: as above.
unsafe impl Record for Backend {}
// SAFETY: as above.
unsafe impl Record for Hop {}
// SAFETY: as above.
unsafe impl Record for BackendCounters {}
// SAFETY: as above.
unsafe impl Record for Tunnel {}
// SAFETY: as above.
unsafe impl Record for Settings {}
// SAFETY: as above.
unsafe impl Record for SnatPool {}
// SAFETY: as above.
unsafe impl Record for Sample {}
// SAFETY: as above.
unsafe impl Record for decap::Settings {}

/// A record as a key or a value of aya's maps.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(super) struct Plain<T>(pub(super) T);

// SAFETY: transparent over a type that may be read from and written as bytes.
unsafe impl<T: Record> aya::Pod for Plain<T> {}

/// The words of a record of 64 bytes, to be written one by one.
pub(super) fn words<T: Record>(record: T) -> [u64; 8] {
    const { assert!(size_of::<T>() == 64) };
    // SAFETY: both are 64 bytes, `T` has no padding, and any bytes are eight words.
    unsafe { std::mem::transmute_copy(&record) }
}

/// The record that these bytes are, if they are as many.
pub(super) fn read<T: Record>(bytes: &[u8]) -> Option<T> {
    // SAFETY: there are enough bytes, any of them are a value, and no alignment is asked for.
    (bytes.len() == size_of::<T>()).then(|| unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}
