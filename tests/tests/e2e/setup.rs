//! What most tests start from: a lab whose daemon balances.

use std::{collections::BTreeMap, net::SocketAddr};

use lb_tests::lab::{
    IdentityServer, Lab, Lbd, LiveConnections, LiveReport, Topology, VIP4, VIP6, wait_until,
};

use super::{
    PATIENCE, PORT,
    ask::Ask,
    config::{Config, Service},
};

/// What [`Service::web`] listens on.
pub(crate) fn vip4() -> SocketAddr {
    SocketAddr::from((VIP4, 80))
}

/// What [`Service::web6`] listens on.
pub(crate) fn vip6() -> SocketAddr {
    SocketAddr::from((VIP6, 80))
}

/// A daemon that balances, and identity servers behind it. Dropped in the order of the fields.
pub(crate) struct Stage {
    pub(crate) lbd: Lbd,
    /// In the order of the lab's backends.
    pub(crate) servers: Vec<IdentityServer>,
    pub(crate) lab: Lab,
}

impl Stage {
    /// Service `web` over so many backends.
    pub(crate) fn new(hint: &str, backends: u8) -> Self {
        let topology = Topology {
            backends,
            ..Topology::default()
        };
        Self::with(hint, &topology, |lab| Config::new([Service::web(lab)]))
    }

    /// Any topology and configuration; returns when the way to every backend is known.
    pub(crate) fn with(
        hint: &str,
        topology: &Topology,
        config: impl FnOnce(&Lab) -> Config,
    ) -> Self {
        let lab = Lab::with(hint, topology).unwrap();
        let servers = lab.serve_identity(PORT).unwrap();
        let config = config(&lab).to_string();
        let lbd = Lbd::start(&lab, &config).unwrap();
        let stage = Self { lbd, servers, lab };
        stage.await_next_hops();
        stage
    }

    /// Until a packet for any backend finds its way.
    pub(crate) fn await_next_hops(&self) {
        wait_until(PATIENCE, "the way to every backend is known", || {
            let status = self.lbd.status();
            !status.warnings.iter().any(|w| w.contains("next hop"))
        });
    }

    /// Connections of the client to `web` that talk until they are told to stop.
    pub(crate) fn talk(&self, count: usize) -> LiveConnections {
        self.lab.client().live_connections(vip4(), count).unwrap()
    }

    /// Opens connections one after the other, none of which may fail; how many each host got.
    pub(crate) fn spread(&self, to: SocketAddr, count: u64) -> BTreeMap<String, u64> {
        let spread = self.lab.client().connect_many(to, count, 20).unwrap();
        assert_eq!(spread.failures, [""; 0]);
        assert_eq!(spread.connected(), count);
        spread.by_server
    }

    /// Host's name by client, of the connections that are established according to the backends.
    pub(crate) fn served(&self) -> BTreeMap<SocketAddr, String> {
        let hosts = self.lab.backends().iter();
        let of_host = hosts.flat_map(|host| {
            let connections = host.established(PORT).unwrap().into_iter();
            connections.map(|c| (c.peer, host.name().to_owned()))
        });
        of_host.collect()
    }
}

/// Waits until every connection has had `more` echoes more.
#[track_caller]
pub(crate) fn hear(live: &LiveConnections, more: u64) {
    let before = live.report().fewest_echoes;
    wait_until(PATIENCE, "every connection is answered", || {
        let report = live.report();
        !report.broken.is_empty() || report.fewest_echoes >= before + more
    });
    assert_eq!(live.report().broken, [""; 0]);
}

/// Ends connections of which none may have broken or lost a byte.
#[track_caller]
pub(crate) fn finish(live: LiveConnections) -> LiveReport {
    let report = live.finish();
    assert_eq!((&report.broken[..], report.bytes_lost), (&[][..], 0));
    assert!(report.fewest_echoes > 0);
    report
}
