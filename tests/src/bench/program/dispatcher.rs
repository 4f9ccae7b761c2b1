//! Keeps programs in the kernel's XDP dispatcher.
//!
//! A test run of many packets puts its program into the dispatcher, takes it out in the end, and
//! waits both times until no CPU is in the former dispatcher any more: for many milliseconds, longer
//! the busier the machine is. A program that is attached to some interface is in there already.

use std::{fs::File, io, panic, thread};

use anyhow::Context as _;
use aya::programs::{Xdp, xdp::XdpMode};

/// The loopback interface of any network namespace.
const LOOPBACK: u32 = 1;

/// Attaches a program where there are no packets: in a network namespace that lasts for as long as
/// the file is open.
pub(super) fn keep(program: &mut Xdp) -> anyhow::Result<File> {
    // Of this thread, and of nothing else, it becomes the namespace.
    let attach = || {
        // SAFETY: no pointers; the thread has just begun and does nothing else.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            return Err(io::Error::last_os_error()).context("make a network namespace");
        }
        program.attach_to_if_index(LOOPBACK, XdpMode::Skb)?;
        File::open("/proc/thread-self/ns/net").context("open the network namespace")
    };
    thread::scope(|scope| scope.spawn(attach).join())
        .unwrap_or_else(|panicked| panic::resume_unwind(panicked))
}
