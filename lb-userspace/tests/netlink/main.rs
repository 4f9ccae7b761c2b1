//! Next hops in real network namespaces: the kernel's routes, interfaces and neighbours change, and
//! the resolver says so. Needs root.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod lab;

use std::thread;

use lab::{
    BALANCER_MAC, DEADLINE, Lab, OTHER_MAC, PEER_MAC, enter, has_mac, ip, ip_command, mac, set,
    wait_until,
};
use lb_userspace::{
    model::{NextHop, Unresolved, VlanTag},
    netlink,
};
use tokio::sync::watch;

#[test]
fn neighbour_on_the_link() {
    let Some(lab) = Lab::new() else { return };
    lab.balancer("link set eth0 mtu 1420");
    let resolver = lab.resolver(["10.0.0.2", "10.0.0.1"]);
    resolver.expect("10.0.0.1", Err(local("10.0.0.1")));
    assert_eq!(
        resolver.expect_next_hop("10.0.0.2"),
        NextHop {
            ifindex: lab.balancer_ifindex("eth0"),
            interface: "eth0".into(),
            source_mac: mac(BALANCER_MAC),
            destination_mac: mac(PEER_MAC),
            vlan: vec![],
            mtu: 1420,
        }
    );
}

#[test]
fn neighbours_and_routes_of_ipv6() {
    let Some(lab) = Lab::new() else { return };
    let resolver = lab.resolver(["fd00::1", "fd00::2", "fd00:9::9"]);
    resolver.expect("fd00::1", Err(local("fd00::1")));
    resolver.expect("fd00:9::9", Err(no_route("fd00:9::9")));
    let next_hop = resolver.expect_next_hop("fd00::2");
    assert_eq!(next_hop.destination_mac, mac(PEER_MAC));
    assert_eq!(next_hop.source_mac, mac(BALANCER_MAC));

    lab.balancer("route add fd00:9::/64 via fd00::2 mtu 1300");
    let next_hop = resolver.expect_next_hop("fd00:9::9");
    assert_eq!(
        (next_hop.destination_mac, next_hop.mtu),
        (mac(PEER_MAC), 1300)
    );
    for kind in ["blackhole", "unreachable", "prohibit"] {
        lab.balancer(&format!("-6 route add {kind} fd00:9::9/128"));
        resolver.expect("fd00:9::9", Err(no_route("fd00:9::9")));
        lab.balancer(&format!("-6 route del {kind} fd00:9::9/128"));
        resolver.expect_next_hop("fd00:9::9");
    }
    lab.balancer("route del fd00:9::/64");
    resolver.expect("fd00:9::9", Err(no_route("fd00:9::9")));
}

#[test]
fn routes_come_and_go() {
    let Some(lab) = Lab::new() else { return };
    let resolver = lab.resolver(["10.9.0.9"]);
    resolver.expect("10.9.0.9", Err(no_route("10.9.0.9")));

    lab.balancer("route add 10.9.0.0/24 via 10.0.0.2 mtu 1400");
    let next_hop = resolver.expect_next_hop("10.9.0.9");
    assert_eq!(
        (next_hop.destination_mac, next_hop.mtu),
        (mac(PEER_MAC), 1400)
    );
    for kind in ["blackhole", "unreachable", "prohibit"] {
        lab.balancer(&format!("route add {kind} 10.9.0.9/32"));
        resolver.expect("10.9.0.9", Err(no_route("10.9.0.9")));
        lab.balancer(&format!("route del {kind} 10.9.0.9/32"));
        resolver.expect_next_hop("10.9.0.9");
    }
    lab.balancer("route del 10.9.0.0/24");
    resolver.expect("10.9.0.9", Err(no_route("10.9.0.9")));

    lab.balancer("route add 10.9.0.0/24 via inet6 fd00::2");
    let next_hop = resolver.expect_next_hop("10.9.0.9");
    assert_eq!(
        (next_hop.destination_mac, next_hop.mtu),
        (mac(PEER_MAC), 1500)
    );
    lab.balancer("address add 10.9.0.9/32 dev eth0");
    resolver.expect("10.9.0.9", Err(local("10.9.0.9")));
}

