//! What a daemon and its data plane take of the machine's memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
};

use anyhow::Context as _;
use aya::maps::{Array, ArrayOfMaps, Map, MapData, MapInfo};
use lb_common::{
    flow::{Bucket4, Bucket6, RECORDS},
    records::MAX_SERVICES,
};

use super::{daemon::Daemon, figures::Figures};

/// In bytes. Nothing is counted twice: maps that the daemon has in its memory count as maps.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Memory {
    /// Both connection tables, and the births beside them.
    pub(super) flow_tables: u64,
    /// Slot tables among them.
    pub(super) other_maps: u64,
    /// Machine code and what the kernel keeps of the instructions.
    pub(super) programs: u64,
    /// Heap, stacks and the like of the daemon.
    pub(super) anonymous: u64,
    /// The daemon's share of what it has in memory of its program file and of libraries (Pss).
    pub(super) files: u64,
}

impl Memory {
    pub(super) fn of(daemon: &Daemon<'_>) -> anyhow::Result<Self> {
        let process = daemon.id()?;
        let mut memory = Self::default();
        memory.add_process(process)?;
        let mut maps = BTreeMap::new();
        let mut programs = BTreeMap::new();
        let descriptors = format!("/proc/{process}/fdinfo");
        for entry in fs::read_dir(&descriptors).with_context(|| descriptors.clone())? {
            match Fields::read(&entry?.path()) {
                Ok(fields) => {
                    fields.add("prog_id", &mut programs);
                    fields.add("map_id", &mut maps);
                }
                // A socket of a probe, closed meanwhile.
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
        memory.programs = programs.values().sum();
        let flow_tables = add_pinned(daemon.pinned.path(), &mut maps)?;
        for (id, bytes) in &maps {
            if flow_tables.contains(id) {
                memory.flow_tables += bytes;
            } else {
                memory.other_maps += bytes;
            }
        }
        Ok(memory)
    }

    pub(super) fn total(&self) -> u64 {
        self.flow_tables + self.other_maps + self.programs + self.anonymous + self.files
    }

    fn add_process(&mut self, process: u32) -> anyhow::Result<()> {
        let path = format!("/proc/{process}/smaps");
        let text = fs::read_to_string(&path).with_context(|| path.clone())?;
        let mut is_map = false;
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let Some(key) = words.next() else { continue };
            let mut kilobytes =
                || -> u64 { words.next().and_then(|n| n.parse().ok()).unwrap_or(0) };
            match key {
                "Pss:" if !is_map => self.files += kilobytes() * 1024,
                "Anonymous:" if !is_map => {
                    // Counted among the Pss before it; nobody shares it.
                    let bytes = kilobytes() * 1024;
                    self.anonymous += bytes;
                    self.files -= bytes.min(self.files);
                }
                _ if !key.ends_with(':') => is_map = line.ends_with("anon_inode:bpf-map"),
                _ => {}
            }
        }
        Ok(())
    }
}

fn is_gone(error: &anyhow::Error) -> bool {
    let cause = error.downcast_ref::<io::Error>();
    cause.is_some_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// `/proc/…/fdinfo/…` of a map or program.
struct Fields(BTreeMap<String, String>);

impl Fields {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let fields = text.lines().filter_map(|line| line.split_once(':'));
        let trimmed = fields.map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()));
        Ok(Self(trimmed.collect()))
    }

    /// By id, what the kernel has set aside for it, if it has one of this kind.
    fn add(&self, kind: &str, sizes: &mut BTreeMap<u64, u64>) {
        let number = |key: &str| self.0.get(key).and_then(|value| value.parse().ok());
        if let (Some(id), Some(bytes)) = (number(kind), number("memlock")) {
            sizes.insert(id, bytes);
        }
    }
}

/// Maps that are pinned, and the tables within them; which of them belong to the connection
/// tables.
fn add_pinned(directory: &Path, maps: &mut BTreeMap<u64, u64>) -> anyhow::Result<BTreeSet<u64>> {
    let mut flow_tables = BTreeSet::new();
    for layout in fs::read_dir(directory)? {
        for pin in fs::read_dir(layout?.path().join("maps"))? {
            let path = pin?.path();
            let info = MapInfo::from_pin(&path)?;
            add_map(info.fd()?.as_fd().as_raw_fd(), maps)?;
            let name = path.file_name().and_then(|name| name.to_str());
            if name.is_some_and(|name| name.starts_with("FLOWS") || name.starts_with("FLOW_")) {
                flow_tables.insert(u64::from(info.id()));
            }
            if name.is_some_and(|name| name.ends_with("SLOT_TABLES")) {
                add_slot_tables(&path, maps)?;
            }
        }
    }
    Ok(flow_tables)
}

fn add_slot_tables(path: &Path, maps: &mut BTreeMap<u64, u64>) -> anyhow::Result<()> {
    let map = Map::ArrayOfMaps(MapData::from_pin(path)?);
    let tables: ArrayOfMaps<MapData, Array<MapData, u64>> = map.try_into()?;
    for service in 0..MAX_SERVICES {
        if let Ok(table) = tables.get(&service, 0) {
            use aya::maps::IterableMap as _;
            add_map(table.map().fd().as_fd().as_raw_fd(), maps)?;
        }
    }
    Ok(())
}

fn add_map(descriptor: i32, maps: &mut BTreeMap<u64, u64>) -> anyhow::Result<()> {
    let path = format!("/proc/self/fdinfo/{descriptor}");
    Fields::read(Path::new(&path))?.add("map_id", maps);
    Ok(())
}

/// Memory of a flow, which is a matter of how records are made.
pub(super) fn measure_records(figures: &mut Figures) {
    let record4 = (size_of::<Bucket4<u64>>() / RECORDS) as f64;
    let record6 = (size_of::<Bucket6<u64>>() / RECORDS) as f64;
    figures.bytes("a flow's record, IPv4", record4, Some(16.0));
    figures.bytes("a flow's record, IPv6", record6, Some(48.0));
}
