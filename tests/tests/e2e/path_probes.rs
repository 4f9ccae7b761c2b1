//! S-DSR-3: where backends answer clients themselves, probes test the way that traffic takes, and
//! say which leg failed. The balancer has no route to the services' addresses, so that whatever
//! reaches a backend under them is the probes'.

use std::net::SocketAddr;

use lb_tests::lab::{Arms, Decap, Host, Lab, Lbd, Topology, VIP4, VIP6, output, wait_until};
use lb_userspace::{api::BackendInfo, model::Health};

use super::{
    PATIENCE, PORT,
    ask::Ask,
    config::{Backend, Config, Service},
    setup::Stage,
};

const CHECK: &str = "interval = \"100ms\"\ntimeout = \"600ms\"\nrise = 2\nfall = 3";

/// The service addresses on a backend's loopback, where no neighbour hears of them.
fn own_the_vips(backend: &Host) {
    let quiet = [
        ("ipv4/conf/all/arp_ignore", "1"),
        ("ipv4/conf/all/arp_announce", "2"),
    ];
    backend.netns().sysctl(&quiet).unwrap();
    for address in [format!("{VIP4}/32"), format!("{VIP6}/128")] {
        own(backend, &address);
    }
}

fn own(backend: &Host, address: &str) {
    let netns = backend.netns();
    netns
        .ip(&format!("address add {address} dev lo nodad"))
        .unwrap();
}

fn disown(backend: &Host, address: &str) {
    let netns = backend.netns();
    netns.ip(&format!("address del {address} dev lo")).unwrap();
}

/// Services `web` and `web6` in this mode, each with these backends.
fn services(mode: &str, backends: impl Fn(SocketAddr) -> Vec<Backend>) -> [Service; 2] {
    [("web", VIP4.into()), ("web6", VIP6.into())].map(|(name, vip)| {
        let listen = SocketAddr::new(vip, PORT);
        Service {
            backends: backends(listen),
            ..Service::new(name, listen)
                .settings(&format!("forwarding = \"{mode}\""))
                .check(CHECK)
        }
    })
}

/// Every backend of the lab, at its address of the service's family.
fn everyone(lab: &Lab, listen: SocketAddr) -> Vec<Backend> {
    let address = |host: &Host| match listen {
        SocketAddr::V4(_) => host.v4(PORT),
        SocketAddr::V6(_) => host.v6(PORT),
    };
    let hosts = lab.backends().iter();
    hosts
        .map(|host| Backend::new(host.name(), address(host)))
        .collect()
}

#[track_caller]
fn await_health(lbd: &Lbd, service: &str, name: &str, health: Health) -> BackendInfo {
    wait_until(PATIENCE, format!("{service} {name} is {health:?}"), || {
        lbd.backend(service, name).health == health
    });
    lbd.backend(service, name)
}

/// Waits for `down` and holds the last failure against what is expected.
#[track_caller]
fn await_failure(lbd: &Lbd, service: &str, name: &str, expected: &str) {
    let down = await_health(lbd, service, name, Health::Down);
    assert!(down.reason.contains(expected), "{down:?}");
}

/// A number of `/proc/net/netstat` on a host.
fn netstat(host: &Host, name: &str) -> u64 {
    let read = || std::fs::read_to_string("/proc/thread-self/net/netstat");
    let text = host.netns().run(read).unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let mut columns = names.split(' ').zip(values.split(' '));
    let (_, value) = columns.find(|(column, _)| *column == name).unwrap();
    value.parse().unwrap()
}

/// Connections that a host has answered with a SYN-ACK and not heard of again.
fn half_open(host: &Host) -> usize {
    let mut ss = host.netns().command("ss");
    let listed = output(ss.args(["-Htn", "state", "syn-recv"])).unwrap();
    listed.lines().count()
}

/// A backend that has lost the service's address would pass a check of its own address, and get
/// traffic that it cannot answer.
#[test]
fn dsr_is_down_without_the_address_on_lo() {
    let stage = Stage::with("path-dsr", &Topology::default(), |lab| {
        lab.backends().iter().for_each(own_the_vips);
        Config::new(services("dsr", |listen| everyone(lab, listen)))
    });
    let (lbd, backend) = (&stage.lbd, &stage.lab.backends()[0]);
    for name in ["backend-1", "backend-2"] {
        let up = await_health(lbd, "web", name, Health::Up);
        assert!(
            up.reason.contains("192.0.2.10:8080 through dsr answers"),
            "{up:?}"
        );
        let up = await_health(lbd, "web6", name, Health::Up);
        let said = "[2001:db8::10]:8080 through dsr answers";
        assert!(up.reason.contains(said), "{up:?}");
    }

    disown(backend, "192.0.2.10/32");
    await_failure(
        lbd,
        "web",
        "backend-1",
        "3 of 3 probes failed: 10.2.0.11:8080 answers, but 192.0.2.10:8080 through dsr does not: \
         is 192.0.2.10 on the backend's lo?",
    );
    let healthy = |service: &str, name: &str| lbd.backend(service, name).health == Health::Up;
    assert!(healthy("web", "backend-2") && healthy("web6", "backend-1"));
    own(backend, "192.0.2.10/32");
    await_health(lbd, "web", "backend-1", Health::Up);

    disown(backend, "2001:db8::10/128");
    await_failure(
        lbd,
        "web6",
        "backend-1",
        "[fd00:2::11]:8080 answers, but [2001:db8::10]:8080 through dsr does not: is 2001:db8::10",
    );
    own(backend, "2001:db8::10/128");
    await_health(lbd, "web6", "backend-1", Health::Up);

    stage.servers[0].refuse();
    await_failure(
        lbd,
        "web",
        "backend-1",
        "10.2.0.11:8080 fails (connection refused), and so does 192.0.2.10:8080 through dsr \
         (connection refused)",
    );
}