#[test]
fn a_rule_can_change_the_route() {
    let Some(lab) = Lab::new() else { return };
    lab.balancer("route add 10.9.0.0/24 via 10.0.0.2 table 77");
    let resolver = lab.resolver(["10.9.0.9"]);
    resolver.expect("10.9.0.9", Err(no_route("10.9.0.9")));
    lab.balancer("rule add to 10.9.0.0/24 table 77");
    resolver.expect_next_hop("10.9.0.9");
}

#[test]
fn a_neighbour_entry_changes() {
    let Some(lab) = Lab::new() else { return };
    let resolver = lab.resolver(["10.0.0.2"]);
    resolver.expect_next_hop("10.0.0.2");
    lab.balancer(&format!(
        "neighbour replace 10.0.0.2 lladdr {OTHER_MAC} nud reachable dev eth0"
    ));
    resolver.expect_mac("10.0.0.2", OTHER_MAC);
    // Nothing else sends there: the kernel finds the right address again because it is asked to.
    lab.balancer("neighbour change 10.0.0.2 nud failed dev eth0");
    resolver.expect_mac("10.0.0.2", PEER_MAC);
}

#[test]
fn a_backend_that_stops_answering_has_no_next_hop() {
    let Some(lab) = Lab::new() else { return };
    let resolver = lab.resolver(["10.0.0.2"]);
    resolver.expect_next_hop("10.0.0.2");
    lab.peer("address del 10.0.0.2/24 dev eth0");
    lab.balancer("neighbour change 10.0.0.2 nud probe dev eth0");
    resolver.expect("10.0.0.2", Err(no_neighbour("10.0.0.2")));
}

/// The kernel is made to probe here; without that it does when it is asked to confirm the entry.
#[test]
fn a_backend_that_moved_to_another_mac_is_found() {
    let Some(lab) = Lab::new() else { return };
    let resolver = lab.resolver(["10.0.0.2", "fd00::2"]);
    for address in ["10.0.0.2", "fd00::2"] {
        resolver.expect_next_hop(address);
    }
    lab.peer(&format!("link set eth0 address {OTHER_MAC}"));
    for address in ["10.0.0.2", "fd00::2"] {
        lab.balancer(&format!("neighbour change {address} nud probe dev eth0"));
        resolver.expect_mac(address, OTHER_MAC);
    }
}

#[test]
fn a_backend_that_appears_late_is_found() {
    let Some(lab) = Lab::new() else { return };
    let resolver = lab.resolver(["10.0.0.3"]);
    resolver.expect("10.0.0.3", Err(no_neighbour("10.0.0.3")));
    // The kernel has given up, so only being asked again can make it find the address.
    wait_until("the neighbour has failed", || {
        let entry = lab.balancer("neighbour show 10.0.0.3 dev eth0");
        entry.contains("FAILED")
    });
    lab.peer("address add 10.0.0.3/24 dev eth0");
    resolver.expect_mac("10.0.0.3", PEER_MAC);
}

#[test]
fn links_go_down_and_up() {
    let Some(lab) = Lab::new() else { return };
    let resolver = lab.resolver(["10.0.0.2"]);
    resolver.expect_next_hop("10.0.0.2");
    lab.peer("link set eth0 down");
    resolver.expect("10.0.0.2", Err(Unresolved::InterfaceDown("eth0".into())));
    lab.peer("link set eth0 up");
    resolver.expect_next_hop("10.0.0.2");

    // The routes of an interface that is set down vanish without a notification of their own.
    lab.balancer("link set eth0 down");
    resolver.expect("10.0.0.2", Err(no_route("10.0.0.2")));
    lab.balancer("link set eth0 up");
    resolver.expect_next_hop("10.0.0.2");
}

#[test]
fn the_balancers_own_mac_changes() {
    let Some(lab) = Lab::new() else { return };
    let resolver = lab.resolver(["10.0.0.2"]);
    resolver.expect_next_hop("10.0.0.2");
    lab.balancer(&format!("link set eth0 address {OTHER_MAC}"));
    let next_hop = resolver.wait_for(
        "10.0.0.2",
        |r| matches!(r, Ok(next_hop) if next_hop.source_mac == mac(OTHER_MAC)),
    );
    assert!(has_mac(&next_hop, PEER_MAC), "{next_hop:?}");
}

