//! `dsr`, `ipip` and `gue` with backends that are set up as an operator would: they answer the
//! client past the balancer.

use std::{
    io::{ErrorKind, Read as _},
    net::{IpAddr, SocketAddr, TcpStream},
};

use lb_tests::lab::{Arms, Decap, Host, Lab, Topology, VIP4, VIP6};

use super::{
    PATIENCE,
    ask::Ask,
    config::{Backend, Config, Service},
    setup::{Stage, finish, hear},
};

/// Of the services and, as these modes cannot change it, of the servers.
const PORT: u16 = super::PORT;

/// Clients and backends share a wire, so that there is a way past the balancer.
fn topology() -> Topology {
    Topology {
        arms: Arms::One,
        ..Topology::default()
    }
}

fn vips() -> [SocketAddr; 2] {
    [
        SocketAddr::new(VIP4.into(), PORT),
        SocketAddr::new(VIP6.into(), PORT),
    ]
}

/// The service addresses on a backend's loopback, where no neighbour hears of them.
fn own_the_vips(backend: &Host) {
    let netns = backend.netns();
    netns
        .sysctl(&[
            ("ipv4/conf/all/arp_ignore", "1"),
            ("ipv4/conf/all/arp_announce", "2"),
        ])
        .unwrap();
    netns.ip(&format!("address add {VIP4}/32 dev lo")).unwrap();
    netns
        .ip(&format!("address add {VIP6}/128 dev lo nodad"))
        .unwrap();
}

/// The way to the clients that leads past the balancer.
fn answer_straight(backend: &Host) {
    for route in [
        "route add 10.1.0.0/24 dev eth0",
        "-6 route add fd00:1::/64 dev eth0",
    ] {
        backend.netns().ip(route).unwrap();
    }
}

/// And back: who is asked for a neighbour's address must know where the asker is.
fn hear_straight(client: &Host) {
    for route in [
        "route add 10.2.0.0/24 dev eth0",
        "-6 route add fd00:2::/64 dev eth0",
    ] {
        client.netns().ip(route).unwrap();
    }
}

/// Both services in one mode; `outer` is the address of a backend that packets for a service go to.
fn config(lab: &Lab, forwarding: &str, outer: impl Fn(&Host, SocketAddr) -> IpAddr) -> Config {
    let services = ["web", "web6"].into_iter().zip(vips()).map(|(name, vip)| {
        let hosts = lab.backends().iter();
        let backends =
            hosts.map(|host| Backend::new(host.name(), SocketAddr::new(outer(host, vip), PORT)));
        Service {
            backends: backends.collect(),
            ..Service::new(name, vip).settings(&format!("forwarding = \"{forwarding}\""))
        }
    });
    let mut config = Config::new(services);
    config.interfaces.truncate(1);
    config
}

/// Packets that the balancer's kernel has routed, of both families.
fn routed(lab: &Lab) -> u64 {
    let value = |table: &str, row: &str| -> u64 {
        let text = lab
            .lb()
            .netns()
            .run(|| std::fs::read_to_string(table))
            .unwrap();
        if row == "Ip6OutForwDatagrams" {
            let line = text.lines().find(|line| line.starts_with(row)).unwrap();
            return line.split_whitespace().last().unwrap().parse().unwrap();
        }
        let mut ip = text.lines().filter(|line| line.starts_with("Ip:"));
        let (names, values) = (ip.next().unwrap(), ip.next().unwrap());
        let column = names
            .split_whitespace()
            .position(|name| name == row)
            .unwrap();
        values
            .split_whitespace()
            .nth(column)
            .unwrap()
            .parse()
            .unwrap()
    };
    value("/proc/thread-self/net/snmp", "ForwDatagrams")
        + value("/proc/thread-self/net/snmp6", "Ip6OutForwDatagrams")
}

/// Same family outside as inside.
fn same(host: &Host, vip: SocketAddr) -> IpAddr {
    match vip {
        SocketAddr::V4(_) => host.ipv4().into(),
        SocketAddr::V6(_) => host.ipv6().into(),
    }
}

