//! `full-nat`: backends that have no way back to the clients.

use std::{
    collections::BTreeSet,
    io::{self, Read as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use lb_tests::lab::{Lab, Topology, wait_until};

use super::{
    PATIENCE, PORT,
    ask::Ask,
    config::{Config, FAST_TCP, Service},
    setup::{Stage, finish, hear, vip4, vip6},
};

const SNAT: &str = "10.2.0.5";
const SECOND: &str = "10.2.0.6";
const SNAT6: &str = "fd00:2::5";

/// Services `web` and `web6`, sent from addresses that the balancer has beside its own; the backends
/// have no route but to their own network.
fn stage(hint: &str) -> Stage {
    Stage::with(hint, &Topology::default(), |lab| {
        prepare(lab);
        config(lab, &[SNAT])
    })
}

fn prepare(lab: &Lab) {
    let balancer = lab.lb().netns();
    for address in [SNAT, SECOND] {
        let add = format!("address add {address}/24 dev eth1");
        balancer.ip(&add).unwrap();
    }
    let add = format!("address add {SNAT6}/64 dev eth1 nodad");
    balancer.ip(&add).unwrap();
    for backend in lab.backends() {
        backend.netns().ip("route del default").unwrap();
        backend.netns().ip("-6 route del default").unwrap();
    }
}

fn config(lab: &Lab, snat: &[&str]) -> Config {
    config_with(lab, snat, "")
}

/// With these settings besides.
fn config_with(lab: &Lab, snat: &[&str], more: &str) -> Config {
    let settings = |snat: &[&str]| format!("forwarding = \"full-nat\"\nsnat = {snat:?}\n{more}");
    Config::new([
        Service::web(lab).settings(&settings(snat)).check(FAST_TCP),
        Service::web6(lab).settings(&settings(&[SNAT6])),
    ])
}

/// The balancer's own address towards the backends, from which it probes them.
const PROBER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 2, 0, 1));

/// Whom the backends take their established connections to be from, but for probes under way.
fn sources(stage: &Stage) -> BTreeSet<SocketAddr> {
    let sources = stage.served().into_keys();
    sources.filter(|source| source.ip() != PROBER).collect()
}

fn addresses(sources: &BTreeSet<SocketAddr>) -> BTreeSet<String> {
    sources.iter().map(|s| s.ip().to_string()).collect()
}

/// S-NAT-1, S-NAT-4: a thousand connections of each family, byte for byte, over backends that only
/// know the balancer.
#[test]
fn backends_need_no_way_back_to_the_clients() {
    let stage = stage("full-nat");
    let client = stage.lab.client();
    let direct = stage.lab.backends()[0].v4(PORT);
    let attempt = client
        .netns()
        .run(|| TcpStream::connect_timeout(&direct, Duration::from_millis(300)));
    assert!(attempt.is_err(), "the backends answer the client directly");
    for vip in [vip4(), vip6()] {
        client.exchange(vip, 100_000_000).unwrap();
        assert_eq!(stage.spread(vip, 1_000).len(), 2);
    }
    let held = client.hold_many(vip4(), 200, 20).unwrap();
    assert_eq!(held.spread.failures, [""; 0]);
    let held6 = client.hold_many(vip6(), 200, 20).unwrap();
    assert_eq!(held6.spread.failures, [""; 0]);
    let sources = sources(&stage);
    assert_eq!(sources.len(), 400);
    assert_eq!(
        addresses(&sources),
        [SNAT.to_owned(), SNAT6.to_owned()].into()
    );
    assert_eq!(stage.lbd.established("web").len(), 200);
    let clients = stage.lbd.connections("web6").into_iter();
    let ipv6 = IpAddr::from(client.ipv6());
    assert!(clients.map(|c| c.client.ip()).all(|ip| ip == ipv6));
    let active = |service| stage.lbd.service(service).active_connections;
    assert_eq!((active("web"), active("web6")), (200, 200));
    assert_eq!(stage.lbd.drops(), [].into());
}

