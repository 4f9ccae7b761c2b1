//! What stands in the bpffs, so that a data plane outlives the process that has made it.
//!
//! ```text
//! <bpffs>/                     locked (flock) by the process that owns it: the daemon
//!   v<layout>/maps/<NAME>      maps (the decapsulator: decap-v<layout>/…)
//!   v<layout>/links/<mode>-<ifindex>
//! ```
//!
//! Whatever else stands there is somebody else's, and left alone.
//!
//! The layout's version is in the path because a map of another layout would be taken without a
//! word. bpffs reserves dots in names, so a link is named after its interface's index.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use aya::maps::MapInfo;
use lb_common::{
    endpoints::Line,
    flood::FloodMeter,
    flow::{Bucket4, Bucket6},
    rate::TickMeter,
    reason::Reason,
    records::{
        BACKEND_LINES, Backend, BackendCounters, Hop, LAYOUT_VERSION, LISTEN_LINES, MAX_BACKENDS,
        MAX_LAST_HOPS, MAX_SERVICES, MAX_SNAT_ADDRESSES, SAMPLE_BYTES, Service, Settings, Tunnel,
        program,
    },
    snat::SnatPool,
};

use super::{
    AttachMode,
    bpffs::{holder, is_bpffs},
};

/// Why the pins cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PinsError {
    #[error(
        "cannot make {path}: is a BPF file system mounted there? (mount -t bpf bpf /sys/fs/bpf)"
    )]
    Create { path: PathBuf, source: io::Error },
    #[error(
        "{path} is not on a BPF file system: mount one (mount -t bpf bpf /sys/fs/bpf) or name another directory ([daemon] bpffs, --bpffs)"
    )]
    NotBpffs { path: PathBuf },
    #[error("the pins below {path} are held by another {owner}{}", holder.map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    Held {
        path: PathBuf,
        /// What holds pins of this kind.
        owner: &'static str,
        holder: Option<u32>,
    },
    #[error("cannot lock {path}")]
    Lock { path: PathBuf, source: io::Error },
    #[error(
        "pinned map {path} has another layout than this program's ({found}, wanted {wanted}): take the old one down with `{detach}`"
    )]
    Layout {
        path: PathBuf,
        detach: &'static str,
        found: String,
        wanted: String,
    },
    #[error(
        "a data plane that another version has left is attached (pinned link {path}): it goes on forwarding until it is taken down with `{detach}`, which ends its connections; then start again"
    )]
    OtherLayout { path: PathBuf, detach: &'static str },
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

pub(super) const fn map(name: &'static str, key: usize, value: usize, entries: u32) -> PinnedMap {
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
pub(super) const FLOW_OVERFLOWS4: &str = "FLOW_OVERFLOWS4";
pub(super) const FLOW_OVERFLOWS6: &str = "FLOW_OVERFLOWS6";

/// What a data plane keeps in its directory, and who.
pub(super) struct Layout {
    /// Before the version in the directory's name: tells one kind of data plane from another.
    pub(super) prefix: &'static str,
    /// Raised whenever a map changes.
    pub(super) version: u32,
    pub(super) maps: &'static [PinnedMap],
    /// The program that holds the directory's lock, for messages.
    pub(super) owner: &'static str,
    /// The command that takes it down, for messages.
    pub(super) detach: &'static str,
}

/// The balancer's.
pub(super) static BALANCER: Layout = Layout {
    prefix: "v",
    version: LAYOUT_VERSION,
    maps: MAPS,
    owner: "daemon",
    detach: "lbctl detach",
};

/// Every map that the program and the daemon share across restarts.
pub(super) const MAPS: &[PinnedMap] = &[
    map("SERVICES", 4, size_of::<Service>(), MAX_SERVICES),
    map("BACKENDS", 4, size_of::<Backend>(), MAX_BACKENDS),
    map("LAST_HOPS", 4, size_of::<Hop>(), MAX_LAST_HOPS),
    map("LAST_HOP_INDEX", size_of::<Hop>(), 4, MAX_LAST_HOPS),
    map("LAST_HOP_COUNT", 4, 8, 1),
    map("LISTENS4", 4, size_of::<Line<u64>>(), LISTEN_LINES),
    map("LISTENS6", 4, size_of::<Line<u64>>(), LISTEN_LINES),
    map("REPLIERS4", 4, size_of::<Line<u64>>(), BACKEND_LINES),
    map("REPLIERS6", 4, size_of::<Line<u64>>(), BACKEND_LINES),
    map("SERVICE_ADDRESSES4", 4, 4, MAX_SERVICES),
    map("SERVICE_ADDRESSES6", 16, 4, MAX_SERVICES),
    sized_by_setting(FLOWS4, size_of::<Bucket4<u64>>()),
    sized_by_setting(FLOWS6, size_of::<Bucket6<u64>>()),
    sized_by_setting(FLOW_OVERFLOWS4, 8),
    sized_by_setting(FLOW_OVERFLOWS6, 8),
    map("SLOT_TABLES", 4, 4, MAX_SERVICES),
    map("SMALL_SLOT_TABLES", 4, 4, MAX_SERVICES),
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
    map("TICK_METERS", 4, size_of::<TickMeter>(), TickMeter::COUNT),
    map("SAMPLES", 0, 0, SAMPLE_BYTES),
    // A program array forgets its programs when nobody holds it.
    map("PROGRAMS", 4, 4, program::COUNT),
];

/// The directory of pins, locked for as long as this lives (or only looked at).
pub(super) struct Pins {
    root: PathBuf,
    pub(super) layout: &'static Layout,
    _lock: Option<File>,
}

impl Pins {
    /// To look at pins without taking their lock; `None`: there is no such directory.
    pub(super) fn look(root: &Path, layout: &'static Layout) -> Result<Option<Self>, PinsError> {
        // Who may not search the directory above is not to be told that there is nothing.
        let exists = root.try_exists().map_err(|source| PinsError::Read {
            path: root.to_owned(),
            source,
        })?;
        Ok(exists.then(|| Self {
            root: root.to_owned(),
            layout,
            _lock: None,
        }))
    }

    /// Makes the directory if there is none, and takes its lock.
    pub(super) fn lock(root: &Path, layout: &'static Layout) -> Result<Self, PinsError> {
        let is_new = !root.exists();
        fs::create_dir_all(root).map_err(|source| PinsError::Create {
            path: root.to_owned(),
            source,
        })?;
        if !is_bpffs(root) {
            if is_new {
                // What is refused is not worth a second complaint.
                let _ = fs::remove_dir(root);
            }
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
                    owner: layout.owner,
                    holder: holder(&lock),
                });
            }
            Err(fs::TryLockError::Error(source)) => return Err(lock_error(source)),
        }
        let pins = Self {
            root: root.to_owned(),
            layout,
            _lock: Some(lock),
        };
        for directory in [pins.maps(), pins.links()] {
            fs::create_dir_all(&directory).map_err(|source| PinsError::Create {
                path: directory.clone(),
                source,
            })?;
        }
        Ok(pins)
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn maps(&self) -> PathBuf {
        self.directory().join("maps")
    }

    fn links(&self) -> PathBuf {
        self.directory().join("links")
    }

    fn directory(&self) -> PathBuf {
        let Layout {
            prefix, version, ..
        } = self.layout;
        self.root.join(format!("{prefix}{version}"))
    }

    /// The directories of this and of other versions.
    pub(super) fn layouts(&self) -> Result<Vec<PathBuf>, PinsError> {
        let is_one = |path: &PathBuf| {
            let name = path.file_name().and_then(OsStr::to_str);
            let version = name.and_then(|name| name.strip_prefix(self.layout.prefix));
            version.is_some_and(|version| version.parse::<u32>().is_ok())
        };
        Ok(entries(&self.root)?.into_iter().filter(is_one).collect())
    }

    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.maps().join(name)
    }

    pub(super) fn link(&self, ifindex: u32, mode: AttachMode) -> PathBuf {
        self.links().join(format!("{mode}-{ifindex}"))
    }

    /// The links that are pinned: path, interface index, mode.
    pub(super) fn existing_links(&self) -> Result<Vec<PinnedLink>, PinsError> {
        links_in(&self.links())
    }

    /// Those that programs of other layouts have left, too.
    pub(super) fn links_of_every_layout(&self) -> Result<Vec<PinnedLink>, PinsError> {
        let mut links = Vec::new();
        for layout in self.layouts()? {
            links.extend(links_in(&layout.join("links"))?);
        }
        Ok(links)
    }

    /// Refuses to stand beside a data plane of another layout, which holds the interfaces, and whose
    /// connections this one knows nothing of.
    pub(super) fn refuse_other_layouts(&self) -> Result<(), PinsError> {
        let own = self.directory();
        let links = self.links_of_every_layout()?;
        let Some((path, ..)) = links.into_iter().find(|(path, ..)| !path.starts_with(&own)) else {
            return Ok(());
        };
        // What was made a moment ago; whatever is in use stays.
        for empty in [self.maps(), self.links(), own] {
            let _ = fs::remove_dir(empty);
        }
        Err(PinsError::OtherLayout {
            path,
            detach: self.layout.detach,
        })
    }

    /// Refuses pinned maps whose sizes are not this program's; says how many entries the maps that
    /// are sized by settings have, by name.
    pub(super) fn check(&self) -> Result<Vec<(&'static str, u32)>, PinsError> {
        let mut sizes = Vec::new();
        for wanted in self.layout.maps {
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
                    detach: self.layout.detach,
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

/// A pinned link: path, interface index, mode.
pub(super) type PinnedLink = (PathBuf, u32, AttachMode);

fn links_in(directory: &Path) -> Result<Vec<PinnedLink>, PinsError> {
    let mut links = Vec::new();
    for path in entries(directory)? {
        let parsed = path.file_name().and_then(|name| {
            let (mode, ifindex) = name.to_str()?.split_once('-')?;
            let mode = [AttachMode::Native, AttachMode::Generic]
                .into_iter()
                .find(|known| known.to_string() == mode)?;
            Some((ifindex.parse().ok()?, mode))
        });
        if let Some((ifindex, mode)) = parsed {
            links.push((path, ifindex, mode));
        }
    }
    Ok(links)
}

/// A directory that is not there has none.
fn entries(directory: &Path) -> Result<Vec<PathBuf>, PinsError> {
    let listed: io::Result<_> = fs::read_dir(directory)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    match listed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed.map_err(|source| PinsError::Read {
            path: directory.to_owned(),
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_elsewhere_is_refused_and_not_left_behind() {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().join("pins");
        for (root, stays) in [(root.as_path(), false), (home.path(), true)] {
            let refused = Pins::lock(root, &BALANCER).err();
            assert!(matches!(refused, Some(PinsError::NotBpffs { .. })));
            assert_eq!(root.exists(), stays);
        }
    }
}
