//! The program's tables of ports that `full-nat` sends from: a record's place is its port.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::Path,
};

use anyhow::{Context as _, Result};
use aya::maps::{Array, ArrayOfMaps, Map, MapData};

use super::table::{Bucket4, Bucket6, Value, array, records4, records6};
use crate::model::FlowKey;

/// Buckets that a connection may be in.
const CANDIDATES: u64 = 4;
/// Ports below 1 024 are not used: 256 buckets of four.
const FIRST_BUCKET: u64 = 256;
const BUCKETS: u64 = 16_384;
/// Slots of a pool.
const SLOTS: usize = 16;

/// Indices of addresses: the present ones of a pool's slots, then the former ones.
type Pool = [u16; 2 * SLOTS];

pub(super) struct Ports {
    pools: Array<MapData, Pool>,
    addresses: Array<MapData, [u8; 16]>,
    tables4: ArrayOfMaps<MapData, Array<MapData, Bucket4>>,
    tables6: ArrayOfMaps<MapData, Array<MapData, Bucket6>>,
    /// Those that were opened, by index of the address.
    opened4: BTreeMap<u16, Array<MapData, Bucket4>>,
    opened6: BTreeMap<u16, Array<MapData, Bucket6>>,
}

/// Where a record stands.
#[derive(Clone, Copy)]
pub(super) struct Port {
    index: u16,
    bucket: u32,
    slot: usize,
}

impl Ports {
    pub(super) fn open(maps: &Path) -> Result<Self> {
        let open = |name: &str| -> Result<Map> {
            let path = maps.join(name);
            let data = MapData::from_pin(&path).with_context(|| path.display().to_string())?;
            Ok(Map::from_map_data(data)?)
        };
        Ok(Self {
            pools: array(&maps.join("SNAT_POOLS"))?,
            addresses: array(&maps.join("SNAT_ADDRESSES"))?,
            tables4: open("SNAT_PORTS4")?.try_into()?,
            tables6: open("SNAT_PORTS6")?.try_into()?,
            opened4: BTreeMap::new(),
            opened6: BTreeMap::new(),
        })
    }

    /// Where the record of a flow with this hash is: present addresses first.
    pub(super) fn place(&mut self, key: FlowKey, hash: u64) -> Result<Option<(Port, Value)>> {
        let pool = self.pools.get(&u32::from(key.service.0), 0)?;
        for owners in [&pool[..SLOTS], &pool[SLOTS..]] {
            for (slot, bucket) in (0..CANDIDATES).map(|n| candidate(hash, n)) {
                let index = owners[slot];
                if index == 0 {
                    continue;
                }
                let records = self.bucket(key.client, index, bucket)?;
                for (slot, (found, value)) in records.into_iter().enumerate() {
                    if found == key && value.state().is_some() {
                        let port = Port {
                            index,
                            bucket,
                            slot,
                        };
                        return Ok(Some((port, value)));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Address and port that a record stands for.
    pub(super) fn source(&self, key: FlowKey, port: Port) -> Result<SocketAddr> {
        let bytes = self.addresses.get(&u32::from(port.index), 0)?;
        let address: IpAddr = if key.client.is_ipv4() {
            [bytes[0], bytes[1], bytes[2], bytes[3]].into()
        } else {
            bytes.into()
        };
        Ok((address, (port.bucket * 4) as u16 + port.slot as u16).into())
    }

    pub(super) fn write(&mut self, key: FlowKey, port: Port, word: u64) -> Result<()> {
        let Port {
            index,
            bucket,
            slot,
        } = port;
        if key.client.is_ipv4() {
            let table = self.table4(index)?;
            let mut words = table.get(&bucket, 0)?;
            words[2 * slot + 1] = word;
            table.set(bucket, words, 0)?;
        } else {
            let table = self.table6(index)?;
            let mut words = table.get(&bucket, 0)?;
            words[2 * slot + 1] = word;
            table.set(bucket, words, 0)?;
        }
        Ok(())
    }

    fn bucket(
        &mut self,
        family: SocketAddr,
        index: u16,
        bucket: u32,
    ) -> Result<[(FlowKey, Value); 4]> {
        Ok(if family.is_ipv4() {
            records4(self.table4(index)?.get(&bucket, 0)?)
        } else {
            records6(self.table6(index)?.get(&bucket, 0)?)
        })
    }

    fn table4(&mut self, index: u16) -> Result<&mut Array<MapData, Bucket4>> {
        use std::collections::btree_map::Entry;
        Ok(match self.opened4.entry(index) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(self.tables4.get(&u32::from(index), 0)?),
        })
    }

    fn table6(&mut self, index: u16) -> Result<&mut Array<MapData, Bucket6>> {
        use std::collections::btree_map::Entry;
        Ok(match self.opened6.entry(index) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(self.tables6.get(&u32::from(index), 0)?),
        })
    }
}

/// Slot of the pool and bucket of candidate `n`. Where a connection's ports are is the program's
/// choice (docs/packets.md §7); this is only to find them.
fn candidate(hash: u64, n: u64) -> (usize, u32) {
    let mixed = (hash ^ n)
        .wrapping_mul(0xbf58_476d_1ce4_e5b9)
        .rotate_left(32)
        .wrapping_mul(0x94d0_49bb_1331_11eb);
    let fraction = mixed >> 24 & 0xffff_ffff;
    let bucket = FIRST_BUCKET + ((fraction * (BUCKETS - FIRST_BUCKET)) >> 32);
    ((mixed >> 60) as usize, bucket as u32)
}