/// Each SYN of a probe is followed by a RST on the same way: no probe leaves a connection behind,
/// though the balancer's kernel has no route for a RST of its own. Nor is the server bothered.
#[test]
fn probes_leave_no_half_open_connections() {
    let stage = Stage::with("path-rst", &Topology::default(), |lab| {
        lab.backends().iter().for_each(own_the_vips);
        Config::new(services("dsr", |listen| everyone(lab, listen)))
    });
    let backend = &stage.lab.backends()[0];
    wait_until(PATIENCE, "twenty half-open connections are reset", || {
        netstat(backend, "EmbryonicRsts") >= 20
    });
    // Of each service, one may be open at the moment.
    assert!(half_open(backend) <= 2);
    assert_eq!(stage.servers[0].connections(), 0);
}

/// A backend that takes no outer headers off, of either family outside and inside.
fn assert_tests_the_tunnel(mode: &str) {
    let mut decap = None;
    let stage = Stage::with(&format!("path-{mode}"), &Topology::default(), |lab| {
        let backend = &lab.backends()[0];
        own_the_vips(backend);
        decap = Some(Decap::on(lab, backend).unwrap());
        let outer = [
            Backend::new("over4", backend.v4(PORT)),
            Backend::new("over6", backend.v6(PORT)),
        ];
        Config::new(services(mode, |_| outer.to_vec()))
    });
    let (lbd, decap) = (&stage.lbd, decap.unwrap());
    let all = ["web", "web6"].map(|service| ["over4", "over6"].map(|name| (service, name)));
    let expected = |service, name| {
        let own = match name {
            "over4" => "10.2.0.11:8080",
            _ => "[fd00:2::11]:8080",
        };
        let vip = match service {
            "web" => VIP4.to_string(),
            _ => VIP6.to_string(),
        };
        let listen = SocketAddr::new(vip.parse().unwrap(), PORT);
        format!(
            "{own} answers, but {listen} through {mode} does not: is {vip} on the backend's lo, \
             does it decapsulate, does rp_filter drop?"
        )
    };
    for (service, name) in all.concat() {
        await_failure(lbd, service, name, &expected(service, name));
    }
    decap.text(&["attach", "eth0"]).unwrap();
    for (service, name) in all.concat() {
        await_health(lbd, service, name, Health::Up);
    }
    decap.text(&["detach", "eth0"]).unwrap();
    for (service, name) in all.concat() {
        await_failure(lbd, service, name, &expected(service, name));
    }
}

#[test]
fn ipip_is_down_without_a_decapsulator() {
    assert_tests_the_tunnel("ipip");
}

#[test]
fn gue_is_down_without_a_decapsulator() {
    assert_tests_the_tunnel("gue");
}

/// HTTP is asked of the backend's own address, and the path has to answer too; here on one wire
/// with the clients, and of a balancer that has the services' addresses too and filters what comes
/// in for itself, so that its own stack drops every answer.
#[test]
fn http_needs_both_legs() {
    let topology = Topology {
        arms: Arms::One,
        ..Topology::default()
    };
    let lab = Lab::with("path-http", &topology).unwrap();
    lab.backends().iter().for_each(own_the_vips);
    own(lab.lb(), "192.0.2.10/32");
    own(lab.lb(), "2001:db8::10/128");
    let strict = [
        ("ipv4/conf/all/rp_filter", "1"),
        ("ipv4/conf/eth0/rp_filter", "1"),
    ];
    lab.lb().netns().sysctl(&strict).unwrap();
    let servers = lab.backends().iter().map(|host| host.serve_health(PORT));
    let servers: Vec<_> = servers.collect::<Result<_, _>>().unwrap();
    let check = format!("type = \"http\"\n{CHECK}");
    let services = services("dsr", |listen| everyone(&lab, listen));
    let mut config = Config::new(services.map(|service| service.check(&check)));
    config.interfaces.truncate(1);
    let lbd = Lbd::start(&lab, &config.to_string()).unwrap();
    let up = await_health(&lbd, "web", "backend-1", Health::Up);
    let said = "HTTP 200 from GET /; 192.0.2.10:8080 through dsr answers";
    assert!(up.reason.contains(said), "{up:?}");
    await_health(&lbd, "web6", "backend-1", Health::Up);

    servers[0].set_status(503);
    await_failure(
        &lbd,
        "web",
        "backend-1",
        "192.0.2.10:8080 through dsr answers, but 10.2.0.11:8080 fails: HTTP 503 from GET /",
    );
    servers[0].set_status(200);
    await_health(&lbd, "web", "backend-1", Health::Up);
    disown(&lab.backends()[0], "192.0.2.10/32");
    await_failure(
        &lbd,
        "web",
        "backend-1",
        "10.2.0.11:8080 answers, but 192.0.2.10:8080 through dsr does not",
    );
}

#[test]
fn without_a_neighbour_the_next_hop_is_the_reason() {
    let lab = Lab::new("path-nobody").unwrap();
    let nobody = Backend::new("nobody", SocketAddr::from(([10, 2, 0, 99], PORT)));
    let config = Config::new(services("ipip", |_| vec![nobody.clone()]));
    let lbd = Lbd::start(&lab, &config.to_string()).unwrap();
    let expected = "192.0.2.10:8080 through ipip (no next hop: no neighbour answers for 10.2.0.99 \
                    on eth1)";
    await_failure(&lbd, "web", "nobody", expected);
    await_failure(&lbd, "web", "nobody", "10.2.0.99:8080 fails (");
}
