//! Elements of maps, many by one system call.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use super::sys::{bpf, is_missing};

/// Reads elements `first`, `first + 1`, … of an array with 32-bit keys into `values`, `count` at the
/// most, all at one stroke; how many there are. Of a per-CPU array an element is the values of all
/// possible CPUs one behind the other, each in whole words.
///
/// # Errors
///
/// The kernel's; it has no such call for per-CPU arrays before Linux 5.13.
pub(super) fn read_elements(
    map: BorrowedFd<'_>,
    first: u32,
    count: u32,
    values: &mut [u64],
) -> io::Result<u32> {
    const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
    let mut keys = vec![0_u32; count as usize];
    let mut next = 0_u32;
    // The kernel begins behind the key that it is given.
    let before = first.checked_sub(1);
    let mut batch = Batch::of(map, count, &mut keys, values);
    batch.before = before
        .as_ref()
        .map_or(0, |key| std::ptr::from_ref(key) as u64);
    batch.next = (&raw mut next) as u64;
    // SAFETY: the attributes are those of this command; keys and values have room for `count`
    // elements, as `Batch::of` has seen to, and everything lives until the call returns.
    match unsafe { bpf(BPF_MAP_LOOKUP_BATCH, &mut batch) } {
        // There are no more than were read.
        Err(error) if is_missing(&error) => Ok(batch.count),
        result => result.map(|_| batch.count),
    }
}

const BPF_MAP_UPDATE_BATCH: libc::c_long = 26;

/// Writes `count` elements from `first` on of an array with 32-bit keys; `values` are as for
/// [`read_elements`].
pub(super) fn write_elements(
    map: BorrowedFd<'_>,
    first: u32,
    count: u32,
    values: &[u64],
) -> io::Result<()> {
    let mut keys: Vec<u32> = (first..first + count).collect();
    let mut batch = Batch::of(map, count, &mut keys, values);
    // SAFETY: as for `read_elements`; the kernel only reads here.
    unsafe { bpf(BPF_MAP_UPDATE_BATCH, &mut batch) }.map(drop)
}

/// Puts maps into a map of maps with 32-bit keys, all at one stroke.
///
/// # Errors
///
/// The kernel's; it has no such call before Linux 5.19.
pub(super) fn install_maps(
    outer: BorrowedFd<'_>,
    keys: &[u32],
    maps: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let descriptors: Vec<u32> = maps.iter().map(|map| map.as_raw_fd() as u32).collect();
    let mut keys = keys.to_vec();
    let count = keys.len().min(descriptors.len()) as u32;
    let mut batch = Batch::of(outer, count, &mut keys, &[]);
    batch.values = descriptors.as_ptr() as u64;
    // SAFETY: as for `read_elements`; the kernel only reads here, a descriptor of 32 bits for each.
    unsafe { bpf(BPF_MAP_UPDATE_BATCH, &mut batch) }.map(drop)
}

/// The part of `union bpf_attr` that `BPF_MAP_*_BATCH` reads, and writes `count` of.
#[repr(C)]
struct Batch {
    before: u64,
    next: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

impl Batch {
    fn of(map: BorrowedFd<'_>, count: u32, keys: &mut [u32], values: &[u64]) -> Self {
        Self {
            before: 0,
            next: 0,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_ptr() as u64,
            count,
            map: map.as_raw_fd() as u32,
            element_flags: 0,
            flags: 0,
        }
    }
}
