//! What clients are told whose connection no backend can take, and what operators are told of it.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use lb_tests::lab::{Host, Topology, VIP4, VIP6};
use lb_userspace::api::DropInfo;
use tokio::{net::TcpSocket, runtime, time::timeout};

use super::{
    PATIENCE,
    ask::Ask,
    config::{Config, Service},
    setup::Stage,
};

/// Ports of services without a backend, by what they answer.
const RST: u16 = 80;
const ICMP: u16 = 81;
const DROP: u16 = 82;

fn services() -> impl Iterator<Item = Service> {
    let ports = [("rst", RST), ("icmp", ICMP), ("drop", DROP)];
    let addresses: [(&str, IpAddr); 2] = [("4", VIP4.into()), ("6", VIP6.into())];
    addresses.into_iter().flat_map(move |(family, address)| {
        ports.map(|(answer, port)| {
            Service::new(&format!("{answer}{family}"), (address, port).into())
                .settings(&format!("no_backend = \"{answer}\""))
        })
    })
}

fn stage(hint: &str) -> Stage {
    Stage::with(hint, &Topology::default(), |_| Config::new(services()))
}

/// How an attempt to connect has ended, and from which port it was made.
struct Attempt {
    from: SocketAddr,
    /// `None`: not within the time given.
    error: Option<io::ErrorKind>,
}

fn attempt(client: &Host, to: SocketAddr, patience: Duration) -> Attempt {
    let from: SocketAddr = match to {
        SocketAddr::V4(_) => client.v4(0),
        SocketAddr::V6(_) => client.v6(0),
    };
    client.netns().run(|| {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let socket = match to {
                SocketAddr::V4(_) => TcpSocket::new_v4().unwrap(),
                SocketAddr::V6(_) => TcpSocket::new_v6().unwrap(),
            };
            socket.bind(from).unwrap();
            let from = socket.local_addr().unwrap();
            let outcome = timeout(patience, socket.connect(to)).await;
            Attempt {
                from,
                error: outcome.ok().map(|connected| {
                    let error = connected.expect_err("there is nobody to connect to");
                    error.kind()
                }),
            }
        })
    })
}

fn vips(port: u16) -> [SocketAddr; 2] {
    [(VIP4, port).into(), (VIP6, port).into()]
}

/// What `lbctl stats drops` says of this service's refusals for want of a backend.
fn no_backend(stage: &Stage, service: &str) -> DropInfo {
    let drops: Vec<DropInfo> = stage.lbd.json(&["stats", "drops"]);
    let of_service = drops.into_iter().find(|drop| {
        let named = drop.service.as_ref().is_some_and(|s| s.as_str() == service);
        named && drop.reason.reason == "no_backend"
    });
    of_service.unwrap_or_else(|| panic!("nothing is said of {service}"))
}

/// The newest sample is of this attempt.
#[track_caller]
fn assert_sampled(drop: &DropInfo, from: SocketAddr, to: SocketAddr) {
    let sample = &drop.samples[0];
    assert_eq!(sample.source, from.to_string());
    assert_eq!(sample.destination, to.to_string());
    assert_eq!(sample.interface, "eth0");
    let oldest = PATIENCE.as_secs_f64();
    assert!((0.0..oldest).contains(&sample.age_s), "{}", sample.age_s);
}

/// S-CT-7: a reset by default, port unreachable if that is wanted, each for the first SYN; and
/// `lbctl stats drops` names who was refused.
#[test]
fn a_client_without_a_backend_is_told_at_once() {
    let stage = stage("told");
    let client = stage.lab.client();
    for (answer, port) in [("rst", RST), ("icmp", ICMP)] {
        for (family, to) in ["4", "6"].into_iter().zip(vips(port)) {
            let name = format!("{answer}{family}");
            let attempt = attempt(client, to, PATIENCE);
            assert_eq!(
                attempt.error,
                Some(io::ErrorKind::ConnectionRefused),
                "{name}"
            );
            let drop = no_backend(&stage, &name);
            assert!(drop.reason.dropped);
            assert_sampled(&drop, attempt.from, to);
            // Linux takes no notice of an ICMP error while connect() still holds the socket, and
            // here the answer may come that fast; it then heeds that for the second SYN.
            let syns = drop.reason.packets;
            assert!(syns == 1 || answer == "icmp" && syns == 2, "{name}: {syns}");
            assert_eq!(drop.samples.len() as u64, syns);
            let detail = stage.lbd.service_detail(&name);
            let sent = detail.reasons.iter().find(|r| !r.dropped).unwrap();
            let expected = format!("{answer}_sent");
            assert_eq!((&sent.reason, sent.packets), (&expected, syns));
        }
    }
    let text = stage.lbd.lbctl_text(&["stats", "drops"]).unwrap();
    let place = format!("→ {}", vips(ICMP)[0]);
    assert!(text.contains(&place) && text.contains("s ago"), "{text}");
}

/// S-CT-7: silence, where that is wanted.
#[test]
fn a_service_may_leave_clients_without_an_answer() {
    let stage = stage("silence");
    for (name, to) in ["drop4", "drop6"].into_iter().zip(vips(DROP)) {
        // Two SYNs are sent in this time, at 0 s and at 1 s.
        let attempt = attempt(stage.lab.client(), to, Duration::from_millis(1500));
        assert_eq!(attempt.error, None, "{name}");
        let drop = no_backend(&stage, name);
        assert_eq!(drop.reason.packets, 2, "{name}");
        assert_sampled(&drop, attempt.from, to);
    }
}

/// What is refused while no daemon runs is answered, and told by the next one.
#[test]
fn refusals_without_a_daemon_are_told_by_the_next() {
    let mut stage = stage("next-daemon");
    let to = vips(RST)[0];
    for kill in [false, true] {
        if kill {
            stage.lbd.kill9().unwrap();
        } else {
            stage.lbd.terminate().unwrap();
        }
        let attempt = attempt(stage.lab.client(), to, PATIENCE);
        assert_eq!(attempt.error, Some(io::ErrorKind::ConnectionRefused));
        stage.lbd.start_again().unwrap();
        assert_sampled(&no_backend(&stage, "rst4"), attempt.from, to);
    }
}

/// Of each reason the last eight packets are kept, the newest first.
#[test]
fn the_last_few_refusals_are_kept() {
    let stage = stage("last-few");
    let to = vips(RST)[0];
    let attempts: Vec<_> = (0..12)
        .map(|n| {
            // The program leaves eight samples a tick and CPU: not all twelve in one.
            if n == 6 {
                std::thread::sleep(Duration::from_millis(1100));
            }
            attempt(stage.lab.client(), to, PATIENCE).from.to_string()
        })
        .collect();
    let drop = no_backend(&stage, "rst4");
    assert_eq!(drop.reason.packets, 12);
    let sampled = drop.samples.iter().map(|sample| sample.source.clone());
    let last = attempts.iter().rev().take(8).cloned();
    assert_eq!(sampled.collect::<Vec<_>>(), last.collect::<Vec<_>>());
}
