//! What an operator does to one backend is felt by no connection of another (S-CT-3).

use std::collections::BTreeMap;

use lb_tests::lab::{Topology, wait_until};
use lb_userspace::model::{Admin, Health};

use super::{
    PATIENCE, PORT,
    ask::Ask,
    config::{Config, FAST_TCP, Service},
    setup::{Stage, finish, hear, vip4},
};

/// S-CT-3: 100 connections live through everything that can be done to a backend, also those of
/// the very backend.
#[test]
fn no_operation_breaks_a_connection() {
    let stage = Stage::new("operations", 3);
    let lbd = &stage.lbd;
    let base = lbd.service("web").table;
    let live = stage.talk(100);
    let do_and_hear = |arguments: &[&str]| {
        let changes = lbd.change(arguments);
        assert!(!changes.is_empty(), "{arguments:?}");
        hear(&live, 2);
        changes
    };
    let only = |by_server: BTreeMap<String, u64>| by_server.into_keys().collect::<Vec<_>>();

    let drained = do_and_hear(&["backend", "drain", "web", "backend-1"]);
    assert!(drained[0].contains("drains"), "{drained:?}");
    let backend = lbd.backend("web", "backend-1");
    assert_eq!((backend.admin, backend.slots), (Admin::Drain, 0));
    assert_eq!(only(stage.spread(vip4(), 100)), ["backend-2", "backend-3"]);

    do_and_hear(&["backend", "enable", "web", "backend-1"]);
    assert_eq!(lbd.service("web").table, base);
    assert_eq!(stage.spread(vip4(), 100).len(), 3);

    do_and_hear(&["backend", "maint", "web", "backend-2"]);
    assert_eq!(lbd.backend("web", "backend-2").admin, Admin::Maint);
    assert_eq!(only(stage.spread(vip4(), 100)), ["backend-1", "backend-3"]);
    do_and_hear(&["backend", "enable", "web", "backend-2"]);
    assert_eq!(lbd.service("web").table, base);

    do_and_hear(&["backend", "set", "web", "backend-3", "--weight", "200"]);
    assert_eq!(lbd.slots("web"), [16384, 16384, 32769]);
    do_and_hear(&["backend", "set", "web", "backend-3", "--weight", "0"]);
    assert_eq!(lbd.slots("web")[2], 0);
    assert_eq!(only(stage.spread(vip4(), 100)), ["backend-1", "backend-2"]);
    do_and_hear(&["backend", "set", "web", "backend-3", "--weight", "100"]);

    do_and_hear(&["backend", "remove", "web", "backend-1"]);
    assert_eq!(lbd.backends("web").len(), 2);
    assert_eq!(only(stage.spread(vip4(), 100)), ["backend-2", "backend-3"]);
    let address = stage.lab.backends()[0].v4(PORT).to_string();
    do_and_hear(&["backend", "add", "web", &address, "--name", "backend-1"]);
    assert_eq!(stage.spread(vip4(), 100).len(), 3);

    let report = finish(live);
    assert_eq!(report.by_server.len(), 3);
    assert_eq!(lbd.drops(), BTreeMap::new());
}

/// S-CT-3: connections of others do not notice a backend that comes from nowhere.
#[test]
fn a_new_backend_takes_its_share_of_new_connections_only() {
    let topology = Topology {
        backends: 3,
        ..Topology::default()
    };
    let stage = Stage::with("added", &topology, |lab| {
        let mut config = Config::new([Service::web(lab)]);
        config.web().backends.truncate(2);
        config
    });
    let live = stage.talk(50);
    let address = stage.lab.backends()[2].v4(PORT).to_string();
    let changes = stage.lbd.change(&["backend", "add", "web", &address]);
    assert!(changes.iter().any(|c| c.contains("is new")), "{changes:?}");
    // It is called by its address where it has no other name.
    assert_eq!(stage.lbd.backend("web", &address).slots, 65_537 / 3);
    stage.await_next_hops();
    assert_eq!(stage.spread(vip4(), 100).len(), 3);
    hear(&live, 3);
    assert_eq!(finish(live).by_server.len(), 2);
}

