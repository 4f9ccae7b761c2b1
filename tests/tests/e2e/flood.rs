//! A flood of SYNs ends no connection (S-CT-1).

use std::{
    net::SocketAddrV4,
    time::{Duration, Instant},
};

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

/// S-CT-1: half a minute of SYNs from random sources, as fast as they can be sent, in which every
/// established connection lives and 99 of 100 new ones of a real client succeed. The flood shows
/// in the counters, and when it is over everything is as before.
#[test]
fn thirty_seconds_of_syns_disturb_nobody() {
    const FLOOD: Duration = Duration::from_secs(30);
    let topology = Topology {
        clients: 2,
        ..Topology::default()
    };
    let stage = Stage::with("syn-flood-30s", &topology, |lab| {
        let mut config = Config::new([Service::web(lab).timeouts("half_open = \"3s\"")]);
        config.conntrack = "capacity = 50_000\nflood_limit = 5_000".to_owned();
        config
    });
    let live = stage.talk(200);
    hear(&live, 2);
    let known = stage.lbd.established("web");
    assert_eq!(known.len(), 200);

    let attacker = &stage.lab.clients()[1];
    let begun = Instant::now();
    let flood = attacker.begin_syn_flood(SocketAddrV4::new(VIP4, 80), 2 * FLOOD);
    wait_until(PATIENCE, "the flood shows in the counters", || {
        stage.lbd.reason("web", "flood_unrecorded") > 10_000
    });
    let (mut connected, mut failed) = (0, Vec::new());
    while begun.elapsed() < FLOOD {
        let spread = stage.lab.client().connect_many(vip4(), 50, 5).unwrap();
        connected += spread.connected();
        failed.extend(spread.failures);
    }
    let sent = flood.end().unwrap();
    eprintln!(
        "{sent} SYNs in {:.1} s, {connected} connections made meanwhile, {} failed",
        begun.elapsed().as_secs_f64(),
        failed.len()
    );
    assert!(connected > 100, "{connected}");
    assert!(failed.len() as u64 * 99 <= connected, "{failed:?}");

    hear(&live, 3);
    let now = stage.lbd.established("web");
    let stays = |(client, backend)| now.get(client) == Some(backend);
    assert!(known.iter().all(stays));
    finish(live);
    wait_until(PATIENCE, "half-open records are gone", || {
        stage.lbd.conntrack().half_open < 100
    });
    // A CPU takes SYNs for a flood until a tick has passed in which there were few.
    wait_until(PATIENCE, "every new connection is recorded again", || {
        let before = stage.lbd.reason("web", "flood_unrecorded");
        assert_eq!(stage.spread(vip4(), 100).len(), 2);
        stage.lbd.reason("web", "flood_unrecorded") == before
    });
}
