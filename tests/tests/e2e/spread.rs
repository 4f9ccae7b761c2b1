//! The main promise: connections arrive, are spread by weight, and every byte comes back.

use std::collections::BTreeMap;

use lb_tests::lab::{Arms, Lab, Lbd, Topology, wait_until};

use super::{
    PATIENCE, PORT,
    ask::Ask,
    config::{Config, Service},
    setup::{Stage, vip4, vip6},
};

const FOUR: Topology = Topology {
    clients: 1,
    backends: 4,
    arms: Arms::Two,
    client_tags: Vec::new(),
};

/// By how much the host that is farthest from its share is off, as a part of that share; shares are
/// as weights, hosts in the order of their names.
fn deviation(by_server: &BTreeMap<String, u64>, weights: [u64; 4]) -> f64 {
    let (all, sum) = (by_server.values().sum::<u64>(), weights.iter().sum::<u64>());
    assert_eq!(by_server.len(), weights.len(), "{by_server:?}");
    let deviations = by_server.values().zip(weights).map(|(&count, weight)| {
        let share = (all * weight) as f64 / sum as f64;
        (count as f64 - share).abs() / share
    });
    deviations.fold(0.0, f64::max)
}

/// 10 000 connections at once, none fails, each host has its share, and the balancer knows of each
/// where it is.
///
/// Which backend a connection gets is as good as drawn by lot: the number that a backend gets of
/// 10 000 has a standard deviation of 43, so that one of four is off by more than 5 % (125) once in
/// 70 draws. So that this test fails for a reason, it may draw twice more and judge all together.
#[test]
fn ten_thousand_connections_are_spread_and_known() {
    let lab = Lab::with("spread", &FOUR).unwrap();
    // Processes, because one may not have both ends of so many connections.
    let servers = lab.backends().iter().map(|host| host.spawn_identity(PORT));
    let _servers: Vec<_> = servers.collect::<Result<_, _>>().unwrap();
    let config = Config {
        conntrack: "capacity = 100_000".to_owned(),
        ..Config::new([Service::web(&lab)])
    };
    let stage = Stage {
        lbd: Lbd::start(&lab, &config.to_string()).unwrap(),
        servers: Vec::new(),
        lab,
    };
    stage.await_next_hops();
    let lbd = &stage.lbd;
    assert_eq!(lbd.slots("web"), [16385, 16384, 16384, 16384]);

    let mut by_server = BTreeMap::new();
    for draw in 1.. {
        let held = stage.lab.client().hold_many(vip4(), 10_000, 100).unwrap();
        assert_eq!(held.spread.failures, [""; 0]);
        // The client's last ACK may still be on its way when it has what it waits for.
        wait_until(PATIENCE, "lbctl and the backends agree", || {
            let served = stage.served();
            served.len() == 10_000 && lbd.established("web") == served
        });
        for (host, count) in &held.spread.by_server {
            *by_server.entry(host.clone()).or_default() += count;
        }
        for backend in lbd.backends("web") {
            let opened = by_server[backend.name.as_str()];
            assert_eq!(backend.counters.connections, opened);
        }
        let off = deviation(&by_server, [1; 4]);
        if off <= 0.05 {
            break;
        }
        assert!(draw < 3, "off by {off}: {by_server:?}");
    }
    let conntrack = lbd.conntrack();
    assert_eq!((conntrack.half_open, conntrack.untracked_total), (0, 0));
    assert_eq!(lbd.drops(), BTreeMap::new());
}

/// S-SEL-1: slots are within one of the exact share; connections follow the slots.
#[test]
fn connections_are_spread_by_weight() {
    let stage = Stage::with("weights", &FOUR, |lab| {
        let mut config = Config::new([Service::web(lab)]);
        for (backend, weight) in config.web().backends.iter_mut().zip([1, 1, 2, 4]) {
            backend.weight = weight;
        }
        config
    });
    for (slots, eighths) in stage.lbd.slots("web").into_iter().zip([1, 1, 2, 4]) {
        assert!((slots * 8).abs_diff(65_537 * eighths) <= 8);
    }
    let by_server = stage.spread(vip4(), 4000);
    // Five standard deviations of the smallest share.
    let off = deviation(&by_server, [1, 1, 2, 4]);
    assert!(off <= 0.21, "off by {off}: {by_server:?}");
}

#[test]
fn connections_are_spread_over_ipv6() {
    let stage = Stage::with("spread6", &FOUR, |lab| Config::new([Service::web6(lab)]));
    stage.lab.client().exchange(vip6(), 1_000_000).unwrap();
    let held = stage.lab.client().hold_many(vip6(), 2000, 50).unwrap();
    assert_eq!(held.spread.failures, [""; 0]);
    // Five standard deviations.
    let off = deviation(&held.spread.by_server, [1; 4]);
    assert!(off <= 0.195, "off by {off}: {:?}", held.spread.by_server);
    wait_until(PATIENCE, "lbctl and the backends agree", || {
        stage.lbd.established("web6") == stage.served()
    });
    assert_eq!(stage.served().len(), 2000);
    assert_eq!(stage.lbd.drops(), BTreeMap::new());
}
