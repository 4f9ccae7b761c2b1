//! What the kernel's maps hold, and what it makes of a packet: commands of `bpf(2)` that aya has for
//! maps of known types only.

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
    match unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &mut element) } {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// What a program left of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) verdict: u32,
    pub(super) frame: Vec<u8>,
}

/// Runs an XDP program once.
///
/// # Errors
///
/// The kernel's: `EINVAL` for a frame that is shorter than an Ethernet header.
pub(super) fn run(program: BorrowedFd<'_>, frame: &[u8]) -> io::Result<Outcome> {
    /// The part of `union bpf_attr` that `BPF_PROG_TEST_RUN` has had from the first.
    #[repr(C)]
    struct Run {
        program: u32,
        verdict: u32,
        input_bytes: u32,
        output_bytes: u32,
        input: u64,
        output: u64,
        repeat: u32,
        nanoseconds: u32,
    }
    const BPF_PROG_TEST_RUN: libc::c_long = 10;
    /// Bytes that a program may put in front.
    const MOST_IN_FRONT: usize = 128;
    let mut output = vec![0; frame.len() + MOST_IN_FRONT];
    let mut run = Run {
        program: program.as_raw_fd() as u32,
        verdict: 0,
        input_bytes: frame.len() as u32,
        output_bytes: output.len() as u32,
        input: frame.as_ptr() as u64,
        output: output.as_mut_ptr() as u64,
        repeat: 1,
        nanoseconds: 0,
    };
    // SAFETY: the attributes are those of this command; both buffers live until it returns, and
    // the kernel writes no more than the length they give.
    unsafe { bpf(BPF_PROG_TEST_RUN, &mut run) }?;
    output.truncate(run.output_bytes as usize);
    Ok(Outcome {
        verdict: run.verdict,
        frame: output,
    })
}

/// # Safety
///
/// `attributes` are a prefix of `union bpf_attr` for this command, and what they point to lives and
/// is as long as the kernel takes it for.
unsafe fn bpf<A>(command: libc::c_long, attributes: &mut A) -> io::Result<()> {
    // SAFETY: as the caller promises; the kernel takes what is not there as zero, and writes to
    // `attributes` alone of what is ours.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<A>(),
        )
    };
    match result {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// `CLOCK_MONOTONIC_COARSE` in nanoseconds: what `bpf_ktime_get_coarse_ns` gives.
///
/// # Errors
///
/// None: the clock exists since Linux 2.6.32.
pub(super) fn coarse_nanoseconds() -> io::Result<u64> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: a valid place for the answer.
    match unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut time) } {
        0 => Ok(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64),
        _ => Err(io::Error::last_os_error()),
    }
}
