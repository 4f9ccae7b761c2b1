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

/// How far the coarse clocks advance at a time: a jiffy.
pub(super) fn jiffy() -> io::Result<Duration> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: as above.
    match unsafe { libc::clock_getres(libc::CLOCK_MONOTONIC_COARSE, &raw mut time) } {
        0 => Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Returns when every packet that was in a BPF program has left it (an RCU grace period; some
/// milliseconds). With one CPU the kernel does not wait: the packet has left it by the time that a
/// process runs.
///
/// # Errors
///
/// `EINVAL` where CPUs run without ticks (`nohz_full`); `ENOSYS` from a kernel without
/// `membarrier(2)`.
pub(super) fn wait_for_packets() -> io::Result<()> {
    // SAFETY: no pointers.
    match unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What an XDP program made of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XdpOutcome {
    pub verdict: u32,
    pub frame: Vec<u8>,
}

/// Runs an XDP program once on a frame, by `BPF_PROG_TEST_RUN`.
///
/// # Errors
///
/// The kernel's: `EINVAL` for a frame that is shorter than an Ethernet header.
pub fn run_xdp(program: BorrowedFd<'_>, frame: &[u8]) -> io::Result<XdpOutcome> {
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
    Ok(XdpOutcome {
        verdict: run.verdict,
        frame: output,
    })
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
    let mut attributes = Attributes {
        map: map.as_raw_fd() as u32,
        padding: 0,
        key: (&raw const key) as u64,
        value: 0,
        flags: 0,
    };
    // SAFETY: the attributes are those of this command, and the key lives until it returns.
    match unsafe { bpf(BPF_MAP_DELETE_ELEM, &mut attributes) } {
        Err(error) if is_missing(&error) => Ok(()),
        result => result.map(drop),
    }
}

/// Whether a map has no such element.
pub(super) fn is_missing(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOENT)
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
    let mut detach = Detach {
        link: link.as_raw_fd() as u32,
    };
    // SAFETY: the attributes are those of this command, and hold no pointer.
    unsafe { bpf(BPF_LINK_DETACH, &mut detach) }.map(drop)
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
    let mut ask = Ask {
        descriptor: link.as_raw_fd() as u32,
        length: size_of::<Info>() as u32,
        info: (&raw mut info) as u64,
    };
    // SAFETY: the attributes are those of this command, and the kernel writes no more than the
    // length they give to a place that lives until it returns.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut ask) }?;
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
    let mut get = Get {
        path: path.as_ptr() as u64,
        descriptor: 0,
        flags: 0,
    };
    // SAFETY: the attributes are those of this command, and the path lives until it returns.
    let descriptor = unsafe { bpf(BPF_OBJ_GET, &mut get) }?;
    // SAFETY: a new descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// # Safety
///
/// `attributes` are a prefix of `union bpf_attr` for this command, and what they point to lives and is
/// as long as the kernel takes it for.
pub(super) unsafe fn bpf<A>(command: libc::c_long, attributes: &mut A) -> io::Result<i32> {
    // SAFETY: as the caller promises; the kernel takes what is not there as zero, and may answer in
    // the attributes.
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
        result => Ok(result as i32),
    }
}
