//! System calls that aya has no call for.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
    time::Duration,
};

/// Gives memory back that is allocated no more, and that `read_only` takes where it stands in the
/// program's file: it is read from there again when it is looked at.
pub(super) fn give_back_memory(read_only: &'static [u8]) {
    const PAGE: usize = 4096;
    let range = read_only.as_ptr_range();
    let start = (range.start as usize).next_multiple_of(PAGE);
    let end = range.end as usize / PAGE * PAGE;
    if start < end {
        // SAFETY: whole pages of a constant. Its mapping is private and of a file, so that what
        // is dropped is read again from there; no other object shares them.
        unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) };
    }
    #[cfg(target_env = "gnu")]
    // SAFETY: may be called at any time.
    unsafe {
        libc::malloc_trim(0)
    };
}

/// The clock of the packet path, since boot: coarse and monotonic.
pub(super) fn monotonic() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: a valid place for the answer; this clock exists since Linux 2.6.32.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Removes an element of a map whose keys are 32 bits. Removing what is not there is no error.
pub(super) fn delete_element(map: BorrowedFd<'_>, key: u32) -> io::Result<()> {
    /// The part of `union bpf_attr` that `BPF_MAP_*_ELEM` reads (`include/uapi/linux/bpf.h`).
    #[repr(C)]
    struct Attributes {
        map: u32,
        padding: u32,
        key: u64,
        value: u64,
        flags: u64,
    }
    const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
    let attributes = Attributes {
        map: map.as_raw_fd() as u32,
        padding: 0,
        key: (&raw const key) as u64,
        value: 0,
        flags: 0,
    };
    // SAFETY: the attributes are those of this command, and the key lives until it returns.
    match unsafe { bpf(BPF_MAP_DELETE_ELEM, &attributes) } {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        result => result.map(drop),
    }
}

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
    match unsafe { bpf_inout(BPF_MAP_LOOKUP_BATCH, &mut batch) } {
        // There are no more than were read.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(batch.count),
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
    unsafe { bpf_inout(BPF_MAP_UPDATE_BATCH, &mut batch) }.map(drop)
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
    unsafe { bpf_inout(BPF_MAP_UPDATE_BATCH, &mut batch) }.map(drop)
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

/// Detaches the program of the link that is pinned at `path` from its interface.
///
/// Removing the pin does so too, but the kernel takes its time over that; after this call the
/// interface is free. A link whose interface is gone is no error.
pub(super) fn detach_pinned_link(path: &Path) -> io::Result<()> {
    /// The part of `union bpf_attr` that `BPF_LINK_DETACH` reads.
    #[repr(C)]
    struct Detach {
        link: u32,
    }
    const BPF_LINK_DETACH: libc::c_long = 34;
    let link = open_pinned(path)?;
    let detach = Detach {
        link: link.as_raw_fd() as u32,
    };
    // SAFETY: the attributes are those of this command, and hold no pointer.
    unsafe { bpf(BPF_LINK_DETACH, &detach) }.map(drop)
}

/// The index of the interface that the XDP link pinned at `path` is attached to; 0 where that
/// interface is gone, and the link with it.
pub(super) fn pinned_link_interface(path: &Path) -> io::Result<u32> {
    /// The part of `union bpf_attr` that `BPF_OBJ_GET_INFO_BY_FD` reads.
    #[repr(C)]
    struct Ask {
        descriptor: u32,
        length: u32,
        info: u64,
    }
    /// `struct bpf_link_info` as far as XDP links go.
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        kind: u32,
        id: u32,
        program: u32,
        /// The union behind it is aligned to eight bytes.
        padding: u32,
        interface: u32,
        reserved: u32,
    }
    const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
    const BPF_LINK_TYPE_XDP: u32 = 6;
    let link = open_pinned(path)?;
    let mut info = Info::default();
    let ask = Ask {
        descriptor: link.as_raw_fd() as u32,
        length: size_of::<Info>() as u32,
        info: (&raw mut info) as u64,
    };
    // SAFETY: the attributes are those of this command, and the kernel writes no more than the
    // length they give to a place that lives until it returns.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &ask) }?;
    if info.kind != BPF_LINK_TYPE_XDP {
        return Err(io::Error::other("the pin is of something else"));
    }
    Ok(info.interface)
}

fn open_pinned(path: &Path) -> io::Result<OwnedFd> {
    /// The part of `union bpf_attr` that `BPF_OBJ_GET` reads.
    #[repr(C)]
    struct Get {
        path: u64,
        descriptor: u32,
        flags: u32,
    }
    const BPF_OBJ_GET: libc::c_long = 7;
    let path = CString::new(path.as_os_str().as_bytes())?;
    let get = Get {
        path: path.as_ptr() as u64,
        descriptor: 0,
        flags: 0,
    };
    // SAFETY: the attributes are those of this command, and the path lives until it returns.
    let descriptor = unsafe { bpf(BPF_OBJ_GET, &get) }?;
    // SAFETY: a new descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// # Safety
///
/// `attributes` are a prefix of `union bpf_attr` for this command, and what they point to lives.
unsafe fn bpf<A>(command: libc::c_long, attributes: &A) -> io::Result<i32> {
    // SAFETY: as the caller promises.
    unsafe { call_bpf(command, std::ptr::from_ref(attributes), size_of::<A>()) }
}

/// The same for a command that writes to its attributes.
///
/// # Safety
///
/// As for [`bpf`].
unsafe fn bpf_inout<A>(command: libc::c_long, attributes: &mut A) -> io::Result<i32> {
    // SAFETY: as the caller promises.
    unsafe { call_bpf(command, std::ptr::from_mut(attributes), size_of::<A>()) }
}

/// # Safety
///
/// As for [`bpf`]; where the command writes to its attributes, they may be written to.
unsafe fn call_bpf<A>(
    command: libc::c_long,
    attributes: *const A,
    length: usize,
) -> io::Result<i32> {
    // SAFETY: as the caller promises; the kernel takes what is not there as zero.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, length) };
    match result {
        -1 => Err(io::Error::last_os_error()),
        result => Ok(result as i32),
    }
}
