//! The decapsulator of backends (`lb-decap`): loaded, attached, asked and taken down without any
//! daemon, by `lbctl decap`. What it needs to go on by itself is pinned.
//!
//! ```text
//! <bpffs>/decap-v<layout>/maps/{ADDRESSES4,ADDRESSES6,SETTINGS,OUTCOMES}   of the host: shared
//! <bpffs>/decap-v<layout>/links/<mode>-<ifindex>                     one an interface
//! ```

mod maps;
mod status;

use std::{
    collections::BTreeSet,
    net::IpAddr,
    num::NonZeroU16,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use aya::{EbpfLoader, programs::Xdp, util::KernelVersion};
use lb_common::decap::{GUE_PORT, LAYOUT_VERSION, Settings};

pub use status::{DecapInterface, DecapStatus, OutcomeCount, status};

use self::maps::Maps;
use super::{
    AttachMode, DataPlaneError, Detached, PinsError, interface, links,
    pins::{Layout, PinnedLink, Pins},
    programs::{has_multi_buffer, load, prepare_load, xdp},
    removal::remove_link,
    sys,
};
use crate::config::InterfaceSettings;

/// Where the pins are unless somebody says otherwise.
pub const DEFAULT_BPFFS: &str = "/sys/fs/bpf/lb-decap";

/// The XDP program, built by this crate's build script; empty if that was told to skip it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lb-decap"));

static LAYOUT: Layout = Layout {
    prefix: "decap-v",
    version: LAYOUT_VERSION,
    maps: maps::MAPS,
    owner: "lbctl",
    detach: "lbctl decap detach",
};

/// The program's entry points: for frames of several buffers, and for kernels that know only one.
const FRAGS: &str = "lb_decap";
const LINEAR: &str = "lb_decap_linear";

/// The first kernel whose XDP attachments are links, which can be pinned.
const FIRST_KERNEL: KernelVersion = KernelVersion::new(5, 9, 0);

/// Why there is no decapsulator, or none that can be asked.
#[derive(Debug, thiserror::Error)]
pub enum DecapError {
    #[error("no decapsulator is attached to {interface} (pins below {})", .bpffs.display())]
    NotAttached { interface: String, bpffs: PathBuf },
    #[error("no decapsulator is attached (pins below {})", .bpffs.display())]
    NothingAttached { bpffs: PathBuf },
    #[error("what is attached is of another version of lbctl: attach again")]
    OtherVersion,
    #[error("this kernel ({found}) cannot pin an XDP attachment: Linux 5.15 or newer is needed")]
    Kernel { found: String },
    #[error(
        "the pins below {} are of another network namespace: name another directory with --bpffs",
        .bpffs.display()
    )]
    Namespace { bpffs: PathBuf },
    #[error(
        "this host has {found} {family} addresses: at most {} are remembered",
        lb_common::decap::MAX_ADDRESSES
    )]
    TooManyAddresses { found: usize, family: &'static str },
    #[error(transparent)]
    Pins(#[from] PinsError),
    #[error(transparent)]
    DataPlane(#[from] DataPlaneError),
}

/// What is wanted of [`attach`].
#[derive(Clone, Debug)]
pub struct Attach {
    pub bpffs: PathBuf,
    pub interface: InterfaceSettings,
    /// `None`: what it is already, or [`GUE_PORT`].
    pub gue_port: Option<NonZeroU16>,
    /// The host's own.
    pub addresses: BTreeSet<IpAddr>,
}

/// What [`attach`] did.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Attached {
    pub interface: String,
    pub mode: AttachMode,
    /// Why this mode and not the wanted one, for people; empty when there is nothing to say.
    pub note: String,
    /// It was attached already: its program and its maps are up to date now.
    pub refreshed: bool,
    pub gue_port: u16,
    pub addresses: Vec<IpAddr>,
}

/// The loaded program over its pinned maps.
pub struct Decapsulator {
    ebpf: aya::Ebpf,
    program: &'static str,
    pins: Pins,
    maps: Maps,
}

impl Decapsulator {
    /// Loads the program over the maps that are pinned below `bpffs`, or over new ones.
    ///
    /// # Errors
    ///
    /// Another process is at these pins; the pinned maps have another layout; the kernel is too
    /// old, or refuses the program or a map.
    pub fn open(bpffs: &Path) -> Result<Self, DecapError> {
        let program = if has_multi_buffer() { FRAGS } else { LINEAR };
        Self::open_at(program, bpffs)
    }

    /// The same with the entry point for kernels before 5.18, which newer ones take as well.
    ///
    /// # Errors
    ///
    /// As [`Decapsulator::open`].
    pub fn open_linear(bpffs: &Path) -> Result<Self, DecapError> {
        Self::open_at(LINEAR, bpffs)
    }

    fn open_at(program: &'static str, bpffs: &Path) -> Result<Self, DecapError> {
        check_kernel(KernelVersion::current().ok())?;
        prepare_load(OBJECT)?;
        let pins = Pins::lock(bpffs, &LAYOUT)?;
        pins.check()?;
        let paths = maps::MAPS.iter().map(|map| (map.name, pins.map(map.name)));
        let paths: Vec<_> = paths.collect();
        let mut loader = EbpfLoader::new();
        for (name, path) in &paths {
            loader.map_pin_path(name, path.as_path());
        }
        let mut ebpf = loader
            .load(OBJECT)
            .map_err(|error| DataPlaneError::new("load the XDP object", error))?;
        load(&mut ebpf, program)?;
        let maps = Maps::open(&pins)?;
        Ok(Self {
            ebpf,
            program,
            pins,
            maps,
        })
    }

    /// Makes these the host's addresses. Those that were and are known stay so throughout.
    ///
    /// # Errors
    ///
    /// There are too many; the kernel refuses.
    pub fn set_addresses(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<(), DecapError> {
        self.maps.set_addresses(addresses)
    }

    /// Makes this GUE's port; `None`: leaves it as it is, and at first [`GUE_PORT`]. Returns it.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn set_gue_port(&mut self, wanted: Option<NonZeroU16>) -> Result<u16, DecapError> {
        let port = match (wanted, self.maps.settings()?.gue_port) {
            (Some(port), _) => port.get().to_be_bytes(),
            (None, [0, 0]) => GUE_PORT.to_be_bytes(),
            (None, present) => present,
        };
        self.maps.set_settings(Settings {
            gue_port: port,
            reserved: [0; 2],
            namespace: own_namespace()?,
        })?;
        Ok(u16::from_be_bytes(port))
    }

    /// Packets by outcome, in all, since the maps were made.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn counters(&self) -> Result<Vec<OutcomeCount>, DecapError> {
        Ok(self.maps.counters()?)
    }

    /// The loaded program, for [`aya::programs::TestRun`].
    ///
    /// # Errors
    ///
    /// None after [`Decapsulator::open`] has succeeded.
    pub fn program(&mut self) -> Result<&mut Xdp, DataPlaneError> {
        xdp(&mut self.ebpf, self.program)
    }

    fn attach(&mut self, wanted: &Attach) -> Result<Attached, DecapError> {
        let ifindex = links::index(&wanted.interface)?;
        check_namespace(&self.pins)?;
        self.set_addresses(&wanted.addresses)?;
        let gue_port = self.set_gue_port(wanted.gue_port)?;

        let (alive, dead) = links_alive_and_dead(&self.pins)?;
        for (path, ..) in &dead {
            remove_link(path)?;
        }
        let own = self.pins.existing_links()?;
        let here = alive.iter().filter(|(_, index, _)| *index == ifindex);
        let (kept, others): (Vec<_>, Vec<_>) = here.partition(|link| own.contains(link));
        for (path, ..) in others {
            // A program of another version, whose maps this one cannot use.
            remove_link(path)?;
        }
        let refreshed = !kept.is_empty();
        let program = xdp(&mut self.ebpf, self.program)?;
        let attached = links::attach_one(program, &self.pins, &wanted.interface, ifindex)?;
        Ok(Attached {
            interface: attached.name,
            mode: attached.mode,
            note: attached.note,
            refreshed,
            gue_port,
            addresses: wanted.addresses.iter().copied().collect(),
        })
    }
}