/// Connections reach every backend, and no reply comes through the balancer.
fn assert_balances_one_way(stage: &Stage, mode: &str) {
    let before = routed(&stage.lab);
    for vip in vips() {
        let live = stage.lab.client().live_connections(vip, 20).unwrap();
        assert_eq!(stage.spread(vip, 200).len(), 2, "{mode} {vip}");
        let greeting = stage.lab.client().exchange(vip, 300_000).unwrap();
        // The backend sees the client's own address.
        assert_eq!(greeting.peer, greeting.local, "{mode} {vip}");
        hear(&live, 3);
        finish(live);
    }
    assert_eq!(routed(&stage.lab), before, "{mode}: replies went straight");
    for service in ["web", "web6"] {
        for backend in stage.lbd.backends(service) {
            let traffic = backend.counters;
            assert!(traffic.connections > 50, "{mode} {backend:?}");
            assert_eq!(traffic.packets_out, 0, "{mode} {backend:?}");
        }
    }
}

/// S-DSR-3's other half: a backend with the service's address on its loopback, silent about it
/// (arp_ignore, arp_announce), answers the client itself.
#[test]
fn dsr_answers_straight() {
    let stage = Stage::with("dsr", &topology(), |lab| {
        lab.backends().iter().for_each(own_the_vips);
        lab.backends().iter().for_each(answer_straight);
        hear_straight(lab.client());
        config(lab, "dsr", same)
    });
    assert_balances_one_way(&stage, "dsr");
    for vip in vips() {
        stage.lab.client().exchange(vip, 100_000_000).unwrap();
    }
    assert_eq!(stage.lbd.drops(), Default::default());
}

/// S-CT-6: the client of an expired connection is told, though the balancer sees its direction only.
#[test]
fn dsr_clients_of_expired_connections_are_told() {
    let stage = Stage::with("dsr-expiry", &topology(), |lab| {
        lab.backends().iter().for_each(own_the_vips);
        lab.backends().iter().for_each(answer_straight);
        hear_straight(lab.client());
        let mut config = config(lab, "dsr", same);
        for service in &mut config.services {
            service.settings += "\non_expiry = \"reset\"";
            service.timeouts = "established = \"2s\"".to_owned();
        }
        config
    });
    let client = stage.lab.client().netns();
    for vip in vips() {
        let mut stream = client.run(|| TcpStream::connect(vip)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // The greeting, and then nothing.
        let read = stream.read_to_end(&mut Vec::new());
        assert_eq!(read.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    let open: u64 = stage.servers.iter().map(|server| server.open()).sum();
    assert_eq!(open, 2, "the backends are not told");
}

/// A 100 MB transfer arrives intact though the path has no room for outer headers, which the client
/// learns from "too big" (S-ICMP-5): all four combinations of families, with `lb-decap` on the
/// backends.
fn assert_transfers_through(forwarding: &str, outer: fn(&Host, SocketAddr) -> IpAddr) {
    let mut decaps = Vec::new();
    let stage = Stage::with(forwarding, &topology(), |lab| {
        for backend in lab.backends() {
            own_the_vips(backend);
            answer_straight(backend);
            let decap = Decap::on(lab, backend).unwrap();
            decap.text(&["attach", "eth0"]).unwrap();
            decaps.push(decap);
        }
        hear_straight(lab.client());
        config(lab, forwarding, outer)
    });
    assert_balances_one_way(&stage, forwarding);
    for vip in vips() {
        stage.lab.client().exchange(vip, 100_000_000).unwrap();
    }
    // Nothing but what was too big at first was refused.
    let drops = stage.lbd.drops();
    assert!(drops.keys().all(|reason| reason == "too_big"), "{drops:?}");
    assert!(drops.contains_key("too_big"), "{drops:?}");
}

fn v4(host: &Host, _vip: SocketAddr) -> IpAddr {
    host.ipv4().into()
}

fn v6(host: &Host, _vip: SocketAddr) -> IpAddr {
    host.ipv6().into()
}

/// S-ICMP-5, S-DSR-2
#[test]
fn ipip_over_ipv4_carries_full_size_packets_of_both_families() {
    assert_transfers_through("ipip", v4);
}

/// S-ICMP-5, S-DSR-2
#[test]
fn ipip_over_ipv6_carries_full_size_packets_of_both_families() {
    assert_transfers_through("ipip", v6);
}

/// S-ICMP-5, S-DSR-2
#[test]
fn gue_over_ipv4_carries_full_size_packets_of_both_families() {
    assert_transfers_through("gue", v4);
}

/// S-ICMP-5, S-DSR-2
#[test]
fn gue_over_ipv6_carries_full_size_packets_of_both_families() {
    assert_transfers_through("gue", v6);
}