#[test]
fn addresses_are_added_and_forgotten() {
    let Some(lab) = Lab::new() else { return };
    let resolver = lab.resolver([]);
    resolver.want(["10.0.0.2"]);
    resolver.expect_next_hop("10.0.0.2");
    resolver.want(["fd00::2"]);
    // Being told of this one shows that the other's absence has been noticed.
    resolver.expect_next_hop("fd00::2");
    resolver.want(["10.0.0.2", "fd00::2"]);
    resolver.expect_next_hop("10.0.0.2");
}

#[test]
fn a_storm_of_notifications_neither_hides_a_change_nor_makes_one_up() {
    let Some(lab) = Lab::new() else { return };
    let resolver = lab.resolver(["10.0.0.2"]);
    resolver.expect_next_hop("10.0.0.2");
    let routes = (1000..4000).map(|table| format!("route add 10.0.0.2/32 dev eth0 table {table}"));
    lab.balancer_batch(routes);
    lab.balancer(&format!(
        "neighbour replace 10.0.0.2 lladdr {OTHER_MAC} nud permanent dev eth0"
    ));
    let (address, resolution) = resolver.found.recv_timeout(DEADLINE).unwrap();
    assert_eq!(address, ip("10.0.0.2"));
    assert!(has_mac(&resolution, OTHER_MAC), "{resolution:?}");
}

/// More notifications than a socket holds come while nobody reads them; the one that matters is
/// among those lost.
#[test]
fn lost_notifications_are_made_up_for() {
    let Some(lab) = Lab::new() else { return };
    let followed = || {
        enter(&lab.balancer).block_on(async {
            let (_wanted, wanted) = watch::channel(set(["10.0.0.2"]));
            let (sender, mut found) = tokio::sync::mpsc::channel(1);
            netlink::spawn(wanted, sender).unwrap();
            let mut until = async |destination| {
                while !has_mac(&found.recv().await.unwrap().1, destination) {}
            };
            tokio::time::timeout(DEADLINE, until(PEER_MAC))
                .await
                .unwrap();
            // This blocks the only thread that could read.
            lab.balancer_batch((0..3000).map(|i| {
                let (high, low) = (i / 250, i % 250);
                format!("route add 10.1.{high}.{low}/32 dev eth0")
            }));
            lab.balancer(&format!(
                "neighbour replace 10.0.0.2 lladdr {OTHER_MAC} nud permanent dev eth0"
            ));
            tokio::time::timeout(DEADLINE, until(OTHER_MAC))
                .await
                .unwrap();
        })
    };
    thread::scope(|scope| scope.spawn(followed).join().unwrap());
}

#[test]
fn vlan_device() {
    let Some(lab) = Lab::new() else { return };
    let add = "link add link eth0 name eth0.5 type vlan id 5";
    if !ip_command(&format!("-n {} {add}", lab.balancer))
        .status
        .success()
    {
        eprintln!("skipped: this kernel has no VLAN devices");
        return;
    }
    lab.balancer("link set eth0.5 address 02:00:00:00:05:01 mtu 1496 up");
    lab.balancer("address add 10.5.0.1/24 dev eth0.5");
    lab.peer(add);
    lab.peer("link set eth0.5 address 02:00:00:00:05:02 up");
    lab.peer("address add 10.5.0.2/24 dev eth0.5");
    let resolver = lab.resolver(["10.5.0.2"]);
    assert_eq!(
        resolver.expect_next_hop("10.5.0.2"),
        NextHop {
            ifindex: lab.balancer_ifindex("eth0"),
            interface: "eth0".into(),
            source_mac: mac("02:00:00:00:05:01"),
            destination_mac: mac("02:00:00:00:05:02"),
            vlan: vec![VlanTag {
                tpid: 0x8100,
                tci: 5
            }],
            mtu: 1496,
        }
    );
}

fn local(address: &str) -> Unresolved {
    Unresolved::Local {
        address: ip(address),
    }
}

fn no_route(address: &str) -> Unresolved {
    Unresolved::NoRoute(ip(address))
}

fn no_neighbour(address: &str) -> Unresolved {
    Unresolved::NoNeighbour {
        address: ip(address),
        interface: "eth0".into(),
    }
}
