//! What the kernel says of a directory of pins.

use std::{
    ffi::CString,
    fs::{self, File},
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::Path,
};

pub(super) fn is_bpffs(path: &Path) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else {
        return false;
    };
    // SAFETY: zeroed integers are a value of this C struct.
    let mut found: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: a terminated string and a valid place for the answer.
    let result = unsafe { libc::statfs(path.as_ptr(), &mut found) };
    result == 0 && found.f_type == libc::BPF_FS_MAGIC as libc::__fsword_t
}

/// The process that holds the lock, from `/proc/locks`.
pub(super) fn holder(lock: &File) -> Option<u32> {
    let inode = lock.metadata().ok()?.ino();
    let locks = fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        // "1: FLOCK  ADVISORY  WRITE 2506 00:27:66876 0 EOF"
        let mut fields = line.split_whitespace().skip(1);
        let kind = fields.next()?;
        let pid = fields.nth(2)?;
        let file = fields.next()?;
        let same = kind == "FLOCK" && file.rsplit(':').next()?.parse() == Ok(inode);
        same.then(|| pid.parse().ok()).flatten()
    })
}
