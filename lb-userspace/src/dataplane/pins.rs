//! What stands in the bpffs, so that forwarding outlives the daemon.
//!
//! ```text
//! <bpffs>/                     locked (flock) by the daemon that owns it
//!   v<layout>/maps/<NAME>      maps
//!   v<layout>/links/<mode>-<ifindex>
//! ```
//!
//! The layout's version is in the path because a map of another layout would be taken without a
//! word. bpffs reserves dots in names, so a link is named after its interface's index.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use aya::maps::MapInfo;
use lb_common::{
    flow::{Bucket4, Bucket6},
    reason::Reason,
    records::{
        Backend, BackendCounters, Endpoint4, Endpoint6, FloodMeter, Hop, LAYOUT_VERSION,
        MAX_BACKENDS, MAX_LAST_HOPS, MAX_SERVICES, MAX_SNAT_ADDRESSES, Service, Settings, Tunnel,
        program,
    },
    snat::SnatPool,
};

use super::{AttachMode, sys};

/// Why the pins cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PinsError {
    #[error(
        "cannot make {path}: is a BPF file system mounted there? (mount -t bpf bpf /sys/fs/bpf)"
    )]
    Create { path: PathBuf, source: io::Error },
    #[error(
        "{path} is not on a BPF file system: mount one (mount -t bpf bpf /sys/fs/bpf) or set [daemon] bpffs"
    )]
    NotBpffs { path: PathBuf },
    #[error("the pins below {path} are held by another daemon{}", holder.map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    Held { path: PathBuf, holder: Option<u32> },
    #[error("cannot lock {path}")]
    Lock { path: PathBuf, source: io::Error },
    #[error(
        "pinned map {path} has another layout than this program's ({found}, wanted {wanted}): take the old data plane down with `lbctl detach`"
    )]
    Layout {
        path: PathBuf,
        found: String,
        wanted: String,
    },
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot read pinned map {path}")]
    Map {
        path: PathBuf,
        source: aya::maps::MapError,
    },
    #[error("cannot remove {path}")]
    Remove { path: PathBuf, source: io::Error },
}

/// A map that is pinned: name, and sizes of key and value in bytes.
pub(super) struct PinnedMap {
    pub(super) name: &'static str,
    key: usize,
    value: usize,
    /// `None`: it is a setting.
    entries: Option<u32>,
}

const fn map(name: &'static str, key: usize, value: usize, entries: u32) -> PinnedMap {
    PinnedMap {
        name,
        key,
        value,
        entries: Some(entries),
    }
}

const fn sized_by_setting(name: &'static str, value: usize) -> PinnedMap {
    PinnedMap {
        name,
        key: 4,
        value,
        entries: None,
    }
}

pub(super) const FLOWS4: &str = "FLOWS4";
pub(super) const FLOWS6: &str = "FLOWS6";

