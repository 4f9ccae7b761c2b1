//! A wire that leads past the balancer.

use anyhow::Result;

use super::{
    Host, Lab,
    topology::{BYPASS_NETWORK, pair},
};

/// The interface at both ends.
pub const BYPASS: &str = "bypass";

impl Lab {
    /// Wires a client and a backend to each other: `bypass` on both, 10.4.0.1 and fd00:4::1 at the
    /// client, 10.4.0.2 and fd00:4::2 at the backend. Nothing is routed that way by itself. A lab
    /// has one such wire at most.
    pub fn bypass(&self, client: &Host, backend: &Host) -> Result<()> {
        let ends = [(client.netns(), 1), (backend.netns(), 2)];
        let [near, far] = ends.map(|(netns, _)| netns);
        pair((near, BYPASS), (far, BYPASS), &[])?;
        far.ethtool(&format!("-K {BYPASS} tx off tso off gso off"))?;
        for (netns, number) in ends {
            BYPASS_NETWORK.assign(netns, BYPASS, number)?;
        }
        Ok(())
    }
}
