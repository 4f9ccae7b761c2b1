//! The program's index of last hops, emptied between scenes.

use anyhow::{Context as _, Result};
use aya::maps::{Array, HashMap, Map, MapData};

use crate::packets::Testbed;

/// Where replies go: the program learns places and never forgets one.
pub(super) struct LastHops {
    hops: Array<MapData, [u8; 32]>,
    index: HashMap<MapData, [u8; 32], u32>,
    count: Array<MapData, u64>,
}

impl LastHops {
    pub(super) fn open(testbed: &Testbed) -> Result<Self> {
        let open = |name: &str| -> Result<Map> {
            let path = testbed.maps().join(name);
            let data = MapData::from_pin(&path).with_context(|| path.display().to_string())?;
            Ok(Map::from_map_data(data)?)
        };
        Ok(Self {
            hops: open("LAST_HOPS")?.try_into()?,
            index: open("LAST_HOP_INDEX")?.try_into()?,
            count: open("LAST_HOP_COUNT")?.try_into()?,
        })
    }

    pub(super) fn clear(&mut self) -> Result<()> {
        let keys: Vec<_> = self.index.keys().collect::<Result<_, _>>()?;
        for key in keys {
            self.index.remove(&key)?;
        }
        // Indices begin with 1.
        for index in 1..=self.count.get(&0, 0)? {
            self.hops.set(index as u32, [0; 32], 0)?;
        }
        self.count.set(0, 0, 0)?;
        Ok(())
    }
}
