//! What is not ours passes untouched while the program is attached (S-FWD-7).

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

use lb_tests::lab::{IdentityServer, Topology};
use lb_userspace::api::ServiceInfo;

use super::{
    PORT,
    ask::Ask,
    config::{Config, Service},
    setup::{Stage, finish, hear},
};

/// S-FWD-7: ssh to the balancer, ping of it and through it, clients that reach a backend at its
/// own address, routed by this host; all beside balanced connections with the same backends.
#[test]
fn traffic_that_is_not_ours_passes() {
    let stage = Stage::with("bystanders", &Topology::default(), |lab| {
        Config::new([Service::web(lab), Service::web6(lab)])
    });
    let (client, lb) = (stage.lab.client(), stage.lab.lb());
    let backend = &stage.lab.backends()[0];
    let _ssh = IdentityServer::start("lb", lb.netns(), 22).unwrap();
    let live = stage.talk(30);
    hear(&live, 1);

    for to in [lb.v4(22), lb.v6(22)] {
        assert_eq!(client.exchange(to, 200_000).unwrap().server, "lb");
    }
    let addresses: [IpAddr; 4] = [
        lb.ipv4().into(),
        lb.ipv6().into(),
        backend.ipv4().into(),
        backend.ipv6().into(),
    ];
    for to in addresses {
        client.ping(to).unwrap();
    }
    // The backend's own address and the service's port: replies must not be rewritten.
    for to in [backend.v4(PORT), backend.v6(PORT)] {
        let greeting = client.exchange(to, 200_000).unwrap();
        assert_eq!(greeting.peer, greeting.local);
        let spread = client.connect_many(to, 200, 20).unwrap();
        assert_eq!((spread.connected(), spread.failures), (200, Vec::new()));
    }
    // From a backend outwards, too: to a server of the client, and to the balancer.
    let _server = client.serve_identity(9090).unwrap();
    for to in [client.v4(9090), client.v6(9090), lb.v4(22)] {
        backend.exchange(to, 200_000).unwrap();
    }

    hear(&live, 1);
    finish(live);
    let services: Vec<ServiceInfo> = stage.lbd.json(&["service", "list"]);
    let connections = services.iter().map(|s| s.counters.traffic.connections);
    assert_eq!(connections.collect::<Vec<_>>(), [30, 0]);
    assert_eq!(stage.lbd.drops(), BTreeMap::new());
}

/// A port of the virtual address that no service listens on is the host's own affair.
#[test]
fn another_port_of_a_service_s_address_is_the_host_s() {
    let stage = Stage::new("other-port", 1);
    let lb = stage.lab.lb().netns();
    lb.ip("address add 192.0.2.10/32 dev lo").unwrap();
    let _server = IdentityServer::start("lb", lb, 81).unwrap();
    let client = stage.lab.client();
    let other: SocketAddr = "192.0.2.10:81".parse().unwrap();
    assert_eq!(client.exchange(other, 100_000).unwrap().server, "lb");
    client.ping(other.ip()).unwrap();
    let closed: SocketAddr = "192.0.2.10:82".parse().unwrap();
    let attempt = client
        .netns()
        .run(|| TcpStream::connect_timeout(&closed, Duration::from_secs(5)).map(drop));
    assert_eq!(
        attempt.unwrap_err().kind(),
        io::ErrorKind::ConnectionRefused
    );
}