/// Attaches the decapsulator to an interface. Where it is attached already, in a wanted mode, it
/// becomes this version's with these addresses, and no packet is lost over that.
///
/// # Errors
///
/// As [`Decapsulator::open`]; there is no such interface, or it takes the program in no wanted
/// mode. Then nothing new is left behind.
pub fn attach(wanted: &Attach) -> Result<Attached, DecapError> {
    // Before anything is made.
    links::index(&wanted.interface)?;
    let mut decapsulator = Decapsulator::open(&wanted.bpffs).inspect_err(|_| {
        // What has gone wrong is worth more than that tidying up did, too.
        let _ = remove_unused(&wanted.bpffs);
    })?;
    let attached = decapsulator.attach(wanted);
    if attached.is_err() && decapsulator.pins.links_of_every_layout()?.is_empty() {
        decapsulator.pins.remove()?;
    }
    attached
}

/// Removes the pins below `bpffs` if no interface has a program of theirs.
fn remove_unused(bpffs: &Path) -> Result<(), PinsError> {
    let Some(pins) = Pins::look(bpffs, &LAYOUT)? else {
        return Ok(());
    };
    if pins.links_of_every_layout()?.is_empty() {
        Pins::lock(bpffs, &LAYOUT)?.remove()?;
    }
    Ok(())
}

