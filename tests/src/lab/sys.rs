//! The system calls for which neither the standard library nor a dependency has a safe function.

use std::{
    ffi::CString,
    fs::File,
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::Command,
    sync::Arc,
};

/// Moves the calling thread, and no other, into a network namespace.
pub(super) fn enter(namespace: &File) -> io::Result<()> {
    // SAFETY: setns takes a descriptor and a flag by value; the descriptor is open, because
    // `namespace` is borrowed.
    succeeded(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) })
}

/// Lets the command's child move into a network namespace before it executes the program.
pub(super) fn enter_before_exec(command: &mut Command, namespace: Arc<File>) {
    // SAFETY: between fork and exec the closure makes one system call, which is safe there, and
    // allocates nothing.
    unsafe { command.pre_exec(move || enter(&namespace)) };
}

/// Sends a signal to a process, or to a whole process group where `pid` is negative.
pub(super) fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: kill takes two integers by value.
    succeeded(unsafe { libc::kill(pid, signal) })
}

/// Index of an interface in the network namespace of the calling thread.
pub(super) fn interface_index(name: &str) -> io::Result<u32> {
    let name = CString::new(name)?;
    // SAFETY: `name` is a string that ends in NUL and outlives the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

/// A raw socket in the network namespace of the calling thread.
pub(super) fn raw_socket(family: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: socket takes three integers by value.
    let descriptor = unsafe { libc::socket(family, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol) };
    succeeded(descriptor)?;
    // SAFETY: a new descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Allows this process, and its children, as many open files as the system lets it.
pub(super) fn allow_open_files() -> io::Result<()> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a valid rlimit for the kernel to write to.
    succeeded(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) })?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is a valid rlimit, and the kernel only reads it.
    succeeded(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) })
}

fn succeeded(result: libc::c_int) -> io::Result<()> {
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
