//! The program's connection tables, read and written through their pins.

use std::{collections::BTreeSet, net::SocketAddr, path::Path};

use anyhow::{Context as _, Result};
use aya::maps::{Array, Map, MapData};
use lb_userspace::model::{BackendIndex, ServiceId};

use super::{
    clock::TICKS,
    ports::{Port, Ports},
};
use crate::model::{FlowKey, Keys, State};

const RECORDS: usize = 4;
/// Buckets that a connection may be in.
const CANDIDATES: u32 = 5;
/// Words of a bucket of IPv4 records: (key, value) four times.
pub(super) type Bucket4 = [u64; 8];
/// Of IPv6 records: (tail of the key, value) four times, then the addresses, two words each.
pub(super) type Bucket6 = [u64; 16];

/// Tables of both families, and those of ports.
pub(super) struct Tables {
    ports: Ports,
    /// Services whose records are in those.
    full_nat: BTreeSet<ServiceId>,
    /// Flows whose records may be in them.
    translated: BTreeSet<FlowKey>,
    v4: Array<MapData, Bucket4>,
    v6: Array<MapData, Bucket6>,
    /// Which of their buckets have overflowed.
    overflows: [Array<MapData, u64>; 2],
    keys: Keys,
}

/// A record's value: backend in bits 0 to 13, state in 26 to 29, tick of expiry in 34 to 55.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Value(u64);

impl Value {
    pub(super) fn backend(self) -> BackendIndex {
        BackendIndex(self.0 as u16 & 0x3fff)
    }

    /// `None`: free, or being written.
    pub(super) fn state(self) -> Option<State> {
        State::numbered((self.0 >> 26) as u8 & 0xf)
    }

    pub(super) fn expires(self) -> u32 {
        (self.0 >> 34) as u32
    }

    pub(super) fn with_state(self, state: State) -> Self {
        Self(self.0 & !(0xf << 26) | (state as u64) << 26)
    }

    pub(super) fn expiring(self, tick: u32) -> Self {
        Self(self.0 & 0x3_ffff_ffff | u64::from(tick & TICKS) << 34)
    }
}

/// Where a record stands.
#[derive(Clone, Copy)]
enum Place {
    Flow {
        bucket: u32,
        slot: usize,
    },
    /// Of a `full-nat` service.
    Port(Port),
}

impl Tables {
    pub(super) fn open(maps: &Path, keys: Keys) -> Result<Self> {
        Ok(Self {
            ports: Ports::open(maps)?,
            full_nat: BTreeSet::new(),
            translated: BTreeSet::new(),
            v4: array(&maps.join("FLOWS4"))?,
            v6: array(&maps.join("FLOWS6"))?,
            overflows: [
                array(&maps.join("FLOW_OVERFLOWS4"))?,
                array(&maps.join("FLOW_OVERFLOWS6"))?,
            ],
            keys,
        })
    }

    /// The living record of a flow.
    pub(super) fn find(&mut self, key: FlowKey) -> Result<Option<Value>> {
        Ok(self.place(key)?.map(|(_, value)| value))
    }

    /// Changes the value of a flow's record; whether there is one.
    pub(super) fn change(
        &mut self,
        key: FlowKey,
        change: impl FnOnce(Value) -> Value,
    ) -> Result<bool> {
        let Some((place, value)) = self.place(key)? else {
            return Ok(false);
        };
        let word = change(value).0;
        match place {
            Place::Port(port) => self.ports.write(key, port, word)?,
            Place::Flow { bucket, slot } if key.client.is_ipv4() => {
                let mut words = self.v4.get(&bucket, 0)?;
                words[2 * slot + 1] = word;
                self.v4.set(bucket, words, 0)?;
            }
            Place::Flow { bucket, slot } => {
                let mut words = self.v6.get(&bucket, 0)?;
                words[2 * slot + 1] = word;
                self.v6.set(bucket, words, 0)?;
            }
        }
        Ok(true)
    }

    /// What a `full-nat` service's connection is sent from.
    pub(super) fn source(&mut self, key: FlowKey) -> Result<Option<SocketAddr>> {
        match self.place(key)? {
            Some((Place::Port(port), _)) => Ok(Some(self.ports.source(key, port)?)),
            _ => Ok(None),
        }
    }

    /// The records of these services are those of their ports.
    pub(super) fn set_full_nat(&mut self, services: impl Iterator<Item = ServiceId>) {
        self.full_nat = services.collect();
    }

