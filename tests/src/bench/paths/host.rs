//! What an interpreted program finds around it: a packet, maps, helpers.
//!
//! Values of maps are copies of the kernel's, made when a program first asks for them, and the same
//! for as long as the packet is under way: what the program writes stays here.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail, ensure};
use aya::maps::MapType;
use lb_userspace::dataplane::XdpOutcome;

use super::{
    interpreter::{Called, World, execute},
    maps::{Maps, this_cpu},
    memory::{Access, Memory},
    object::Programs,
};
use crate::clock::nanoseconds;

/// What a packet took on its way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) instructions: u64,
    /// Lookups that the verifier makes instructions of, by map.
    pub(super) inline_lookups: BTreeMap<String, u64>,
    /// Calls of helpers, by name without `bpf_`.
    pub(super) calls: BTreeMap<String, u64>,
    /// Calls of functions that the compiler has left as such.
    pub(super) functions: u64,
    pub(super) tail_calls: u64,
}

/// Bytes in front of a packet that a program may take, as in the kernel's own runs.
const HEADROOM: u32 = 256;
/// Of them the kernel keeps some to itself (`struct xdp_frame`).
const KEPT_HEADROOM: u32 = 40;
const LOOPBACK: u64 = 1;
/// `struct xdp_md`
const CONTEXT: usize = 24;
/// Of a map, whose number is below it.
const MAP: u64 = 0x8000_0000 << 32;
const XDP_REDIRECT: u64 = 4;

struct Host<'p> {
    programs: &'p Programs,
    maps: &'p mut Maps,
    cpu: usize,
    jiffies: u64,
    /// Address of the context.
    context: u64,
    /// Address of the packet's region.
    packet: u64,
    /// Where in it the packet starts and ends.
    start: u32,
    end: u32,
    /// Addresses of values, by map number and key; `None` where there is no value.
    values: BTreeMap<(usize, Vec<u8>), Option<u64>>,
    counts: Counts,
}

/// What would become of a packet, and of the maps.
pub(super) struct Foreseen {
    pub(super) counts: Counts,
    pub(super) outcome: XdpOutcome,
    /// Values that the program has asked for as they would be afterwards, by map number and key.
    values: BTreeMap<(usize, Vec<u8>), Option<Vec<u8>>>,
}

/// Interprets the program of this id on a packet. Nothing in the kernel changes.
///
/// # Errors
///
/// The program does what only other paths do.
pub(super) fn foresee(
    programs: &Programs,
    maps: &mut Maps,
    program: u32,
    frame: &[u8],
) -> anyhow::Result<Foreseen> {
    let mut memory = Memory::default();
    let mut packet = vec![0; HEADROOM as usize];
    packet.extend_from_slice(frame);
    let context = memory.add(vec![0; CONTEXT], Access::ReadOnly);
    let mut host = Host {
        programs,
        maps,
        cpu: this_cpu()?,
        jiffies: programs.jiffies()?,
        context,
        start: HEADROOM,
        end: packet.len() as u32,
        packet: memory.add(packet, Access::ReadWrite),
        values: BTreeMap::new(),
        counts: Counts::default(),
    };
    let first = programs.by_id(program)?.to_vec();
    let execution = execute(first, context, &mut host, &mut memory)?;
    let length = (host.end - host.start) as usize;
    let outcome = XdpOutcome {
        verdict: execution.result as u32,
        frame: memory.bytes(host.data(), length)?.to_vec(),
    };
    let mut values = BTreeMap::new();
    for ((map, key), address) in host.values {
        let size = host.maps.get(map)?.value_size;
        let value = address.map(|address| memory.bytes(address, size).map(<[u8]>::to_vec));
        values.insert((map, key), value.transpose()?);
    }
    Ok(Foreseen {
        counts: Counts {
            instructions: execution.instructions,
            functions: execution.functions,
            ..host.counts
        },
        outcome,
        values,
    })
}

impl Foreseen {
    /// Whether the kernel's maps have become what was foreseen.
    ///
    /// # Errors
    ///
    /// They have not; or they cannot be read.
    pub(super) fn check_values(&self, maps: &Maps) -> anyhow::Result<()> {
        let cpu = this_cpu()?;
        for ((number, key), foreseen) in &self.values {
            let map = maps.get(*number)?;
            let actual = map.value(key, cpu)?;
            ensure!(
                actual == *foreseen,
                "{} has at {key:02x?}\n{actual:02x?} instead of\n{foreseen:02x?}",
                map.name
            );
        }
        Ok(())
    }
}

