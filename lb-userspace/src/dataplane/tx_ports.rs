//! The interfaces that packets may be redirected to.

use aya::maps::{DevMapHash, Map, MapData};

use super::DataPlaneError;

/// The program's device map. Every interface that a packet may leave through has to be in it.
pub(super) struct TxPorts(DevMapHash<MapData>);

impl TxPorts {
    pub(super) const NAME: &str = "TX_PORTS";

    pub(super) fn new(map: Map) -> Result<Self, DataPlaneError> {
        map.try_into()
            .map(Self)
            .map_err(|error: aya::maps::MapError| {
                DataPlaneError::new(format!("open map {}", Self::NAME), error)
            })
    }

    /// Lets packets leave through this interface.
    pub(super) fn allow(&mut self, ifindex: u32) -> Result<(), DataPlaneError> {
        self.0.insert(ifindex, ifindex, None, 0).map_err(|error| {
            DataPlaneError::new(format!("allow redirects to interface #{ifindex}"), error)
        })
    }
}