/// S-NAT-5: a backend is a client of its own service.
#[test]
fn a_backend_reaches_its_own_service() {
    let stage = stage("hairpin");
    for backend in stage.lab.backends() {
        let netns = backend.netns();
        let vip = vip4().ip();
        netns.ip(&format!("route add {vip} via 10.2.0.1")).unwrap();
        let vip = vip6().ip();
        let add = format!("-6 route add {vip} via fd00:2::1");
        netns.ip(&add).unwrap();
        for vip in [vip4(), vip6()] {
            let spread = backend.connect_many(vip, 60, 6).unwrap();
            assert_eq!(spread.failures, [""; 0]);
            // Itself and the other.
            assert_eq!(spread.by_server.len(), 2, "{spread:?}");
        }
    }
    assert_eq!(stage.lbd.drops(), [].into());
}

/// S-CT-4: while the daemon is dead and when it is back, connections go on from the ports that they
/// have, and new ones find free ports.
#[test]
fn sigkill_is_survived() {
    let mut stage = stage("full-nat-kill");
    let live = stage.talk(200);
    hear(&live, 2);
    let before = sources(&stage);
    let known = stage.lbd.established("web");
    assert_eq!((before.len(), known.len()), (200, 200));
    stage.lbd.kill9().unwrap();
    hear(&live, 3);
    stage.spread(vip4(), 100);
    stage.lbd.start_again().unwrap();
    stage.spread(vip4(), 100);
    hear(&live, 3);
    assert_eq!(sources(&stage), before);
    assert_eq!(stage.lbd.established("web"), known);
    finish(live);
    assert_eq!(stage.lbd.drops(), [].into());
}

/// S-CT-3, S-CT-4: addresses come and go, live and across a restart; no connection notices.
#[test]
fn addresses_to_send_from_may_change() {
    let mut stage = stage("full-nat-pool");
    let live = stage.talk(100);
    hear(&live, 2);
    let before = sources(&stage);
    assert_eq!(addresses(&before), [SNAT.to_owned()].into());
    let both = config(&stage.lab, &[SNAT, SECOND]).to_string();
    stage.lbd.configure(&both).unwrap();
    stage.lbd.lbctl_text(&["reload"]).unwrap();
    let more = stage.talk(100);
    hear(&more, 2);
    let now = sources(&stage);
    assert!(now.is_superset(&before));
    let both = [SNAT.to_owned(), SECOND.to_owned()];
    assert_eq!(addresses(&now), both.into());

    stage.lbd.kill9().unwrap();
    let second = config(&stage.lab, &[SECOND]).to_string();
    stage.lbd.configure(&second).unwrap();
    stage.lbd.start_again().unwrap();
    stage.lbd.lbctl_text(&["reload"]).unwrap();
    hear(&live, 3);
    hear(&more, 3);
    assert_eq!(sources(&stage), now);
    let last = stage.talk(50);
    hear(&last, 1);
    let new: BTreeSet<_> = sources(&stage).difference(&now).copied().collect();
    assert_eq!(addresses(&new), [SECOND.to_owned()].into());
    for connections in [live, more, last] {
        finish(connections);
    }
    wait_until(PATIENCE, "nothing is dropped", || {
        stage.lbd.drops().is_empty()
    });
}

/// S-CT-6: both ends of a connection that has been idle for too long are told.
#[test]
fn an_idle_connection_ends_on_both_sides() {
    let stage = Stage::with("full-nat-idle", &Topology::default(), |lab| {
        prepare(lab);
        let mut config = config_with(lab, &[SNAT], "on_expiry = \"reset\"");
        for service in &mut config.services {
            service.timeouts = "established = \"2s\"".to_owned();
        }
        config
    });
    for vip in [vip4(), vip6()] {
        let client = stage.lab.client().netns();
        let mut stream = client.run(|| TcpStream::connect(vip)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut byte = [0];
        while byte != *b"\n" {
            stream.read_exact(&mut byte).unwrap();
        }
        assert_eq!(sources(&stage).len(), 1);
        let error = stream.read(&mut byte).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        wait_until(PATIENCE, "the backend is told", || {
            sources(&stage).is_empty()
        });
    }
}