    fn place(&mut self, key: FlowKey) -> Result<Option<(Place, Value)>> {
        let hash = self.keys.flow(key.service, key.client);
        if self.full_nat.contains(&key.service) {
            self.translated.insert(key);
            let found = self.ports.place(key, hash)?;
            return Ok(found.map(|(port, value)| (Place::Port(port), value)));
        }
        let buckets = if key.client.is_ipv4() {
            self.v4.len()
        } else {
            self.v6.len()
        };
        // The lower half of the hash is a fraction of the table, and the upper half, made odd, what
        // is added to it for each of the other buckets.
        for n in 0..CANDIDATES {
            let step = (hash >> 32) as u32 | 1;
            let random = (hash as u32).wrapping_add(step.wrapping_mul(n));
            let bucket = ((u64::from(random) * u64::from(buckets)) >> 32) as u32;
            for (slot, (found, value)) in self.bucket(key.client, bucket)?.into_iter().enumerate() {
                if found == key && value.state().is_some() {
                    return Ok(Some((Place::Flow { bucket, slot }, value)));
                }
            }
        }
        Ok(None)
    }

    fn bucket(&self, family: SocketAddr, bucket: u32) -> Result<[(FlowKey, Value); RECORDS]> {
        Ok(if family.is_ipv4() {
            records4(self.v4.get(&bucket, 0)?)
        } else {
            records6(self.v6.get(&bucket, 0)?)
        })
    }

    /// Every living record.
    pub(super) fn all(&mut self) -> Result<Vec<(FlowKey, Value)>> {
        let mut all = Vec::new();
        for words in self.v4.iter() {
            all.extend(records4(words?));
        }
        for words in self.v6.iter() {
            all.extend(records6(words?));
        }
        for key in self.translated.clone() {
            all.extend(self.find(key)?.map(|value| (key, value)));
        }
        all.retain(|(_, value)| value.state().is_some());
        Ok(all)
    }

    /// Forgets every connection.
    pub(super) fn clear(&mut self) -> Result<()> {
        for key in std::mem::take(&mut self.translated) {
            self.change(key, |_| Value(0))?;
        }
        self.translated.clear();
        for bucket in 0..self.v4.len() {
            if self.v4.get(&bucket, 0)? != [0; 8] {
                self.v4.set(bucket, [0; 8], 0)?;
            }
        }
        for bucket in 0..self.v6.len() {
            if self.v6.get(&bucket, 0)? != [0; 16] {
                self.v6.set(bucket, [0; 16], 0)?;
            }
        }
        for words in &mut self.overflows {
            for word in 0..words.len() {
                words.set(word, 0, 0)?;
            }
        }
        Ok(())
    }
}

/// The key of IPv4: address, port and service id, the first two as they stand in the packet.
pub(super) fn records4(words: Bucket4) -> [(FlowKey, Value); RECORDS] {
    std::array::from_fn(|slot| {
        let (key, value) = (words[2 * slot], words[2 * slot + 1]);
        let [a, b, c, d, high, low, ..] = key.to_ne_bytes();
        let client = ([a, b, c, d], u16::from_be_bytes([high, low])).into();
        let service = ServiceId((key >> 48) as u16);
        (FlowKey::new(service, client), Value(value))
    })
}

/// The tail of an IPv6 key: port and service id.
pub(super) fn records6(words: Bucket6) -> [(FlowKey, Value); RECORDS] {
    std::array::from_fn(|slot| {
        let (tail, value) = (words[2 * slot], words[2 * slot + 1]);
        let [first, second] = [8, 9].map(|word| words[word + 2 * slot].to_ne_bytes());
        let address: [u8; 16] =
            std::array::from_fn(|n| if n < 8 { first[n] } else { second[n - 8] });
        let [high, low, ..] = tail.to_ne_bytes();
        let client = (address, u16::from_be_bytes([high, low])).into();
        let service = ServiceId((tail >> 16) as u16);
        (FlowKey::new(service, client), Value(value))
    })
}

pub(super) fn array<T: aya::Pod>(path: &Path) -> Result<Array<MapData, T>> {
    let data = MapData::from_pin(path).with_context(|| format!("open {}", path.display()))?;
    let map = Map::from_map_data(data)?;
    map.try_into().context("it is an array")
}
