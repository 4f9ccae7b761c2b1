//! The programs as they stand in the object, with the kernel's maps in the places of theirs.

use std::{collections::BTreeMap, io, sync::Arc};

use anyhow::{Context as _, ensure};
use aya::programs::ProgramInfo;
use aya_obj::{Object, maps::Map};
use lb_userspace::dataplane::{Clock, OBJECT};

use super::{instruction::Instruction, maps::Maps};

/// A program that is loaded.
struct Loaded {
    id: u32,
    instructions: Vec<Instruction>,
}

pub(super) struct Programs {
    loaded: Vec<Loaded>,
    clock: Arc<Clock>,
}

impl Programs {
    /// The instructions of these programs, and their maps.
    ///
    /// # Errors
    ///
    /// They are not of this object.
    pub(super) fn of(
        infos: Vec<(String, ProgramInfo)>,
        clock: Arc<Clock>,
    ) -> anyhow::Result<(Self, Maps)> {
        ensure!(
            !OBJECT.is_empty(),
            "built without the XDP programs (AYA_BUILD_SKIP): build again without"
        );
        let mut maps = Maps::default();
        for (_, info) in &infos {
            for id in info.map_ids()?.unwrap_or_default() {
                maps.open(id)?;
            }
        }
        let mut instructions = instructions(&maps)?;
        let mut loaded = Vec::new();
        for (name, info) in infos {
            loaded.push(Loaded {
                id: info.id(),
                instructions: instructions
                    .remove(&name)
                    .with_context(|| format!("the object has no program {name}"))?,
            });
        }
        Ok((Self { loaded, clock }, maps))
    }

    /// The instructions of the program with this id of the kernel's.
    ///
    /// # Errors
    ///
    /// There is none.
    pub(super) fn by_id(&self, id: u32) -> anyhow::Result<&[Instruction]> {
        let program = self.loaded.iter().find(|program| program.id == id);
        let program = program.with_context(|| format!("program {id} is not the balancer's"))?;
        Ok(&program.instructions)
    }

    /// The kernel's jiffies.
    ///
    /// # Errors
    ///
    /// As [`Clock::jiffies`].
    pub(super) fn jiffies(&self) -> io::Result<u64> {
        self.clock.jiffies()
    }
}

/// Instructions of all programs of the object by name. An instruction that loads a map has the map's
/// number in `maps`; maps that no loaded program has get one that is nobody's.
fn instructions(maps: &Maps) -> anyhow::Result<BTreeMap<String, Vec<Instruction>>> {
    let mut object = Object::parse(OBJECT).context("read the XDP object")?;
    let own: Vec<(String, i32, Map)> = object
        .maps
        .iter()
        .map(|(name, map)| {
            let number = maps.find(name, map.key_size());
            let number = number.ok().and_then(|number| i32::try_from(number).ok());
            (name.clone(), number.unwrap_or(i32::MAX), map.clone())
        })
        .collect();
    let sections = object
        .functions
        .keys()
        .map(|&(section, _)| section)
        .collect();
    let numbered = own
        .iter()
        .map(|(name, number, map)| (name.as_str(), *number, map));
    object
        .relocate_maps(numbered, &sections)
        .context("put the maps into the programs")?;
    object
        .relocate_calls(&sections)
        .context("link the programs")?;
    let mut programs = BTreeMap::new();
    for (name, program) in &object.programs {
        let function = object.functions.get(&program.function_key());
        let function = function.with_context(|| format!("{name} has no instructions"))?;
        let instructions = function.instructions.iter().map(Instruction::from);
        programs.insert(name.clone(), instructions.collect());
    }
    Ok(programs)
}