impl World for Host<'_> {
    fn call(
        &mut self,
        helper: i32,
        arguments: [u64; 5],
        memory: &mut Memory,
    ) -> anyhow::Result<Called> {
        let [first, second, third, ..] = arguments;
        // Numbers as in `include/uapi/linux/bpf.h`.
        let (name, value) = match helper {
            1 => return self.look_up(first, second, memory).map(Called::Value),
            12 => return self.tail_call(second, third),
            // An instruction of the verifier's own.
            118 => return Ok(Called::Value(self.jiffies)),
            2 => {
                let value = self.update(first, second, third, memory)?;
                ("map_update_elem", value)
            }
            44 => ("xdp_adjust_head", self.adjust_head(second as i32)),
            51 => ("redirect_map", self.redirect(first, second, third)?),
            160 => ("ktime_get_coarse_ns", nanoseconds()),
            188 => ("xdp_get_buff_len", u64::from(self.end - self.start)),
            _ => bail!("helper {helper} is not known here"),
        };
        self.count(name.to_owned());
        Ok(Called::Value(value))
    }

    fn map(&self, map: i32) -> anyhow::Result<u64> {
        let number = usize::try_from(map)?;
        self.maps.get(number)?;
        Ok(address_of_map(number))
    }

    fn globals(&mut self, map: i32, memory: &mut Memory) -> anyhow::Result<u64> {
        let value = self.value(usize::try_from(map)?, vec![0; 4], memory)?;
        value.context("there are no global variables")
    }

    fn context(&self, address: u64, size: usize) -> Option<anyhow::Result<u64>> {
        let offset = address.checked_sub(self.context)?;
        if offset >= CONTEXT as u64 {
            return None;
        }
        Some(match (offset, size) {
            (0, 4) | (8, 4) => Ok(self.data()),
            (4, 4) => Ok(self.packet + u64::from(self.end)),
            (12, 4) => Ok(LOOPBACK),
            (16, 4) => Ok(0),
            _ => Err(anyhow::anyhow!("no field of {size} bytes at {offset}")),
        })
    }
}

fn address_of_map(number: usize) -> u64 {
    MAP | (number as u64) << 32
}

fn number_of_map(address: u64) -> anyhow::Result<usize> {
    ensure!(
        address & MAP == MAP && address as u32 == 0,
        "{address:#x} is no map"
    );
    Ok(((address ^ MAP) >> 32) as usize)
}

impl Host<'_> {
    fn data(&self) -> u64 {
        self.packet + u64::from(self.start)
    }

    fn count(&mut self, call: String) {
        *self.counts.calls.entry(call).or_default() += 1;
    }

    /// The address of this key's value.
    fn value(
        &mut self,
        number: usize,
        key: Vec<u8>,
        memory: &mut Memory,
    ) -> anyhow::Result<Option<u64>> {
        let place = (number, key);
        if let Some(&address) = self.values.get(&place) {
            return Ok(address);
        }
        let value = self.maps.get(number)?.value(&place.1, self.cpu)?;
        let address = value.map(|value| memory.add(value, Access::ReadWrite));
        self.values.insert(place, address);
        Ok(address)
    }

    fn look_up(&mut self, map: u64, key: u64, memory: &mut Memory) -> anyhow::Result<u64> {
        let number = number_of_map(map)?;
        let map = self.maps.get(number)?;
        let is_outer = matches!(map.kind, MapType::ArrayOfMaps | MapType::HashOfMaps);
        let key = memory.bytes(key, map.key_size)?.to_vec();
        let name = map.name.clone();
        if map.is_looked_up_inline() {
            *self.counts.inline_lookups.entry(name).or_default() += 1;
        } else {
            self.count("map_lookup_elem".to_owned());
        }
        let Some(address) = self.value(number, key, memory)? else {
            return Ok(0);
        };
        if !is_outer {
            return Ok(address);
        }
        // The kernel tells the inner map's id.
        let inner = self.maps.open(memory.load(address, 4)? as u32)?;
        Ok(address_of_map(inner))
    }

    fn update(
        &mut self,
        map: u64,
        key: u64,
        value: u64,
        memory: &mut Memory,
    ) -> anyhow::Result<u64> {
        let number = number_of_map(map)?;
        let map = self.maps.get(number)?;
        let key = memory.bytes(key, map.key_size)?.to_vec();
        let value = memory.bytes(value, map.value_size)?.to_vec();
        match self.value(number, key.clone(), memory)? {
            Some(address) => memory.overwrite(address, &value)?,
            None => {
                let address = memory.add(value, Access::ReadWrite);
                self.values.insert((number, key), Some(address));
            }
        }
        Ok(0)
    }

    /// Only a program that is there is gone on with.
    fn tail_call(&mut self, map: u64, index: u64) -> anyhow::Result<Called> {
        let index = index as u32;
        let programs = self.maps.get(number_of_map(map)?)?;
        let id = programs.value(&index.to_ne_bytes(), self.cpu)?;
        let id = id.and_then(|id| id.first_chunk().copied());
        let id = id.with_context(|| format!("there is no program {index}"))?;
        self.counts.tail_calls += 1;
        let program = self.programs.by_id(u32::from_ne_bytes(id))?;
        Ok(Called::Program(program.to_vec()))
    }

    fn adjust_head(&mut self, by: i32) -> u64 {
        let start = self.start.checked_add_signed(by);
        let allowed = KEPT_HEADROOM..=self.end.saturating_sub(14);
        match start.filter(|start| allowed.contains(start)) {
            Some(start) => {
                self.start = start;
                0
            }
            None => -i64::from(libc::EINVAL) as u64,
        }
    }

    fn redirect(&self, map: u64, key: u64, flags: u64) -> anyhow::Result<u64> {
        let ports = self.maps.get(number_of_map(map)?)?;
        let port = ports.value(&(key as u32).to_ne_bytes(), self.cpu)?;
        // Without a port, the verdict is in the flags' lowest bits.
        Ok(port.map_or(flags & 3, |_| XDP_REDIRECT))
    }
}
