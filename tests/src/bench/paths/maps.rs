//! The maps of the loaded programs, as they are in the kernel.

use std::{collections::BTreeMap, os::fd::AsFd as _};

use anyhow::{Context as _, bail, ensure};
use aya::maps::{MapFd, MapInfo, MapType};

use super::kernel;

/// Inner arrays of several sizes: the verifier leaves their lookups calls.
const BPF_F_INNER_MAP: u32 = 1 << 12;

pub(super) struct KernelMap {
    pub(super) name: String,
    pub(super) kind: MapType,
    pub(super) key_size: usize,
    pub(super) value_size: usize,
    flags: u32,
    descriptor: MapFd,
}

impl KernelMap {
    fn open(id: u32) -> anyhow::Result<Self> {
        let info = MapInfo::from_id(id).with_context(|| format!("open map {id}"))?;
        Ok(Self {
            name: info.name_as_str().unwrap_or_default().to_owned(),
            kind: info.map_type()?,
            key_size: info.key_size() as usize,
            value_size: info.value_size() as usize,
            flags: info.map_flags(),
            descriptor: info.fd()?,
        })
    }

    /// Whether the verifier makes instructions of a lookup, instead of calling the helper.
    pub(super) fn is_looked_up_inline(&self) -> bool {
        match self.kind {
            MapType::Array => self.flags & BPF_F_INNER_MAP == 0,
            MapType::PerCpuArray | MapType::ArrayOfMaps => true,
            _ => false,
        }
    }

    pub(super) fn is_per_cpu(&self) -> bool {
        matches!(self.kind, MapType::PerCpuArray | MapType::PerCpuHash)
    }

    /// This CPU's value.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(super) fn value(&self, key: &[u8], cpu: usize) -> anyhow::Result<Option<Vec<u8>>> {
        // In multiples of eight bytes, one after the other.
        let stride = self.value_size.next_multiple_of(8);
        let (start, bytes) = if self.is_per_cpu() {
            (
                cpu * stride,
                aya::util::nr_cpus().map_err(|(_, e)| e)? * stride,
            )
        } else {
            (0, self.value_size)
        };
        let mut values = vec![0; bytes];
        let descriptor = self.descriptor.as_fd();
        let found = kernel::look_up(descriptor, key, self.key_size, &mut values, bytes)
            .with_context(|| format!("look up in {}", self.name))?;
        let value = values.get(start..start + self.value_size);
        Ok(value.filter(|_| found).map(<[u8]>::to_vec))
    }
}

/// Maps by their number, which is this process's own and goes on when inner maps are met.
#[derive(Default)]
pub(super) struct Maps {
    maps: Vec<KernelMap>,
    by_id: BTreeMap<u32, usize>,
}

impl Maps {
    /// The number of the map with this id of the kernel's.
    ///
    /// # Errors
    ///
    /// There is none.
    pub(super) fn open(&mut self, id: u32) -> anyhow::Result<usize> {
        if let Some(&number) = self.by_id.get(&id) {
            return Ok(number);
        }
        let number = self.maps.len();
        self.maps.push(KernelMap::open(id)?);
        self.by_id.insert(id, number);
        Ok(number)
    }

    pub(super) fn get(&self, number: usize) -> anyhow::Result<&KernelMap> {
        self.maps.get(number).context("there is no such map")
    }

    /// The number of the map that an object names so. The kernel keeps 15 characters of a name: what
    /// begins alike differs in its keys.
    ///
    /// # Errors
    ///
    /// There is none, or there are several.
    pub(super) fn find(&self, name: &str, key_size: u32) -> anyhow::Result<usize> {
        const KEPT: usize = 15;
        let kept = name.get(..KEPT).unwrap_or(name);
        let is_it = |map: &KernelMap| map.name == kept && map.key_size == key_size as usize;
        let mut found = (0..).zip(&self.maps).filter(|(_, map)| is_it(map));
        match (found.next(), found.next()) {
            (Some((number, _)), None) => Ok(number),
            (None, _) => bail!("no map {name} is loaded"),
            _ => bail!("several maps could be {name}"),
        }
    }
}

/// The CPU that this thread is pinned to.
///
/// # Errors
///
/// None that the kernel allows.
pub(super) fn this_cpu() -> anyhow::Result<usize> {
    // SAFETY: no arguments.
    let cpu = unsafe { libc::sched_getcpu() };
    ensure!(cpu >= 0, "the kernel does not say which CPU this is");
    Ok(cpu as usize)
}
