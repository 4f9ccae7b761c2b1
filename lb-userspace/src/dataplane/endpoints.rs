//! Where services listen and backends answer, as the packet path looks it up.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::atomic::AtomicU64,
};

use aya::{
    Pod,
    maps::{self, Map, MapData, MapError},
};
use lb_common::endpoints::{self, Line};

use super::{
    DataPlaneError,
    kernel::map_data,
    mapped::{MappedArray, mapped},
    sys::is_missing,
};

/// Indices by address and port, of both address families.
pub(super) struct EndpointTable {
    v4: Lines,
    v6: Lines,
    /// What this daemon has written.
    written: BTreeSet<SocketAddr>,
    /// Those of IPv6 among it by their keys, which need not be theirs alone.
    by_key6: HashMap<u64, SocketAddr>,
}

type Lines = MappedArray<Line<AtomicU64>>;

impl EndpointTable {
    /// Names are those of the IPv4 and of the IPv6 map.
    pub(super) fn new(
        open: &mut impl FnMut(&'static str) -> Result<Map, DataPlaneError>,
        names: [&'static str; 2],
        lines: u32,
    ) -> Result<Self, DataPlaneError> {
        let mut table = |name| mapped(&map_data(open(name)?)?, lines, name);
        let [v4, v6] = names;
        Ok(Self {
            v4: table(v4)?,
            v6: table(v6)?,
            written: BTreeSet::new(),
            by_key6: HashMap::new(),
        })
    }

    /// # Errors
    ///
    /// There is no room for this endpoint, or another one stands in its place; both are a matter of
    /// luck, and the more unlikely the fewer endpoints there are.
    pub(super) fn insert(&mut self, address: SocketAddr, index: u16) -> Result<(), DataPlaneError> {
        let failed = |why: &str| DataPlaneError::new(format!("make {address} known"), why);
        let key = key(address);
        // The packet path would find one in place of the other.
        if let Some(other) = self.by_key6.get(&key)
            && address.is_ipv6()
            && *other != address
        {
            return Err(failed(&format!(
                "{other} has the same hash: use another port"
            )));
        }
        endpoints::insert(self.lines(address).as_slice(), key, index)
            .map_err(|endpoints::Full| failed("there are too many like it"))?;
        self.written.insert(address);
        if address.is_ipv6() {
            self.by_key6.insert(key, address);
        }
        Ok(())
    }

    /// Removing what is not there is no error.
    pub(super) fn remove(&mut self, address: SocketAddr) {
        let key = key(address);
        self.written.remove(&address);
        if address.is_ipv6() {
            self.by_key6.remove(&key);
        }
        endpoints::remove(self.lines(address).as_slice(), key);
    }

    /// Whether any endpoint with this address is left.
    pub(super) fn has_address(&self, ip: IpAddr) -> bool {
        let next = self.written.range(SocketAddr::new(ip, 0)..).next();
        next.is_some_and(|address| address.ip() == ip)
    }

    /// Removes whatever an earlier life has left, but these.
    pub(super) fn keep_only(&mut self, keep: &BTreeSet<SocketAddr>) {
        self.written.retain(|address| keep.contains(address));
        self.by_key6.retain(|_, address| keep.contains(address));
        for (lines, is_ipv4) in [(&self.v4, true), (&self.v6, false)] {
            let wanted = keep.iter().filter(|address| address.is_ipv4() == is_ipv4);
            let wanted: HashSet<u64> = wanted.map(|address| key(*address)).collect();
            let lines = lines.as_slice();
            let strangers: Vec<_> = endpoints::keys(lines)
                .filter(|key| !wanted.contains(key))
                .collect();
            for key in strangers {
                endpoints::remove(lines, key);
            }
        }
    }

    fn lines(&self, address: SocketAddr) -> &Lines {
        match address {
            SocketAddr::V4(_) => &self.v4,
            SocketAddr::V6(_) => &self.v6,
        }
    }
}

fn key(address: SocketAddr) -> u64 {
    let port = u16::from_ne_bytes(address.port().to_be_bytes());
    match address.ip() {
        IpAddr::V4(ip) => endpoints::key4(u32::from_ne_bytes(ip.octets()), port),
        IpAddr::V6(ip) => endpoints::key6(words6(ip), port),
    }
}

fn words6(ip: Ipv6Addr) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = ip.octets();
    [
        u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
        u64::from_ne_bytes([i, j, k, l, m, n, o, p]),
    ]
}

/// The addresses that services listen on, whatever the port.
pub(super) struct ServiceAddresses {
    v4: maps::HashMap<MapData, [u8; 4], u32>,
    v6: maps::HashMap<MapData, [u8; 16], u32>,
}

/// The packet path does not read the value.
const PRESENT: u32 = 1;

impl ServiceAddresses {
    pub(super) fn new(
        open: &mut impl FnMut(&'static str) -> Result<Map, DataPlaneError>,
    ) -> Result<Self, DataPlaneError> {
        let failed = |error: MapError| DataPlaneError::new("open the services' addresses", error);
        Ok(Self {
            v4: open("SERVICE_ADDRESSES4")?.try_into().map_err(failed)?,
            v6: open("SERVICE_ADDRESSES6")?.try_into().map_err(failed)?,
        })
    }

    pub(super) fn insert(&mut self, address: IpAddr) -> Result<(), DataPlaneError> {
        match address {
            IpAddr::V4(ip) => self.v4.insert(ip.octets(), PRESENT, 0),
            IpAddr::V6(ip) => self.v6.insert(ip.octets(), PRESENT, 0),
        }
        .map_err(|error| DataPlaneError::new(format!("make {address} known"), error))
    }

    /// Removing what is not there is no error.
    pub(super) fn remove(&mut self, address: IpAddr) -> Result<(), DataPlaneError> {
        match address {
            IpAddr::V4(ip) => remove(&mut self.v4, ip.octets()),
            IpAddr::V6(ip) => remove(&mut self.v6, ip.octets()),
        }
        .map_err(|error| DataPlaneError::new(format!("forget {address}"), error))
    }

    /// Removes whatever an earlier life has left, but these.
    pub(super) fn keep_only(&mut self, keep: &BTreeSet<IpAddr>) -> Result<(), DataPlaneError> {
        let v4 = self
            .v4
            .keys()
            .map(|key| key.map(|ip| Ipv4Addr::from(ip).into()));
        let v6 = self
            .v6
            .keys()
            .map(|key| key.map(|ip| Ipv6Addr::from(ip).into()));
        let present: Result<BTreeSet<IpAddr>, MapError> = v4.chain(v6).collect();
        let present =
            present.map_err(|error| DataPlaneError::new("list the services' addresses", error))?;
        present
            .difference(keep)
            .try_for_each(|address| self.remove(*address))
    }
}

fn remove<K: Pod>(map: &mut maps::HashMap<MapData, K, u32>, key: K) -> Result<(), MapError> {
    match map.remove(&key) {
        Err(MapError::SyscallError(error)) if is_missing(&error.io_error) => Ok(()),
        other => other,
    }
}
