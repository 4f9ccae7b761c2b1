//! The machine that is measured on, and a quiet place on it.

use std::{fs, io, mem, panic, thread, time::Duration};

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    pub cpu: String,
    pub cpus: usize,
    /// Its version, without what a distribution adds.
    pub kernel: String,
}

impl Machine {
    /// The one that this runs on.
    pub(super) fn of_this() -> io::Result<Self> {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
        let cpu = cpuinfo
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(key, _)| key.trim() == "model name")
            .map_or("unknown CPU", |(_, model)| model.trim());
        let cpus = cpuinfo.lines().filter(|line| line.starts_with("processor"));
        let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        let kernel = release.trim().split('-').next().unwrap_or_default();
        Ok(Self {
            cpu: cpu.to_owned(),
            cpus: cpus.count(),
            kernel: kernel.to_owned(),
        })
    }
}

/// Where a thread runs undisturbed.
#[derive(Clone, Copy, Debug)]
pub(super) struct QuietPlace {
    cpu: usize,
    /// Whether nothing but interrupts can preempt it.
    realtime: bool,
}

impl std::fmt::Display for QuietPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let priority = if self.realtime {
            "real-time"
        } else {
            "ordinary"
        };
        write!(f, "on CPU {} at {priority} priority", self.cpu)
    }
}

/// Does `work` in a thread that is pinned to one CPU, at real-time priority where that is permitted:
/// with the thread goes what nothing else may inherit.
pub(super) fn in_a_quiet_place<T: Send>(
    work: impl FnOnce(QuietPlace) -> anyhow::Result<T> + Send,
) -> anyhow::Result<T> {
    let settle_and_work = || {
        let cpu = pin()?;
        let realtime = prefer();
        work(QuietPlace { cpu, realtime })
    };
    thread::scope(|scope| scope.spawn(settle_and_work).join())
        .unwrap_or_else(|panicked| panic::resume_unwind(panicked))
}

/// Does `work` in a thread that is pinned to one CPU, at ordinary priority.
pub(super) fn on_one_cpu<T: Send>(
    work: impl FnOnce() -> anyhow::Result<T> + Send,
) -> anyhow::Result<T> {
    let settle_and_work = || {
        pin()?;
        work()
    };
    thread::scope(|scope| scope.spawn(settle_and_work).join())
        .unwrap_or_else(|panicked| panic::resume_unwind(panicked))
}

/// Pins this thread to the last CPU that it may run on, and says which: interrupts tend to the first.
///
/// # Errors
///
/// There is none that the kernel allows.
pub fn pin() -> io::Result<usize> {
    // SAFETY: a bit set, for which zero is a value.
    let mut allowed: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: a valid set of the size given, and this thread.
    let result = unsafe { libc::sched_getaffinity(0, size_of_val(&allowed), &raw mut allowed) };
    check(result)?;
    let last = (0..libc::CPU_SETSIZE as usize)
        // SAFETY: below the set's size.
        .rfind(|&cpu| unsafe { libc::CPU_ISSET(cpu, &allowed) })
        .ok_or(io::ErrorKind::NotFound)?;
    // SAFETY: as above.
    let mut only: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: below the set's size.
    unsafe { libc::CPU_SET(last, &mut only) };
    // SAFETY: as for `sched_getaffinity`.
    let result = unsafe { libc::sched_setaffinity(0, size_of_val(&only), &raw const only) };
    check(result)?;
    Ok(last)
}

/// Asks for the lowest real-time priority; whether it was given.
fn prefer() -> bool {
    let priority = libc::sched_param { sched_priority: 1 };
    // SAFETY: valid parameters, and this thread.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const priority) == 0 }
}

/// CPU time that this thread has had: what others take in between does not count.
pub(super) fn cpu_time() -> io::Result<Duration> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: a valid place for the answer.
    check(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) })?;
    Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
