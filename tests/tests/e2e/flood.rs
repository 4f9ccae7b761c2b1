//! A flood of SYNs ends no connection (S-CT-1).

use std::net::SocketAddrV4;

use lb_tests::lab::{Topology, VIP4, wait_until};

use super::{
    PATIENCE,
    ask::Ask,
    config::{Config, Service},
    setup::{Stage, finish, hear, vip4},
};

/// S-CT-1: 200 connections live through 100 000 SYNs from as many clients, in a table for 1000;
/// who comes during the flood and afterwards is served.
#[test]
fn a_syn_flood_ends_no_connection() {
    let topology = Topology {
        clients: 2,
        ..Topology::default()
    };
    let stage = Stage::with("syn-flood", &topology, |lab| {
        let mut config = Config::new([Service::web(lab)]);
        config.conntrack = "capacity = 1000".to_owned();
        config
    });
    let live = stage.talk(200);
    hear(&live, 2);
    let known = stage.lbd.established("web");
    assert_eq!(known.len(), 200);
    let before = live.report().echoes;

    let attacker = &stage.lab.clients()[1];
    let target = SocketAddrV4::new(VIP4, 80);
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| attacker.syn_flood(target, 100_000));
        wait_until(PATIENCE, "the table is full of half-open ones", || {
            stage.lbd.conntrack().half_open > 500
        });
        stage.lab.client().exchange(vip4(), 10_000).unwrap();
        flood.join().unwrap().unwrap();
    });
    assert!(live.report().echoes > before);

    hear(&live, 3);
    let now = stage.lbd.established("web");
    assert!(
        known
            .iter()
            .all(|(client, backend)| now.get(client) == Some(backend))
    );
    let counters = stage.lbd.service("web").counters;
    assert!(counters.traffic.connections > 90_000, "{counters:?}");
    assert_eq!(stage.spread(vip4(), 100).len(), 2);
    finish(live);
}
