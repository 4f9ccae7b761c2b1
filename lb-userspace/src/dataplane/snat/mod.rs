//! The addresses that `full-nat` sends from: an index for each, a table of its ports, and which of
//! them a service's pool has.
//!
//! All of it is pinned, and found again by a daemon that starts: an address keeps its index, and a
//! pool its slots, for as long as anything is sent from it. What no pool has any more stays while
//! there are connections that are sent from it.

mod pool;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsFd as _,
};

use aya::{
    Pod,
    maps::{Array, ArrayOfMaps, HashMap, Map, MapData, MapError},
};
use lb_common::{
    records::{MAX_SERVICES, MAX_SNAT_ADDRESSES},
    snat::{BUCKETS, SnatPool},
};

use super::{DataPlaneError, convert, kernel::map_data, plain::Plain, ports::PortTables, sys};
use crate::model::ServiceId;

/// `BPF_F_MMAPABLE`, as the program's template has it.
const PORT_TABLE_FLAGS: u32 = 1 << 10;

/// The engine's end of the SNAT maps.
pub(super) struct SnatWriter {
    pools: Array<MapData, Plain<SnatPool>>,
    addresses: Array<MapData, [u8; 16]>,
    by_address4: HashMap<MapData, [u8; 4], u32>,
    by_address6: HashMap<MapData, [u8; 16], u32>,
    /// A bucket is eight words.
    ports4: PortMaps<[u64; 8]>,
    /// A bucket is sixteen words.
    ports6: PortMaps<[u64; 16]>,
    /// What stands in the maps: pools with any address, and indices.
    written: BTreeMap<ServiceId, SnatPool>,
    indices: BTreeMap<IpAddr, u16>,
    tables: PortTables,
}

impl SnatWriter {
    /// Finds what an earlier life has left; its tables are added to `tables`.
    pub(super) fn new(
        open: &mut impl FnMut(&'static str) -> Result<Map, DataPlaneError>,
        tables: PortTables,
    ) -> Result<Self, DataPlaneError> {
        let opened = |name: &'static str| {
            move |error: MapError| DataPlaneError::new(format!("open map {name}"), error)
        };
        let mut writer = Self {
            pools: open("SNAT_POOLS")?
                .try_into()
                .map_err(opened("SNAT_POOLS"))?,
            addresses: open("SNAT_ADDRESSES")?
                .try_into()
                .map_err(opened("SNAT_ADDRESSES"))?,
            by_address4: open("SNAT_BY_ADDRESS4")?
                .try_into()
                .map_err(opened("SNAT_BY_ADDRESS4"))?,
            by_address6: open("SNAT_BY_ADDRESS6")?
                .try_into()
                .map_err(opened("SNAT_BY_ADDRESS6"))?,
            ports4: PortMaps::new(open, "SNAT_PORTS4")?,
            ports6: PortMaps::new(open, "SNAT_PORTS6")?,
            written: BTreeMap::new(),
            indices: BTreeMap::new(),
            tables,
        };
        writer.adopt()?;
        Ok(writer)
    }

    fn adopt(&mut self) -> Result<(), DataPlaneError> {
        let failed = |error: MapError| DataPlaneError::new("read the SNAT addresses", error);
        let v4 = self.by_address4.iter().map(|entry| {
            let (address, index) = entry.map_err(failed)?;
            Ok((IpAddr::from(Ipv4Addr::from(address)), index as u16))
        });
        let v6 = self.by_address6.iter().map(|entry| {
            let (address, index) = entry.map_err(failed)?;
            Ok((IpAddr::from(Ipv6Addr::from(address)), index as u16))
        });
        self.indices = v4.chain(v6).collect::<Result<_, DataPlaneError>>()?;
        for (address, index) in &self.indices {
            match address {
                IpAddr::V4(v4) => self.tables.add4(*index, *v4, &self.ports4.adopt(*index)?)?,
                IpAddr::V6(v6) => self.tables.add6(*index, *v6, &self.ports6.adopt(*index)?)?,
            }
        }
        for id in 1..MAX_SERVICES {
            let Plain(pool) = self
                .pools
                .get(&id, 0)
                .map_err(|error| DataPlaneError::new("read the SNAT pools", error))?;
            if pool != SnatPool::default() {
                self.written.insert(ServiceId(id as u16), pool);
            }
        }
        Ok(())
    }

    /// Has a service's new connections sent from these addresses; those that it has stay where
    /// they are.
    pub(super) fn write_pool(
        &mut self,
        service: ServiceId,
        addresses: &[IpAddr],
    ) -> Result<(), DataPlaneError> {
        let indices = addresses
            .iter()
            .map(|&address| self.index(address))
            .collect::<Result<Vec<_>, _>>()?;
        let previous = self.written.get(&service).copied().unwrap_or_default();
        let pool = pool::assign(&previous, &indices);
        if pool != previous {
            // Where a connection is sought next must be known before it is sought there.
            self.write(
                service,
                SnatPool {
                    slots: previous.slots,
                    ..pool
                },
            )?;
            self.write(service, pool)?;
        }
        self.release_unused()
    }

    /// Nothing is sent any more for a service that is no more.
    pub(super) fn clear_pool(&mut self, service: ServiceId) -> Result<(), DataPlaneError> {
        if self.written.contains_key(&service) {
            self.write(service, SnatPool::default())?;
            self.release_unused()?;
        }
        Ok(())
    }

