//! The daemon dies, ends, is upgraded and comes back: connections do not notice (S-CT-4).

use std::{collections::BTreeMap, fs};

use lb_tests::lab::{Lab, Lbd, LiveConnections, wait_until};
use lb_userspace::api::{ConnectionInfo, ServiceInfo};

use super::{
    PATIENCE,
    ask::Ask,
    config::{Backend, Config, Service},
    setup::{Stage, finish, hear, vip4},
};

/// What a daemon knows and its successor should.
struct Memory {
    service: ServiceInfo,
    connections: BTreeMap<std::net::SocketAddr, ConnectionInfo>,
    slots: Vec<u32>,
}

impl Memory {
    fn of(lbd: &Lbd) -> Self {
        let connections = lbd.connections("web").into_iter();
        Self {
            service: lbd.service("web"),
            connections: connections.map(|c| (c.client, c)).collect(),
            slots: lbd.slots("web"),
        }
    }

    /// Table, connections, ages and counters are the same, or have gone on.
    #[track_caller]
    fn assert_goes_on_in(&self, now: &Self) {
        assert_eq!(now.service.table, self.service.table);
        assert_eq!(now.slots, self.slots);
        let (before, after) = (&self.service.counters, &now.service.counters);
        assert!(after.traffic.connections >= before.traffic.connections);
        assert!(after.traffic.packets > before.traffic.packets);
        assert!(after.traffic.bytes > before.traffic.bytes);
        for (client, before) in &self.connections {
            let after = &now.connections[client];
            assert_eq!(after.backend, before.backend);
            assert_eq!(after.vip, before.vip);
            assert!(after.age_s >= before.age_s, "{before:?} {after:?}");
        }
    }
}

/// Id of the program on an interface of the balancer.
fn program(lab: &Lab, interface: &str) -> u64 {
    let shown = lab.lb().netns().ip(&format!("-j link show {interface}"));
    let shown: serde_json::Value = serde_json::from_str(&shown.unwrap()).unwrap();
    shown[0]["xdp"]["prog"]["id"].as_u64().unwrap()
}

/// While `interlude` goes on and afterwards no connection breaks, and all are known; new ones work
/// whenever `interlude` asks for them.
fn survive(hint: &str, interlude: impl FnOnce(&mut Stage, &LiveConnections)) {
    let mut stage = Stage::new(hint, 3);
    let live = stage.talk(200);
    hear(&live, 3);
    // An age of a second tells a birth that was remembered from one that was not.
    wait_until(PATIENCE, "connections have an age", || {
        stage.lbd.connections("web").iter().all(|c| c.age_s >= 1)
    });
    let memory = Memory::of(&stage.lbd);

    interlude(&mut stage, &live);

    hear(&live, 3);
    memory.assert_goes_on_in(&Memory::of(&stage.lbd));
    let known = stage.lbd.established("web");
    assert!(memory.connections.keys().all(|c| known.contains_key(c)));
    let report = finish(live);
    assert_eq!(report.by_server.values().sum::<u64>(), 200);
    assert_eq!(stage.lbd.drops(), BTreeMap::new());
}

/// S-CT-4: 0 of 200 connections broken, 0 bytes lost; new ones work while nobody is at home.
#[test]
fn sigkill_is_survived() {
    survive("sigkill", |stage, live| {
        stage.lbd.kill9().unwrap();
        hear(live, 5);
        stage.spread(vip4(), 100);
        stage.lbd.start_again().unwrap();
    });
}

/// S-CT-4, and the program is replaced by the new daemon's at one stroke.
#[test]
fn sigterm_and_an_upgrade_are_survived() {
    survive("sigterm", |stage, live| {
        let before = ["eth0", "eth1"].map(|interface| program(&stage.lab, interface));
        let status = stage.lbd.terminate().unwrap();
        assert!(status.success());
        assert!(!stage.lbd.socket().exists());
        let between = ["eth0", "eth1"].map(|interface| program(&stage.lab, interface));
        assert_eq!(between, before);
        hear(live, 3);
        stage.spread(vip4(), 100);
        stage.lbd.start_again().unwrap();
        let after = ["eth0", "eth1"].map(|interface| program(&stage.lab, interface));
        assert!(after[0] != before[0] && after[1] != before[1]);
    });
}

/// S-CT-4: many in a row, as a supervisor would make of a daemon that crashes at once.
#[test]
fn a_crash_loop_is_survived() {
    survive("crash-loop", |stage, _| {
        for _ in 0..3 {
            stage.lbd.kill9().unwrap();
            stage.lbd.start_again().unwrap();
        }
    });
}

/// S-CT-3, S-CT-4: what the new configuration has added takes connections; what it has removed
/// keeps those that it has.
#[test]
fn a_restart_with_another_configuration_is_survived() {
    let mut stage = Stage::new("reconfigured", 4);
    let live = stage.talk(100);
    hear(&live, 2);
    stage.lbd.terminate().unwrap();

    let mut config = Config::new([Service::web(&stage.lab)]);
    let web = config.web();
    web.backends.remove(0);
    web.backends[0].weight = 300;
    let mut other = Service::new("other", "192.0.2.11:80".parse().unwrap());
    let shared = &stage.lab.backends()[3];
    other.backends = vec![Backend::new("shared", shared.v4(super::PORT))];
    config.services.push(other);
    stage.lbd.configure(&config.to_string()).unwrap();
    stage.lbd.start_again().unwrap();
    stage.await_next_hops();

    hear(&live, 3);
    let removed = stage.lbd.service_detail("web").removed;
    assert_eq!(removed.backends, 1);
    assert!(removed.active_connections > 0);
    let by_server = stage.spread(vip4(), 100);
    assert!(!by_server.contains_key("backend-1"), "{by_server:?}");
    let by_server = stage.spread("192.0.2.11:80".parse().unwrap(), 20);
    assert_eq!(by_server, [("backend-4".to_owned(), 20)].into());
    let report = finish(live);
    assert!(report.by_server["backend-1"] > 0);
}

/// S-CT-4: a daemon whose maps have another layout leaves the data plane of the version before it
/// alone, and says what to do.
#[test]
fn a_data_plane_of_another_version_goes_on() {
    survive("layouts", |stage, live| {
        stage.lbd.terminate().unwrap();
        let pins = |layout: u32| stage.lbd.bpffs().join(format!("v{layout}"));
        let (own, other) = (pins(lb_common::records::LAYOUT_VERSION), pins(999));
        fs::rename(&own, &other).unwrap();
        let refused = stage.lbd.start_again().unwrap_err();
        let said = format!("{refused:#}\n{}", stage.lbd.log());
        assert!(
            said.contains("another version") && said.contains("lbctl detach"),
            "{said}"
        );
        hear(live, 3);
        assert_eq!(stage.spread(vip4(), 50).len(), 3);
        fs::rename(&other, &own).unwrap();
        stage.lbd.start_again().unwrap();
    });
}