/// A removed backend's index is another's only when nobody speaks of it any more.
#[test]
fn a_removed_backend_is_forgotten_with_its_last_connection() {
    let topology = Topology::default();
    let stage = Stage::with("removed", &topology, |lab| {
        let short = "fin_wait = \"1s\"\nclosing = \"1s\"\ntime_wait = \"1s\"\nreset = \"1s\"";
        Config::new([Service::web(lab).timeouts(short)])
    });
    let lbd = &stage.lbd;
    let live = stage.talk(40);
    hear(&live, 1);
    let of_removed = lbd.backend("web", "backend-1").active_connections;
    assert!(of_removed > 0);
    lbd.change(&["backend", "remove", "web", "backend-1"]);

    hear(&live, 2);
    let removed = lbd.service_detail("web").removed;
    assert_eq!(
        (removed.backends, removed.active_connections),
        (1, of_removed)
    );
    let nameless = lbd.connections("web").into_iter();
    let nameless = nameless.filter(|c| c.backend.is_none()).count();
    assert_eq!(nameless as u64, of_removed);
    let forwarded = lbd.service("web").counters.traffic;

    assert_eq!(finish(live).by_server["backend-1"], of_removed);
    wait_until(PATIENCE, "its index is free", || {
        lbd.service_detail("web").removed.backends == 0
    });
    let after = lbd.service("web").counters.traffic;
    assert!(after.packets >= forwarded.packets && after.connections == forwarded.connections);
}

/// S-SEL-2: a server that dies is found down in time, its share goes to the others, and when it is
/// back the table is what it was.
#[test]
fn a_flap_is_noticed_and_leaves_no_trace() {
    let mut stage = Stage::with(
        "flap",
        &Topology {
            backends: 3,
            ..Topology::default()
        },
        |lab| Config::new([Service::web(lab).check(FAST_TCP)]),
    );
    wait_until(PATIENCE, "all are up", || {
        let backends = stage.lbd.backends("web");
        backends.iter().all(|b| b.health == Health::Up)
    });
    let base = stage.lbd.service("web").table;
    assert_eq!(base.checksum, base.base_checksum);
    let live = stage.talk(60);
    hear(&live, 1);

    let killed = std::time::Instant::now();
    stage.servers[0].kill();
    wait_until(PATIENCE, "the dead one is found", || {
        stage.lbd.backend("web", "backend-1").health == Health::Down
    });
    // Interval × fall + timeout, and what a busy machine adds.
    let found = killed.elapsed();
    assert!(found.as_millis() < 1300 + 1500, "found after {found:?}");
    let backend = stage.lbd.backend("web", "backend-1");
    assert!(backend.reason.contains("connection refused"), "{backend:?}");
    let table = stage.lbd.service("web").table;
    assert_ne!(table.checksum, base.checksum);
    assert_eq!(table.base_checksum, base.base_checksum);
    let slots = stage.lbd.slots("web");
    assert_eq!((slots[0], slots[1] + slots[2]), (0, 65_537));
    assert!(slots[1].abs_diff(slots[2]) < 2000, "{slots:?}");
    assert_eq!(stage.spread(vip4(), 100).len(), 2);

    stage.servers[0].restart().unwrap();
    wait_until(PATIENCE, "it is back", || {
        stage.lbd.backend("web", "backend-1").health == Health::Up
    });
    assert_eq!(stage.lbd.service("web").table, base);
    assert_eq!(stage.spread(vip4(), 100).len(), 3);
    let report = live.finish();
    let of_dead = report
        .broken
        .iter()
        .filter(|line| line.contains("to backend-1"));
    assert_eq!(report.broken.len(), of_dead.count(), "{report:?}");
    assert_eq!(report.broken.len() as u64, report.by_server["backend-1"]);
}

/// `lbctl conntrack list --backend` is what `ss` says on that backend.
#[test]
fn the_connections_of_one_backend_are_listed() {
    let stage = Stage::new("of-one", 2);
    let held = stage.lab.client().hold_many(vip4(), 100, 10).unwrap();
    assert_eq!(held.spread.connected(), 100);
    for host in stage.lab.backends() {
        let mut listed = Vec::new();
        let mut served: Vec<_> = host.established(PORT).unwrap();
        served.sort_by_key(|c| c.peer);
        wait_until(PATIENCE, "both agree", || {
            let arguments = ["conntrack", "list", "--backend", host.name()];
            let connections: Vec<lb_userspace::api::ConnectionInfo> = stage.lbd.json(&arguments);
            let connections = connections.into_iter();
            listed = connections.filter(|c| c.state == "ESTABLISHED").collect();
            listed.len() == served.len()
        });
        listed.sort_by_key(|c| c.client);
        for (listed, served) in listed.iter().zip(&served) {
            assert_eq!((listed.client, listed.vip), (served.peer, vip4()));
        }
    }
}
