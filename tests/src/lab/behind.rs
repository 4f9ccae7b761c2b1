//! A host that is further away: behind another host of the lab, which becomes its router.

use std::time::Duration;

use anyhow::Result;

use super::{
    Host, Lab,
    topology::{FAR_NETWORK, FIRST_HOST, Place, ROUTER, pair},
};

impl Lab {
    /// Makes the host `far`, 10.3.0.11 and fd00:3::11, behind a client or backend, whose kernel sends it
    /// packets of at most `mtu` bytes (1280 at least) and tells the senders of larger ones so (RFC
    /// 1191, RFC 8201). Neither end knows of that from its own link. A lab has one such host at most.
    ///
    /// # Errors
    /// As [`Lab::with`].
    pub fn host_behind(&self, router: &Host, mtu: u16) -> Result<Host> {
        const PATIENCE: Duration = Duration::from_secs(10);
        let place = Place {
            prefix: self.footprint.name(),
            directory: self.footprint.directory(),
        };
        let host = place.host("far", FAR_NETWORK, FIRST_HOST)?;
        pair((host.netns(), "eth0"), (router.netns(), "far"), &[])?;
        router
            .netns()
            .sysctl(&[("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")])?;
        FAR_NETWORK.assign(router.netns(), "far", ROUTER)?;
        FAR_NETWORK.assign(host.netns(), "eth0", FIRST_HOST)?;
        FAR_NETWORK.route_all(host.netns())?;
        let (ipv4, ipv6) = (host.ipv4(), host.ipv6());
        // Locked: routers heed an MTU that a route has only then (IPv6).
        let ip = |arguments: String| router.netns().ip(&arguments);
        ip(format!("route add {ipv4}/32 dev far mtu lock {mtu}"))?;
        ip(format!("-6 route add {ipv6}/128 dev far mtu lock {mtu}"))?;
        let balancer = self.balancer.netns();
        balancer.ip(&format!("route add {ipv4}/32 via {}", router.ipv4()))?;
        balancer.ip(&format!("-6 route add {ipv6}/128 via {}", router.ipv6()))?;
        for address in [ipv4.into(), ipv6.into()] {
            self.balancer.wait_for_path(address, PATIENCE)?;
        }
        Ok(host)
    }
}