/// Every map that the program and the daemon share across restarts.
pub(super) const MAPS: &[PinnedMap] = &[
    map("SERVICES", 4, size_of::<Service>(), MAX_SERVICES),
    map("BACKENDS", 4, size_of::<Backend>(), MAX_BACKENDS),
    map("LAST_HOPS", 4, size_of::<Hop>(), MAX_LAST_HOPS),
    map("LAST_HOP_INDEX", size_of::<Hop>(), 4, MAX_LAST_HOPS),
    map("LAST_HOP_COUNT", 4, 8, 1),
    map(
        "SERVICE_BY_LISTEN4",
        size_of::<Endpoint4>(),
        4,
        2 * MAX_SERVICES,
    ),
    map(
        "SERVICE_BY_LISTEN6",
        size_of::<Endpoint6>(),
        4,
        2 * MAX_SERVICES,
    ),
    map(
        "BACKEND_BY_ADDRESS4",
        size_of::<Endpoint4>(),
        4,
        MAX_BACKENDS,
    ),
    map(
        "BACKEND_BY_ADDRESS6",
        size_of::<Endpoint6>(),
        4,
        MAX_BACKENDS,
    ),
    sized_by_setting(FLOWS4, size_of::<Bucket4<u64>>()),
    sized_by_setting(FLOWS6, size_of::<Bucket6<u64>>()),
    map("SLOT_TABLES", 4, 4, MAX_SERVICES),
    map(
        "BACKEND_COUNTERS",
        4,
        size_of::<BackendCounters>(),
        MAX_BACKENDS,
    ),
    map("REASON_COUNTERS", 4, 8, MAX_SERVICES * Reason::ROW),
    map("TX_PORTS", 4, 8, 256),
    map("TUNNELS", 4, size_of::<Tunnel>(), MAX_SERVICES),
    map("SNAT_POOLS", 4, size_of::<SnatPool>(), MAX_SERVICES),
    map("SNAT_ADDRESSES", 4, 16, MAX_SNAT_ADDRESSES),
    map("SNAT_BY_ADDRESS4", 4, 4, MAX_SNAT_ADDRESSES),
    map("SNAT_BY_ADDRESS6", 16, 4, MAX_SNAT_ADDRESSES),
    map("SNAT_PORTS4", 4, 4, MAX_SNAT_ADDRESSES),
    map("SNAT_PORTS6", 4, 4, MAX_SNAT_ADDRESSES),
    map("SETTINGS", 4, size_of::<Settings>(), 1),
    map("FLOOD_METER", 4, size_of::<FloodMeter>(), 1),
    // A program array forgets its programs when nobody holds it.
    map("PROGRAMS", 4, 4, program::COUNT),
];

/// The directory of pins, locked for as long as this lives.
pub(super) struct Pins {
    root: PathBuf,
    _lock: File,
}

impl Pins {
    /// Makes the directory if there is none, and takes its lock.
    pub(super) fn lock(root: &Path) -> Result<Self, PinsError> {
        fs::create_dir_all(root).map_err(|source| PinsError::Create {
            path: root.to_owned(),
            source,
        })?;
        if !is_bpffs(root) {
            return Err(PinsError::NotBpffs {
                path: root.to_owned(),
            });
        }
        let lock_error = |source| PinsError::Lock {
            path: root.to_owned(),
            source,
        };
        let lock = File::open(root).map_err(lock_error)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                return Err(PinsError::Held {
                    path: root.to_owned(),
                    holder: holder(&lock),
                });
            }
            Err(fs::TryLockError::Error(source)) => return Err(lock_error(source)),
        }
        let pins = Self {
            root: root.to_owned(),
            _lock: lock,
        };
        for directory in [pins.maps(), pins.links()] {
            fs::create_dir_all(&directory).map_err(|source| PinsError::Create {
                path: directory.clone(),
                source,
            })?;
        }
        Ok(pins)
    }

    fn maps(&self) -> PathBuf {
        self.root.join(format!("v{LAYOUT_VERSION}/maps"))
    }

    fn links(&self) -> PathBuf {
        self.root.join(format!("v{LAYOUT_VERSION}/links"))
    }

    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.maps().join(name)
    }

    pub(super) fn link(&self, ifindex: u32, mode: AttachMode) -> PathBuf {
        self.links().join(format!("{mode}-{ifindex}"))
    }

    /// The links that are pinned: path, interface index, mode.
    pub(super) fn existing_links(&self) -> Result<Vec<(PathBuf, u32, AttachMode)>, PinsError> {
        let directory = self.links();
        let read = |source| PinsError::Read {
            path: directory.clone(),
            source,
        };
        let mut links = Vec::new();
        for entry in fs::read_dir(&directory).map_err(read)? {
            let entry = entry.map_err(read)?;
            let name = entry.file_name();
            let parsed = name.to_str().and_then(|name| {
                let (mode, ifindex) = name.split_once('-')?;
                let mode = [AttachMode::Native, AttachMode::Generic]
                    .into_iter()
                    .find(|known| known.to_string() == mode)?;
                Some((ifindex.parse().ok()?, mode))
            });
            if let Some((ifindex, mode)) = parsed {
                links.push((entry.path(), ifindex, mode));
            }
        }
        Ok(links)
    }

    /// Refuses pinned maps whose sizes are not this program's; says how many entries the maps that
    /// are sized by settings have, by name.
    pub(super) fn check(&self) -> Result<Vec<(&'static str, u32)>, PinsError> {
        let mut sizes = Vec::new();
        for wanted in MAPS {
            let path = self.map(wanted.name);
            if !path.exists() {
                continue;
            }
            let found = MapInfo::from_pin(&path).map_err(|source| PinsError::Map {
                path: path.clone(),
                source,
            })?;
            let entries = wanted.entries.unwrap_or(found.max_entries());
            let same = (found.key_size(), found.value_size(), found.max_entries())
                == (wanted.key as u32, wanted.value as u32, entries);
            if !same {
                let describe = |key, value, entries| {
                    format!("keys of {key}, values of {value} bytes, {entries} entries")
                };
                return Err(PinsError::Layout {
                    path,
                    found: describe(found.key_size(), found.value_size(), found.max_entries()),
                    wanted: describe(wanted.key as u32, wanted.value as u32, entries),
                });
            }
            if wanted.entries.is_none() {
                sizes.push((wanted.name, found.max_entries()));
            }
        }
        Ok(sizes)
    }
}

