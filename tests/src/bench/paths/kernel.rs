//! What the kernel's maps hold: a command of `bpf(2)` that aya has for maps of known types only.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

/// The value of a key; `None` if there is none.
///
/// # Errors
///
/// The kernel's.
///
/// # Panics
///
/// The key is shorter than the map's keys (`key_size`).
pub(super) fn look_up(
    map: BorrowedFd<'_>,
    key: &[u8],
    key_size: usize,
    value: &mut [u8],
    value_size: usize,
) -> io::Result<bool> {
    /// The part of `union bpf_attr` that `BPF_MAP_*_ELEM` reads (`include/uapi/linux/bpf.h`).
    #[repr(C)]
    struct Element {
        map: u32,
        padding: u32,
        key: u64,
        value: u64,
        flags: u64,
    }
    const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
    assert!(key.len() >= key_size && value.len() >= value_size);
    let mut element = Element {
        map: map.as_raw_fd() as u32,
        padding: 0,
        key: key.as_ptr() as u64,
        value: value.as_mut_ptr() as u64,
        flags: 0,
    };
    // SAFETY: the attributes are those of this command; key and value live until it returns, and
    // are as long as the map's, of which the caller knows the sizes.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_MAP_LOOKUP_ELEM,
            &raw mut element,
            size_of::<Element>(),
        )
    };
    if result == 0 {
        return Ok(true);
    }
    match io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        error => Err(error),
    }
}
