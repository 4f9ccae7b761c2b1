//! What outlives the daemon beside the data plane itself: two files in the state directory.
//!
//! * `state.json`: what must not be lost. What is wanted, which index belongs to whom, and the
//!   slot tables' bases. Every record of a living connection names an index, so without this file
//!   a connection could be sent to a stranger.
//! * `observed.json`: what would be found out again: health, next hops. It spares a restart the
//!   time until then, is written whenever one of them changes, and may be missing.
//!
//! Both are replaced as a whole (a new file, renamed over the old one), so a reader finds the old
//! or the new content, never a part.
//!
//! # Why a SIGKILL does no harm, wherever it strikes
//!
//! The rule is: `state.json` is written, and is on the disk, before the first map is. Let *S* be
//! the last state that was written and *R* the one before it. What is in the maps is then
//! *R*, or *S*, or *R* with the first steps of the plan from *R* to *S*:
//!
//! * **Before the rename.** The file says *R*, the maps say *R*. The change never happened; nobody
//!   was told that it had.
//! * **After the rename, before, between or after the steps.** Every prefix of a plan is a state
//!   that packets can be served from ([`super::plan`]). The next life reads *S* and writes all of
//!   it again; it neither reads nor trusts what the maps hold. Indices have not changed meaning:
//!   what *S* allocates anew was free in *R*, so no connection names it; what *R* allocates is
//!   still allocated in *S*, unless it was freed.
//! * **While an index is freed.** It is freed when maps are as wanted, no table has named it for
//!   seconds and no connection names it. First its counters are added to the service's `retired`
//!   and it leaves the allocation, in one write of the file; then its record and its counters are
//!   cleared. Killed in between, the next life finds it unallocated and clears it while adopting
//!   ([`crate::dataplane::MapWrite::PruneRecords`]): nothing is counted twice or lost.
//! * **When a step fails and later changes are made on top of it**, the maps are behind by more
//!   than one state, but only an index that the maps do not lead to is ever freed, and the rest
//!   holds as before.
//!
//! A host that restarts loses the maps, and keeps the files: indices then belong to nobody, and
//! keeping them is harmless. Next hops name interfaces by index, so they are believed only while
//! the host has not restarted.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    net::IpAddr,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    effective::{Bases, Observed, Verdict, rebase},
    ids::Allocation,
};
use crate::{
    dataplane::BackendCounters,
    model::{BackendIndex, Desired, MacAddr, NextHop, ServiceId, VlanTag},
};

const VERSION: u32 = 1;
const STATE_FILE: &str = "state.json";
const OBSERVED_FILE: &str = "observed.json";

/// What must not be lost.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The file's services with what was changed since it was loaded.
    pub desired: Desired,
    /// The file's services as they were loaded.
    pub file: Desired,
    pub allocation: Allocation,
    #[serde(with = "stored_bases")]
    pub bases: Bases,
    /// Counters of the backends that a service once had, whose indices were freed.
    pub retired: BTreeMap<ServiceId, Retired>,
}

/// Sums of counters that the data plane does not hold any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Retired(#[serde(with = "StoredCounters")] pub BackendCounters);

/// Why the state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("cannot {action} {path}")]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(
        "{path} is damaged: {cause}. It says which backend each living connection belongs to, so lbd does not go on without it; what is being forwarded goes on. Restore the file from a backup, or take the data plane down (`lbctl detach`, which ends the connections), remove the file and start again"
    )]
    Damaged { path: PathBuf, cause: String },
    #[error(
        "{path} is of version {found}, and this lbd knows version {VERSION}: start the lbd that wrote it, or take the data plane down (`lbctl detach`, which ends the connections), remove the file and start again"
    )]
    Version { path: PathBuf, found: u32 },
    #[error("cannot write {path} as JSON")]
    Json {
        path: PathBuf,
        source: serde_json::Error,
    },
}

/// A file's content with its version.
#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    version: u32,
    content: T,
}

/// The directory of the two files.
#[derive(Clone, Debug)]
pub(super) struct StateDir(PathBuf);

impl StateDir {
    /// Makes the directory if it does not exist.
    pub(super) fn open(path: &Path) -> Result<Self, StateError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(io_error("make the directory", path))?;
        Ok(Self(path.to_owned()))
    }

    pub(super) fn state_file(&self) -> PathBuf {
        self.0.join(STATE_FILE)
    }

    /// `None` where nothing was ever written.
    pub(super) fn load(&self) -> Result<Option<State>, StateError> {
        let path = self.state_file();
        let Some(mut state) = read::<State>(&path)? else {
            return Ok(None);
        };
        let damaged = |cause: String| StateError::Damaged {
            path: path.clone(),
            cause,
        };
        if let Some(conflict) = state.desired.conflict() {
            return Err(damaged(conflict.kind.to_string()));
        }
        let complete = state.allocation.assign(&state.desired);
        if !state.allocation.is_consistent() || complete.as_ref() != Ok(&state.allocation) {
            return Err(damaged("its indices contradict each other".to_owned()));
        }
        // Leaves a base alone that fits the weights, as all that were written do.
        let nothing = Desired::default();
        state.bases = rebase(&state.bases, &nothing, &state.desired, &state.allocation);
        Ok(Some(state))
    }

    /// When this returns, the state is on the disk.
    pub(super) fn save(&self, state: &State) -> Result<(), StateError> {
        self.replace(&self.state_file(), state, Durability::Disk)
    }

    /// What was observed before; nothing where the file is missing, or says nothing useful.
    pub(super) fn load_observed(&self) -> Observed {
        let path = self.0.join(OBSERVED_FILE);
        match read::<StoredObserved>(&path) {
            Ok(stored) => stored
                .map(StoredObserved::into_observed)
                .unwrap_or_default(),
            Err(error) => {
                tracing::warn!(%error, "what was observed before the restart is not known");
                Observed::default()
            }
        }
    }

    pub(super) fn save_observed(&self, observed: &Observed) -> Result<(), StateError> {
        let path = self.0.join(OBSERVED_FILE);
        self.replace(&path, &StoredObserved::new(observed), Durability::Process)
    }

    fn replace<T: Serialize>(
        &self,
        path: &Path,
        content: &T,
        durability: Durability,
    ) -> Result<(), StateError> {
        let versioned = Versioned {
            version: VERSION,
            content,
        };
        let text = serde_json::to_vec(&versioned).map_err(|source| StateError::Json {
            path: path.to_owned(),
            source,
        })?;
        let new = path.with_extension("json.new");
        write_new(&new, &text, durability).map_err(io_error("write", &new))?;
        fs::rename(&new, path).map_err(io_error("replace", path))?;
        if durability == Durability::Disk {
            File::open(&self.0)
                .and_then(|directory| directory.sync_all())
                .map_err(io_error("sync the directory", &self.0))?;
        }
        Ok(())
    }
}