    fn write(&mut self, service: ServiceId, pool: SnatPool) -> Result<(), DataPlaneError> {
        self.pools
            .set(u32::from(service.0), Plain(pool), 0)
            .map_err(|error| {
                DataPlaneError::new(
                    format!("write the SNAT pool of service {}", service.0),
                    error,
                )
            })?;
        if pool == SnatPool::default() {
            self.written.remove(&service);
        } else {
            self.written.insert(service, pool);
        }
        Ok(())
    }

    /// The address's index; one that is new is given one, and a table of ports.
    fn index(&mut self, address: IpAddr) -> Result<u16, DataPlaneError> {
        if let Some(&index) = self.indices.get(&address) {
            return Ok(index);
        }
        let failed = |error: MapError| {
            DataPlaneError::new(format!("make {address} an address to send from"), error)
        };
        let index = self.free_index().ok_or_else(|| {
            let most = MAX_SNAT_ADDRESSES - 1;
            DataPlaneError::new(
                format!("make {address} an address to send from"),
                format!("there are {most} already"),
            )
        })?;
        match address {
            IpAddr::V4(v4) => self.tables.add4(index, v4, &self.ports4.create(index)?)?,
            IpAddr::V6(v6) => self.tables.add6(index, v6, &self.ports6.create(index)?)?,
        }
        self.addresses
            .set(u32::from(index), convert::address(address), 0)
            .map_err(failed)?;
        // Last, because what stands here is in use.
        match address {
            IpAddr::V4(v4) => self.by_address4.insert(v4.octets(), u32::from(index), 0),
            IpAddr::V6(v6) => self.by_address6.insert(v6.octets(), u32::from(index), 0),
        }
        .map_err(failed)?;
        self.indices.insert(address, index);
        Ok(index)
    }

    fn free_index(&self) -> Option<u16> {
        let mut used: Vec<u16> = self.indices.values().copied().collect();
        used.sort_unstable();
        (1..MAX_SNAT_ADDRESSES as u16).find(|index| used.binary_search(index).is_err())
    }

    /// Gives up the addresses that no pool has and that no living connection is sent from.
    fn release_unused(&mut self) -> Result<(), DataPlaneError> {
        let in_use = |index| {
            self.written
                .values()
                .any(|pool| pool.slots.contains(&index))
        };
        let unused: Vec<_> = self
            .indices
            .iter()
            .map(|(&address, &index)| (address, index))
            .filter(|&(_, index)| !in_use(index) && self.tables.is_idle(index))
            .collect();
        unused
            .into_iter()
            .try_for_each(|(address, index)| self.release(address, index))
    }

    fn release(&mut self, address: IpAddr, index: u16) -> Result<(), DataPlaneError> {
        match address {
            IpAddr::V4(v4) => self.by_address4.remove(&v4.octets()),
            IpAddr::V6(v6) => self.by_address6.remove(&v6.octets()),
        }
        .map_err(|error| DataPlaneError::new(format!("send no more from {address}"), error))?;
        self.indices.remove(&address);
        for (service, pool) in self.written.clone() {
            let before = pool
                .before
                .map(|owner| if owner == index { 0 } else { owner });
            if before != pool.before {
                self.write(service, SnatPool { before, ..pool })?;
            }
        }
        // When this returns, no packet is on its way that has found the index in a pool.
        match address {
            IpAddr::V4(_) => self.ports4.remove(index),
            IpAddr::V6(_) => self.ports6.remove(index),
        }?;
        self.tables.remove(index);
        Ok(())
    }
}

/// One family's tables of ports, by index of the address.
struct PortMaps<V: Pod> {
    maps: ArrayOfMaps<MapData, Array<MapData, V>>,
    /// The same map, for what aya has no call for.
    data: MapData,
}

impl<V: Pod> PortMaps<V> {
    fn new(
        open: &mut impl FnMut(&'static str) -> Result<Map, DataPlaneError>,
        name: &'static str,
    ) -> Result<Self, DataPlaneError> {
        Ok(Self {
            maps: open(name)?.try_into().map_err(|error: MapError| {
                DataPlaneError::new(format!("open map {name}"), error)
            })?,
            data: map_data(open(name)?)?,
        })
    }

    /// The table that an earlier life has made.
    fn adopt(&self, index: u16) -> Result<Array<MapData, V>, DataPlaneError> {
        self.maps
            .get(&u32::from(index), 0)
            .map_err(|error| DataPlaneError::new("find a table of SNAT ports", error))
    }

    /// A new table, all ports free.
    fn create(&mut self, index: u16) -> Result<Array<MapData, V>, DataPlaneError> {
        let table = Array::create(BUCKETS, PORT_TABLE_FLAGS)
            .map_err(|error| DataPlaneError::new("make a table of SNAT ports", error))?;
        self.maps
            .set(u32::from(index), &table, 0)
            .map_err(|error| DataPlaneError::new("install a table of SNAT ports", error))?;
        Ok(table)
    }

    fn remove(&mut self, index: u16) -> Result<(), DataPlaneError> {
        sys::delete_element(self.data.fd().as_fd(), u32::from(index))
            .map_err(|error| DataPlaneError::new("remove a table of SNAT ports", error))
    }
}
