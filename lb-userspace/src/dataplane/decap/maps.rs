//! The decapsulator's maps.

use std::{collections::BTreeSet, net::IpAddr};

use aya::maps::{Array, HashMap, MapData, MapError, PerCpuArray};
use lb_common::decap::{Address4, Address6, MAX_ADDRESSES, Outcome, Settings, Verdict};

use super::{DecapError, OutcomeCount};
use crate::dataplane::{
    DataPlaneError,
    kernel::open_pinned,
    pins::{PinnedMap, Pins, map},
    plain::Plain,
};

/// Value of a known address; the program does not read it.
const KNOWN: u32 = 1;

pub(super) const MAPS: &[PinnedMap] = &[
    map("ADDRESSES4", size_of::<Address4>(), 4, MAX_ADDRESSES),
    map("ADDRESSES6", size_of::<Address6>(), 4, MAX_ADDRESSES),
    map("SETTINGS", 4, size_of::<Settings>(), 1),
    map("OUTCOMES", 4, 8, Outcome::COUNT),
];

pub(super) struct Maps {
    addresses4: HashMap<MapData, Address4, u32>,
    addresses6: HashMap<MapData, Address6, u32>,
    settings: Array<MapData, Plain<Settings>>,
    outcomes: PerCpuArray<MapData, u64>,
}

impl Maps {
    /// The pinned ones.
    pub(super) fn open(pins: &Pins) -> Result<Self, DataPlaneError> {
        let failed = |error: MapError| DataPlaneError::new("open the pinned maps", error);
        let open = |name| open_pinned(pins, name);
        Ok(Self {
            addresses4: open("ADDRESSES4")?.try_into().map_err(failed)?,
            addresses6: open("ADDRESSES6")?.try_into().map_err(failed)?,
            settings: open("SETTINGS")?.try_into().map_err(failed)?,
            outcomes: open("OUTCOMES")?.try_into().map_err(failed)?,
        })
    }

    pub(super) fn addresses(&self) -> Result<BTreeSet<IpAddr>, DataPlaneError> {
        let failed = |error: MapError| DataPlaneError::new("read the addresses", error);
        let mut addresses = BTreeSet::new();
        for key in self.addresses4.keys() {
            addresses.insert(IpAddr::from(key.map_err(failed)?.to_ne_bytes()));
        }
        for key in self.addresses6.keys() {
            addresses.insert(address6(key.map_err(failed)?));
        }
        Ok(addresses)
    }

    /// Those that come are added before those that go are removed.
    pub(super) fn set_addresses(&mut self, wanted: &BTreeSet<IpAddr>) -> Result<(), DecapError> {
        let of_ipv4 = wanted.iter().filter(|address| address.is_ipv4()).count();
        for (found, family) in [(of_ipv4, "IPv4"), (wanted.len() - of_ipv4, "IPv6")] {
            if found > MAX_ADDRESSES as usize {
                return Err(DecapError::TooManyAddresses { found, family });
            }
        }
        for address in wanted {
            match address {
                IpAddr::V4(address) => self.addresses4.insert(key4(address.octets()), KNOWN, 0),
                IpAddr::V6(address) => self.addresses6.insert(key6(address.octets()), KNOWN, 0),
            }
            .map_err(|error| DataPlaneError::new(format!("remember address {address}"), error))?;
        }
        for address in self.addresses()?.difference(wanted) {
            match address {
                IpAddr::V4(address) => self.addresses4.remove(&key4(address.octets())),
                IpAddr::V6(address) => self.addresses6.remove(&key6(address.octets())),
            }
            .map_err(|error| DataPlaneError::new(format!("forget address {address}"), error))?;
        }
        Ok(())
    }

    /// All zero where none have been written.
    pub(super) fn settings(&self) -> Result<Settings, DataPlaneError> {
        self.settings
            .get(&0, 0)
            .map(|Plain(settings)| settings)
            .map_err(|error| DataPlaneError::new("read the settings", error))
    }

    pub(super) fn set_settings(&mut self, settings: Settings) -> Result<(), DataPlaneError> {
        self.settings
            .set(0, Plain(settings), 0)
            .map_err(|error| DataPlaneError::new("write the settings", error))
    }

    pub(super) fn counters(&self) -> Result<Vec<OutcomeCount>, DataPlaneError> {
        let count = |outcome: &Outcome| {
            let by_cpu = self
                .outcomes
                .get(&(*outcome as u32), 0)
                .map_err(|error| DataPlaneError::new("read the counters", error))?;
            Ok(OutcomeCount {
                outcome: outcome.name().to_owned(),
                verdict: match outcome.verdict() {
                    Verdict::Stripped => "stripped",
                    Verdict::Passed => "passed",
                    Verdict::Dropped => "dropped",
                }
                .to_owned(),
                packets: by_cpu.iter().sum(),
                description: outcome.description().to_owned(),
            })
        };
        Outcome::ALL.iter().map(count).collect()
    }
}

fn key4(octets: [u8; 4]) -> Address4 {
    u32::from_ne_bytes(octets)
}

fn key6(octets: [u8; 16]) -> Address6 {
    let half = |from: usize| u64::from_ne_bytes(std::array::from_fn(|n| octets[from + n]));
    [half(0), half(8)]
}

fn address6([high, low]: Address6) -> IpAddr {
    let mut octets = [0; 16];
    octets[..8].copy_from_slice(&high.to_ne_bytes());
    octets[8..].copy_from_slice(&low.to_ne_bytes());
    octets.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_the_bytes_of_the_packet() {
        let address: std::net::Ipv6Addr = "2001:db8:1:2:3:4:5:6".parse().unwrap();
        let key = key6(address.octets());
        assert_eq!(address6(key), IpAddr::from(address));
        assert_eq!(key[0].to_ne_bytes()[..4], [0x20, 0x01, 0x0d, 0xb8]);
        assert_eq!(key4([192, 0, 2, 1]).to_ne_bytes(), [192, 0, 2, 1]);
    }
}