/// What a file survives.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Durability {
    /// The end of the process.
    Process,
    /// The end of power.
    Disk,
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateError {
    let path = path.to_owned();
    move |source| StateError::Io {
        action,
        path,
        source,
    }
}

fn write_new(path: &Path, text: &[u8], durability: Durability) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text)?;
    match durability {
        Durability::Process => Ok(()),
        Durability::Disk => file.sync_all(),
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StateError> {
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("read", path)(error)),
    };
    let damaged = |error: serde_json::Error| StateError::Damaged {
        path: path.to_owned(),
        cause: error.to_string(),
    };
    let other_version = |found| {
        let path = path.to_owned();
        Err(StateError::Version { path, found })
    };
    match serde_json::from_slice(&text) {
        Ok(Versioned { version, content }) if version == VERSION => Ok(Some(content)),
        Ok(Versioned { version, .. }) => other_version(version),
        // The content of another version may have any shape.
        Err(error) => match serde_json::from_slice(&text) {
            Ok(Version { version }) if version != VERSION => other_version(version),
            _ => Err(damaged(error)),
        },
    }
}

/// Without the [`Arc`]s, which only spare the running daemon copies.
mod stored_bases {
    use std::{collections::BTreeMap, sync::Arc};

    use serde::{Deserialize as _, Deserializer, Serializer};

    use super::Bases;
    use crate::{model::ServiceId, table::BaseTable};

    pub(super) fn serialize<S: Serializer>(bases: &Bases, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(bases.iter().map(|(id, base)| (id, base.as_ref())))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Bases, D::Error> {
        let bases = BTreeMap::<ServiceId, BaseTable>::deserialize(from)?;
        Ok(bases
            .into_iter()
            .map(|(id, base)| (id, Arc::new(base)))
            .collect())
    }
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "BackendCounters")]
struct StoredCounters {
    connections: u64,
    packets_in: u64,
    bytes_in: u64,
    packets_out: u64,
    bytes_out: u64,
}

#[derive(Serialize, Deserialize)]
struct StoredObserved {
    /// Which run of the host the next hops are of.
    boot: Option<String>,
    health: BTreeMap<BackendIndex, Verdict>,
    next_hops: BTreeMap<IpAddr, StoredNextHop>,
    #[serde(default)]
    all_native: bool,
}

#[derive(Serialize, Deserialize)]
struct StoredNextHop {
    ifindex: u32,
    interface: String,
    source_mac: MacAddr,
    destination_mac: MacAddr,
    /// TPID and TCI, outermost first.
    vlan: Vec<(u16, u16)>,
    mtu: u16,
}

impl StoredObserved {
    fn new(observed: &Observed) -> Self {
        let resolved = observed.next_hops.iter().filter_map(|(&address, found)| {
            let hop = found.as_ref().ok()?;
            let stored = StoredNextHop {
                ifindex: hop.ifindex,
                interface: hop.interface.clone(),
                source_mac: hop.source_mac,
                destination_mac: hop.destination_mac,
                vlan: hop.vlan.iter().map(|tag| (tag.tpid, tag.tci)).collect(),
                mtu: hop.mtu,
            };
            Some((address, stored))
        });
        Self {
            boot: boot_id(),
            health: observed.health.clone(),
            next_hops: resolved.collect(),
            all_native: observed.all_native,
        }
    }

    fn into_observed(self) -> Observed {
        let same_boot = self.boot.is_some() && self.boot == boot_id();
        let next_hops = self.next_hops.into_iter().filter(|_| same_boot);
        let restored = next_hops.map(|(address, hop)| {
            let hop = NextHop {
                ifindex: hop.ifindex,
                interface: hop.interface,
                source_mac: hop.source_mac,
                destination_mac: hop.destination_mac,
                vlan: hop
                    .vlan
                    .into_iter()
                    .map(|(tpid, tci)| VlanTag { tpid, tci })
                    .collect(),
                mtu: hop.mtu,
            };
            (address, Ok(hop))
        });
        Observed {
            next_hops: restored.collect(),
            health: self.health,
            all_native: same_boot && self.all_native,
        }
    }
}

/// A number that the kernel draws when it starts.
fn boot_id() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned())
}