/// Detaches the decapsulator from an interface; from the last one, it removes the maps too.
///
/// # Errors
///
/// It is not attached there; a pin cannot be removed; another process is at these pins.
pub fn detach(bpffs: &Path, interface: &str) -> Result<Detached, DecapError> {
    let not_attached = || DecapError::NotAttached {
        interface: interface.to_owned(),
        bpffs: bpffs.to_owned(),
    };
    if Pins::look(bpffs, &LAYOUT)?.is_none() {
        return Err(not_attached());
    }
    let pins = Pins::lock(bpffs, &LAYOUT)?;
    check_namespace(&pins)?;
    let (alive, dead) = links_alive_and_dead(&pins)?;
    for (path, ..) in dead {
        remove_link(&path)?;
    }
    let ifindex = interface::index(interface).ok();
    let (wanted, others): (Vec<_>, Vec<_>) = alive
        .into_iter()
        .partition(|(_, index, _)| Some(*index) == ifindex);
    for (path, ..) in &wanted {
        remove_link(path)?;
    }
    let mut detached = Detached::default();
    if others.is_empty() {
        detached = pins.remove()?;
    }
    if wanted.is_empty() {
        return Err(not_attached());
    }
    detached.interfaces = vec![interface.to_owned()];
    Ok(detached)
}

/// The pinned links that still have their interface, and those that have not.
fn links_alive_and_dead(pins: &Pins) -> Result<(Vec<PinnedLink>, Vec<PinnedLink>), PinsError> {
    let (mut alive, mut dead) = (Vec::new(), Vec::new());
    for link in pins.links_of_every_layout()? {
        let (path, ifindex, _) = &link;
        let found = sys::pinned_link_interface(path).map_err(|source| PinsError::Read {
            path: path.clone(),
            source,
        })?;
        if found == *ifindex {
            alive.push(link);
        } else {
            dead.push(link);
        }
    }
    Ok((alive, dead))
}

/// Interfaces and addresses of another network namespace are not ours to meddle with, and their
/// numbers may be the same. What is attached to nothing is nobody's, and what other versions have
/// noted is not known.
fn check_namespace(pins: &Pins) -> Result<(), DecapError> {
    let own = pins.existing_links()?;
    let (alive, _) = links_alive_and_dead(pins)?;
    if !alive.iter().any(|link| own.contains(link)) {
        return Ok(());
    }
    if Maps::open(pins)?.settings()?.namespace == own_namespace()? {
        return Ok(());
    }
    Err(DecapError::Namespace {
        bpffs: pins.root().to_owned(),
    })
}

/// The number of this thread's network namespace.
fn own_namespace() -> Result<u32, DataPlaneError> {
    let failed = |error| DataPlaneError::new("find out the network namespace", error);
    let inode = std::fs::metadata("/proc/thread-self/ns/net")
        .map_err(failed)?
        .ino();
    // The kernel hands out 32 bits (`struct ns_common`).
    Ok(inode as u32)
}

/// An unknown version is given a try.
fn check_kernel(found: Option<KernelVersion>) -> Result<(), DecapError> {
    match found {
        Some(found) if found < FIRST_KERNEL => Err(DecapError::Kernel {
            found: found.to_string(),
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_links_is_refused_by_name() {
        let error = check_kernel(Some(KernelVersion::new(5, 4, 17))).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("5.4.17") && text.contains("5.15"), "{text}");
        for found in [None, Some(FIRST_KERNEL), Some(KernelVersion::new(6, 1, 0))] {
            assert!(check_kernel(found).is_ok());
        }
    }

    #[test]
    fn where_nothing_is_pinned_nothing_is_attached() {
        let nowhere = tempfile::tempdir().unwrap().path().join("none");
        let error = detach(&nowhere, "lo").unwrap_err().to_string();
        assert!(
            error.starts_with("no decapsulator is attached to lo"),
            "{error}"
        );
        assert!(!nowhere.exists());
    }
}
