//! Interface names and indices.

use std::{
    ffi::{CStr, CString},
    io,
};

/// The index of the interface `name` in this network namespace.
pub(super) fn index(name: &str) -> io::Result<u32> {
    let name = CString::new(name).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: a terminated string.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

/// The name of the interface with this index, if there is one.
pub(super) fn name(index: u32) -> Option<String> {
    let mut buffer = [0; libc::IF_NAMESIZE];
    // SAFETY: the buffer has the size that the function asks for.
    let found = unsafe { libc::if_indextoname(index, buffer.as_mut_ptr()) };
    if found.is_null() {
        return None;
    }
    // SAFETY: the function has written a terminated string into the buffer.
    let name = unsafe { CStr::from_ptr(buffer.as_ptr()) };
    name.to_str().ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_found_both_ways() {
        let loopback = index("lo").unwrap();
        assert_eq!(name(loopback).as_deref(), Some("lo"));
        assert!(index("no-such-if").is_err());
        assert_eq!(name(u32::MAX), None);
    }
}
