//! What the program does only so often in a tick: set back between scenes, so that no limit is ever
//! met and time does not matter.

use std::path::Path;

use anyhow::{Context as _, Result};
use aya::maps::{Map, MapData, PerCpuArray, PerCpuValues};
use lb_common::rate::TickMeter;

/// Counts of the ICMP errors that each CPU has sent in a tick, with the tick.
pub(super) struct Meters {
    meters: PerCpuArray<MapData, u64>,
    cpus: usize,
}

impl Meters {
    pub(super) fn open(maps: &Path) -> Result<Self> {
        let path = maps.join("TICK_METERS");
        let data = MapData::from_pin(&path).with_context(|| path.display().to_string())?;
        let cpus = aya::util::nr_cpus()
            .map_err(|(what, error)| anyhow::Error::new(error).context(format!("read {what}")))?;
        Ok(Self {
            meters: Map::from_map_data(data)?.try_into()?,
            cpus,
        })
    }

    pub(super) fn clear(&mut self) -> Result<()> {
        const { assert!(size_of::<TickMeter>() == size_of::<u64>()) };
        let zero = PerCpuValues::try_from(vec![0; self.cpus])?;
        self.meters.set(TickMeter::ICMP_ERRORS, zero, 0)?;
        Ok(())
    }
}
