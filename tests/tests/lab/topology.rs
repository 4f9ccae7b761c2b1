//! Every shape of lab carries traffic.

use std::{
    net::{IpAddr, SocketAddr},
    thread,
};

use lb_tests::lab::{Arms, Lab, Topology, VlanTag};

use super::PORT;

const MEGABYTE: u64 = 1 << 20;

#[test]
fn one_client_reaches_one_backend() {
    let topology = Topology {
        backends: 1,
        ..Topology::default()
    };
    reaches_every_backend(&Lab::with("pair", &topology).unwrap());
}

#[test]
fn many_clients_reach_many_backends() {
    let topology = Topology {
        clients: 2,
        backends: 3,
        ..Topology::default()
    };
    reaches_every_backend(&Lab::with("many", &topology).unwrap());
}

#[test]
fn one_arm_serves_both_sides() {
    let topology = Topology {
        arms: Arms::One,
        ..Topology::default()
    };
    let lab = Lab::with("one-arm", &topology).unwrap();
    reaches_every_backend(&lab);
    let interfaces = lab.lb().netns().ip("-o link show").unwrap();
    assert!(!interfaces.contains("eth1"), "{interfaces}");
}

#[test]
fn clients_speak_through_tags() {
    for tags in [
        vec![VlanTag::Customer(7)],
        vec![VlanTag::Service(4094), VlanTag::Customer(7)],
    ] {
        let topology = Topology {
            clients: 2,
            client_tags: tags,
            ..Topology::default()
        };
        reaches_every_backend(&Lab::with("tags", &topology).unwrap());
    }
}

#[test]
fn impossible_labs_are_refused() {
    for (topology, reason) in [
        (
            Topology {
                backends: 0,
                ..Topology::default()
            },
            "1 to 200 backends",
        ),
        (
            Topology {
                arms: Arms::One,
                client_tags: vec![VlanTag::Customer(7)],
                ..Topology::default()
            },
            "two arms",
        ),
        (
            Topology {
                client_tags: vec![VlanTag::Customer(0)],
                ..Topology::default()
            },
            "1 to 4094",
        ),
    ] {
        let error = Lab::with("impossible", &topology).err().unwrap();
        assert!(error.to_string().contains(reason), "{error}");
    }
}

#[test]
fn two_labs_do_not_collide() {
    let labs = thread::scope(|scope| {
        let make = || scope.spawn(|| Lab::new("twin").unwrap());
        [make(), make()].map(|making| making.join().unwrap())
    });
    assert_ne!(labs[0].name(), labs[1].name());
    thread::scope(|scope| {
        for lab in &labs {
            scope.spawn(|| reaches_every_backend(lab));
        }
    });
    let [first, second] = labs;
    drop(first);
    reaches_every_backend(&second);
}

/// Every client talks to every backend, over IPv4 and IPv6, through the balancer as a router.
fn reaches_every_backend(lab: &Lab) {
    let servers = lab.serve_identity(PORT).unwrap();
    for client in lab.clients() {
        for backend in lab.backends() {
            let families: [(SocketAddr, IpAddr); 2] = [
                (backend.v4(PORT), client.ipv4().into()),
                (backend.v6(PORT), client.ipv6().into()),
            ];
            for (address, seen) in families {
                let greeting = client.exchange(address, MEGABYTE).unwrap();
                assert_eq!(greeting.server, backend.name());
                assert_eq!(greeting.peer, greeting.local);
                assert_eq!(greeting.peer.ip(), seen);
            }
        }
    }
    let clients = lab.clients().len() as u64;
    for server in &servers {
        assert_eq!(server.connections(), 2 * clients);
        assert_eq!(server.bytes(), 2 * clients * MEGABYTE);
    }
}
