//! Echo requests, and path MTU discovery through the balancer.

use std::net::SocketAddr;

use lb_common::reason::Reason;
use lb_tests::lab::{Host, Lbd, Topology, VIP4, VIP6};
use lb_userspace::api::{ReasonInfo, StatsInfo};

use super::{
    PORT,
    ask::Ask,
    config::{Backend, Config, Service},
    setup::{Stage, vip4, vip6},
};

/// A whole megabyte each way, in hundreds of full packets.
const MEGABYTE: u64 = 1 << 20;
/// Of a link somewhere on the way; the least that IPv6 allows.
const MTU: u16 = 1280;

fn both_families(hint: &str, backends: u8) -> Stage {
    let topology = Topology {
        backends,
        ..Topology::default()
    };
    Stage::with(hint, &topology, |lab| {
        Config::new([Service::web(lab), Service::web6(lab)])
    })
}

/// Packets of this reason, of all services and of none.
fn counted(lbd: &Lbd, reason: Reason) -> u64 {
    let stats: StatsInfo = lbd.json(&["stats"]);
    let of_services = stats.services.into_iter().flat_map(|s| s.reasons);
    let wanted = |info: &ReasonInfo| info.reason == reason.name();
    let all = of_services.chain(stats.reasons).filter(wanted);
    all.map(|info| info.packets).sum()
}

/// What a host has learned of the path to an address.
fn learned_mtu(host: &Host, to: SocketAddr) -> Option<u16> {
    let family = if to.is_ipv4() { "-4" } else { "-6" };
    let route = host
        .netns()
        .ip(&format!("{family} route get {}", to.ip()))
        .unwrap();
    let mut words = route.split_whitespace().skip_while(|word| *word != "mtu");
    words.nth(1).map(|mtu| mtu.parse().unwrap())
}

/// Without this a host whose packets vanish tries smaller ones of its own accord (RFC 4821).
fn forbid_probing(host: &Host) {
    host.netns()
        .sysctl(&[("ipv4/tcp_mtu_probing", "0")])
        .unwrap();
}

/// S-ICMP-4: addresses that no host has are answered for; the host's own are the host's.
#[test]
fn echo_requests_to_a_service_are_answered() {
    let stage = both_families("echo", 1);
    let client = stage.lab.client();
    client.ping(VIP4.into()).unwrap();
    client.ping(VIP6.into()).unwrap();
    assert_eq!(counted(&stage.lbd, Reason::EchoAnswered), 2);
    client.ping(stage.lab.lb().ipv4().into()).unwrap();
    client.ping(stage.lab.lb().ipv6().into()).unwrap();
    assert_eq!(counted(&stage.lbd, Reason::EchoAnswered), 2);
}

/// S-ICMP-4: or the host has the address, and answers for itself.
#[test]
fn echo_requests_are_left_to_the_host_if_that_is_set() {
    let stage = both_families("echo-pass", 1);
    let passing = format!(
        "{}\n[icmp]\necho = \"pass\"\n",
        Config::new([Service::web(&stage.lab), Service::web6(&stage.lab)])
    );
    let Stage { lab, lbd, .. } = stage;
    drop(lbd);
    let lb = lab.lb().netns();
    lb.ip(&format!("address add {VIP4}/32 dev lo")).unwrap();
    lb.ip(&format!("address add {VIP6}/128 dev lo nodad"))
        .unwrap();
    let lbd = Lbd::start(&lab, &passing).unwrap();
    lab.client().ping(VIP4.into()).unwrap();
    lab.client().ping(VIP6.into()).unwrap();
    assert_eq!(counted(&lbd, Reason::EchoAnswered), 0);
}

/// S-ICMP-1, S-ICMP-2: a router on the way to the client says that a packet of the backend, which it
/// knows by the service's address, is too big. The backend that sent it learns so, and no other.
#[test]
fn backends_learn_the_path_mtu_to_a_client() {
    let stage = both_families("pmtu-client", 2);
    let backends = stage.lab.backends();
    backends.iter().for_each(forbid_probing);
    let far = stage.lab.host_behind(stage.lab.client(), MTU).unwrap();
    for (vip, to) in [(vip4(), far.v4(0)), (vip6(), far.v6(0))] {
        let before = counted(&stage.lbd, Reason::IcmpTranslated);
        let greeting = far.exchange(vip, MEGABYTE).unwrap();
        assert!(counted(&stage.lbd, Reason::IcmpTranslated) > before);
        for backend in backends {
            let expected = (backend.name() == greeting.server).then_some(MTU);
            assert_eq!(learned_mtu(backend, to), expected, "{backend}");
        }
        // Now that it is known, nobody has to say it again.
        let before = counted(&stage.lbd, Reason::IcmpTranslated);
        let again = far.exchange(vip, MEGABYTE).unwrap();
        if again.server == greeting.server {
            assert_eq!(counted(&stage.lbd, Reason::IcmpTranslated), before);
        }
    }
}

/// S-ICMP-1: a router on the way to the backend says so of a packet of the client, which it knows by
/// the backend's address. The client learns it of the service's.
#[test]
fn clients_learn_the_path_mtu_to_a_backend() {
    let stage = both_families("pmtu-backend", 1);
    let client = stage.lab.client();
    forbid_probing(client);
    let router = &stage.lab.backends()[0];
    let far = stage.lab.host_behind(router, MTU).unwrap();
    let _server = far.serve_identity(PORT).unwrap();
    let mut config = Config::new([Service::web(&stage.lab), Service::web6(&stage.lab)]);
    config.services[0].backends = vec![Backend::new("far", far.v4(PORT))];
    config.services[1].backends = vec![Backend::new("far", far.v6(PORT))];
    stage.lbd.configure(&config.to_string()).unwrap();
    let _: serde_json::Value = stage.lbd.json(&["reload"]);
    stage.await_next_hops();
    for vip in [vip4(), vip6()] {
        let before = counted(&stage.lbd, Reason::IcmpTranslated);
        let greeting = stage.lab.client().exchange(vip, MEGABYTE).unwrap();
        assert_eq!(greeting.server, "far");
        assert!(counted(&stage.lbd, Reason::IcmpTranslated) > before);
        assert_eq!(learned_mtu(stage.lab.client(), vip), Some(MTU));
    }
}