/// What [`detach`] removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Detached {
    /// Interfaces (by name, or `#<index>` where there is no such interface any more).
    pub interfaces: Vec<String>,
    pub maps: usize,
}

/// Takes a data plane down: links first, so that packets pass to the host at once, then maps.
///
/// # Errors
///
/// [`PinsError::Held`] while a daemon runs on these pins: ask it instead.
pub fn detach(root: &Path) -> Result<Detached, PinsError> {
    if !root.exists() {
        return Ok(Detached::default());
    }
    Pins::lock(root)?.remove()
}

impl Pins {
    /// Removes everything and gives up the lock.
    pub(super) fn remove(self) -> Result<Detached, PinsError> {
        let mut detached = Detached::default();
        for (path, ifindex, _) in self.existing_links()? {
            remove_link(&path)?;
            detached
                .interfaces
                .push(super::interface::name(ifindex).unwrap_or_else(|| format!("#{ifindex}")));
        }
        detached.interfaces.sort_unstable();
        detached.maps = fs::read_dir(self.maps()).map_or(0, |maps| maps.count());
        // Pins of other layouts, which an upgrade has left behind, go too.
        remove_tree(&self.root)?;
        Ok(detached)
    }
}

/// Removes the pin of a link; when this returns, its program is off the interface.
pub(super) fn remove_link(path: &Path) -> Result<(), PinsError> {
    sys::detach_pinned_link(path)
        .and_then(|()| fs::remove_file(path))
        .map_err(|source| PinsError::Remove {
            path: path.to_owned(),
            source,
        })
}

fn remove_tree(path: &Path) -> Result<(), PinsError> {
    fs::remove_dir_all(path).map_err(|source| PinsError::Remove {
        path: path.to_owned(),
        source,
    })
}

fn is_bpffs(path: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt as _;
    let Ok(path) = std::ffi::CString::new(path.as_os_str().as_bytes()) else {
        return false;
    };
    // SAFETY: zeroed integers are a value of this C struct.
    let mut found: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: a terminated string and a valid place for the answer.
    let result = unsafe { libc::statfs(path.as_ptr(), &mut found) };
    result == 0 && found.f_type == libc::BPF_FS_MAGIC as libc::__fsword_t
}

/// The process that holds the lock, from `/proc/locks`.
fn holder(lock: &File) -> Option<u32> {
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
