//! The object's programs: which of them are loaded, and where they stand.

use std::{
    panic,
    sync::{Mutex, PoisonError},
    thread,
};

use aya::{
    Ebpf,
    maps::{Map, MapError, ProgramArray},
    programs::{ProgramError, Xdp},
};
use lb_common::records::program;
use tracing::debug;

use super::DataPlaneError;

/// What comes before any object is loaded.
pub(super) fn prepare_load(object: &[u8]) -> Result<(), DataPlaneError> {
    if object.is_empty() {
        return Err(DataPlaneError::new(
            "load the XDP program",
            "this binary was built without it (AYA_BUILD_SKIP): build it again without",
        ));
    }
    raise_memlock_limit();
    Ok(())
}

/// Multi-buffer XDP, by which jumbo frames reach the program, came with Linux 5.18.
pub(super) fn has_multi_buffer() -> bool {
    match aya::util::KernelVersion::current() {
        Ok(version) if version < aya::util::KernelVersion::new(5, 18, 0) => {
            debug!("kernel without multi-buffer XDP");
            false
        }
        _ => true,
    }
}

/// The programs that others go on with by tail calls: name with multi-buffer support, name without,
/// index in the program array.
const CONTINUATIONS: [(&str, &str, u32); program::COUNT as usize] = [
    ("lb_tunnel", "lb_tunnel_linear", program::TUNNEL),
    ("lb_full_nat4", "lb_full_nat4_linear", program::FULL_NAT4),
    ("lb_full_nat6", "lb_full_nat6_linear", program::FULL_NAT6),
    ("lb_icmp", "lb_icmp_linear", program::ICMP),
    ("lb_refuse", "lb_refuse_linear", program::REFUSE),
    ("lb_open4", "lb_open4_linear", program::OPEN4),
    ("lb_open6", "lb_open6_linear", program::OPEN6),
    ("lb_rivals4", "lb_rivals4_linear", program::RIVALS4),
    ("lb_rivals6", "lb_rivals6_linear", program::RIVALS6),
    ("lb_mss", "lb_mss_linear", program::MSS),
];

/// Names and indices of the ones that fit this kernel.
fn continuations(multi_buffer: bool) -> impl Iterator<Item = (&'static str, u32)> {
    CONTINUATIONS
        .into_iter()
        .map(move |(with, without, index)| (if multi_buffer { with } else { without }, index))
}

/// Loads `first` and all that goes on from there, on all CPUs: the verifier takes nearly all of the
/// time that a start takes.
pub(super) fn load_all(
    ebpf: &mut Ebpf,
    first: &str,
    multi_buffer: bool,
) -> Result<(), DataPlaneError> {
    let is_wanted =
        |name: &str| name == first || continuations(multi_buffer).any(|(known, _)| known == name);
    let wanted: Vec<_> = ebpf
        .programs_mut()
        .filter(|(name, _)| is_wanted(name))
        .collect();
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let workers = workers.min(wanted.len());
    let waiting = Mutex::new(wanted);
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let work = || -> Result<(), DataPlaneError> {
        while let Some((name, program)) = next() {
            let loaded = <&mut Xdp>::try_from(program).and_then(Xdp::load);
            loaded.map_err(|error| cannot_load(name, error))?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| {
            worker
                .join()
                .unwrap_or_else(|reason| panic::resume_unwind(reason))
        })
    })
}

/// Puts them in their places, from where an earlier life's program goes on with them at once, as
/// it does with the maps: the layout's version is theirs, too.
pub(super) fn install_continuations(
    ebpf: &mut Ebpf,
    multi_buffer: bool,
    programs: Map,
) -> Result<(), DataPlaneError> {
    let failed = |error: MapError| DataPlaneError::new("fill the program array", error);
    let mut programs: ProgramArray<_> = programs.try_into().map_err(failed)?;
    for (name, index) in continuations(multi_buffer) {
        let fd = xdp(ebpf, name)?
            .fd()
            .map_err(|error| DataPlaneError::new("fill the program array", error))?;
        programs.set(index, fd, 0).map_err(failed)?;
    }
    Ok(())
}

pub(super) fn load<'e>(ebpf: &'e mut Ebpf, name: &str) -> Result<&'e mut Xdp, DataPlaneError> {
    let program = xdp(ebpf, name)?;
    program.load().map_err(|error| cannot_load(name, error))?;
    Ok(program)
}

fn cannot_load(name: &str, error: ProgramError) -> DataPlaneError {
    DataPlaneError::new(format!("load XDP program {name}"), error)
}

pub(super) fn xdp<'e>(ebpf: &'e mut Ebpf, name: &str) -> Result<&'e mut Xdp, DataPlaneError> {
    let find = || format!("find program {name}");
    ebpf.program_mut(name)
        .ok_or_else(|| DataPlaneError::new(find(), "not in the object"))?
        .try_into()
        .map_err(|error: ProgramError| DataPlaneError::new(find(), error))
}

/// Before Linux 5.11, maps count against the limit of locked memory.
fn raise_memlock_limit() {
    let limit = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: a valid limit for this process.
    if unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit) } != 0 {
        debug!("cannot raise the limit of locked memory");
    }
}
