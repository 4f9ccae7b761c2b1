//! Ways to be wired: one arm, VLANs, generic mode, drivers that refuse.

use std::collections::BTreeMap;

use lb_tests::lab::{Arms, Lbd, Topology, VlanTag};
use lb_userspace::api::{InterfaceInfo, InterfaceMode};

use super::{
    ask::Ask,
    config::{Config, Service},
    setup::{Stage, finish, hear, vip4, vip6},
};

/// Both families work, byte for byte, and the balancer drops nothing.
fn assert_balances(hint: &str, topology: &Topology, prepare: impl FnOnce(&mut Config)) -> Stage {
    let stage = Stage::with(hint, topology, |lab| {
        let mut config = Config::new([Service::web(lab), Service::web6(lab)]);
        if topology.arms == Arms::One {
            config.interfaces.truncate(1);
        }
        prepare(&mut config);
        config
    });
    let live = stage.talk(20);
    for vip in [vip4(), vip6()] {
        for client in stage.lab.clients() {
            client.exchange(vip, 300_000).unwrap();
        }
        assert_eq!(stage.spread(vip, 100).len(), 2);
    }
    hear(&live, 3);
    finish(live);
    assert_eq!(stage.lbd.drops(), BTreeMap::new());
    stage
}

fn interface(lbd: &Lbd, name: &str) -> InterfaceInfo {
    let mut interfaces = lbd.status().interfaces.into_iter();
    interfaces.find(|i| i.name == name).unwrap()
}

#[test]
fn two_arms_and_several_clients() {
    let topology = Topology {
        clients: 3,
        ..Topology::default()
    };
    let stage = assert_balances("two-arms", &topology, |_| {});
    for name in ["eth0", "eth1"] {
        assert_eq!(interface(&stage.lbd, name).mode, InterfaceMode::Native);
    }
    for vip in [vip4(), vip6()] {
        stage.lab.client().exchange(vip, 100_000_000).unwrap();
    }
    assert_eq!(stage.lbd.drops(), BTreeMap::new());
}

/// What is forwarded leaves by the interface it came from (`XDP_TX`).
#[test]
fn one_arm() {
    let topology = Topology {
        arms: Arms::One,
        ..Topology::default()
    };
    let stage = assert_balances("one-arm", &topology, |_| {});
    assert_eq!(stage.lbd.status().interfaces.len(), 1);
}

/// S-FWD-6: clients with a tag, backends without.
#[test]
fn one_vlan_tag() {
    let topology = Topology {
        client_tags: vec![VlanTag::Customer(7)],
        ..Topology::default()
    };
    assert_balances("vlan", &topology, |_| {});
}

/// S-FWD-6: 802.1ad around 802.1Q.
#[test]
fn two_vlan_tags() {
    let topology = Topology {
        clients: 2,
        client_tags: vec![VlanTag::Service(100), VlanTag::Customer(7)],
        ..Topology::default()
    };
    assert_balances("qinq", &topology, |_| {});
}

#[test]
fn generic_mode_where_it_is_wanted() {
    let mut stage = assert_balances("generic", &Topology::default(), |config| {
        for (_, mode) in &mut config.interfaces {
            *mode = "generic";
        }
    });
    let eth0 = interface(&stage.lbd, "eth0");
    assert_eq!(eth0.mode, InterfaceMode::Generic);
    assert_eq!(eth0.note, "as configured");

    // The next daemon takes the interface over in the mode it wants itself.
    let mut config = Config::new([Service::web(&stage.lab)]);
    config.interfaces[0].1 = "native";
    config.interfaces[1].1 = "generic";
    stage.lbd.configure(&config.to_string()).unwrap();
    stage.lbd.restart().unwrap();
    assert_eq!(interface(&stage.lbd, "eth0").mode, InterfaceMode::Native);
    assert_eq!(interface(&stage.lbd, "eth1").mode, InterfaceMode::Generic);
    assert_eq!(stage.spread(vip4(), 50).len(), 2);
}

/// Loopback has no native mode: `auto` says so, now and after a restart.
#[test]
fn a_refusing_driver_gets_generic_mode() {
    let mut stage = assert_balances("refusing", &Topology::default(), |config| {
        config.interfaces.push(("lo", "auto"));
    });
    for life in ["first", "second"] {
        let lo = interface(&stage.lbd, "lo");
        assert_eq!(lo.mode, InterfaceMode::Generic, "{life}");
        assert!(lo.note.contains("native mode"), "{life}: {lo:?}");
        assert_eq!(interface(&stage.lbd, "eth0").mode, InterfaceMode::Native);
        stage.lbd.restart().unwrap();
    }
    assert!(stage.lbd.log().contains("the driver refused native mode"));
}
