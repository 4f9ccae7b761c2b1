//! Probes find out who is up, say why, and move new connections only.

use lb_tests::lab::{Lab, Lbd, Topology, wait_until};
use lb_userspace::{api::BackendInfo, model::Health};

use super::{
    PATIENCE, PORT,
    ask::Ask,
    config::{Config, FAST_TCP, Service},
    setup::{Stage, finish, hear, vip4},
};

fn checked(hint: &str, check: &str) -> Stage {
    let topology = Topology::default();
    let stage = Stage::with(hint, &topology, |lab| {
        Config::new([Service::web(lab).check(check)])
    });
    await_health(&stage.lbd, "backend-1", Health::Up);
    await_health(&stage.lbd, "backend-2", Health::Up);
    stage
}

#[track_caller]
fn await_health(lbd: &Lbd, name: &str, health: Health) -> BackendInfo {
    wait_until(PATIENCE, format!("{name} is {health:?}"), || {
        lbd.backend("web", name).health == health
    });
    let backend = lbd.backend("web", name);
    assert_eq!(backend.slots == 0, health == Health::Down, "{backend:?}");
    backend
}

#[track_caller]
fn assert_reason(backend: &BackendInfo, part: &str) {
    assert!(backend.reason.contains(part), "{backend:?}");
}

#[test]
fn an_http_status_decides() {
    let lab = Lab::new("http").unwrap();
    let servers = lab.backends().iter().map(|host| host.serve_health(PORT));
    let mut servers: Vec<_> = servers.collect::<Result<_, _>>().unwrap();
    let check = "type = \"http\"\npath = \"/healthz\"\ninterval = \"100ms\"\ntimeout = \"1s\"";
    let config = Config::new([Service::web(&lab).check(check)]).to_string();
    let lbd = Lbd::start(&lab, &config).unwrap();
    await_health(&lbd, "backend-2", Health::Up);
    let up = await_health(&lbd, "backend-1", Health::Up);
    assert_reason(&up, "HTTP 200 from GET /healthz");
    let table = lbd.service("web").table;

    servers[0].set_status(503);
    let down = await_health(&lbd, "backend-1", Health::Down);
    assert_eq!(
        down.reason,
        "3 of 3 probes failed: HTTP 503 from GET /healthz"
    );
    let status = lbd.status();
    assert_eq!((status.backends, status.healthy), (2, 1));
    let warnings = status.warnings.join("\n");
    assert!(
        warnings.contains("HTTP 503 from GET /healthz"),
        "{warnings}"
    );
    let log = lbd.log();
    assert!(log.contains("backend backend-1 is down (3 of 3 probes failed: HTTP 503"));

    servers[0].set_status(200);
    let up = await_health(&lbd, "backend-1", Health::Up);
    assert_reason(&up, "2 of 2 probes succeeded: HTTP 200");
    assert_eq!(lbd.service("web").table, table);

    servers[0].kill();
    let down = await_health(&lbd, "backend-1", Health::Down);
    assert_reason(&down, "connection refused");
}

/// Who no longer listens gets nobody new, and keeps whom he has (S-CT-3).
#[test]
fn a_refused_connection_is_a_failure() {
    let mut stage = checked("refused", FAST_TCP);
    let live = stage.talk(20);
    hear(&live, 1);
    stage.servers[0].refuse();
    let down = await_health(&stage.lbd, "backend-1", Health::Down);
    assert_eq!(down.reason, "3 of 3 probes failed: connection refused");
    let by_server = stage.spread(vip4(), 50);
    assert_eq!(by_server, [("backend-2".to_owned(), 50)].into());
    hear(&live, 2);
    assert_eq!(finish(live).by_server.len(), 2);

    stage.servers[0].restart().unwrap();
    await_health(&stage.lbd, "backend-1", Health::Up);
    assert_eq!(stage.spread(vip4(), 50).len(), 2);
}

#[test]
fn silence_is_a_failure() {
    let check = "interval = \"100ms\"\ntimeout = \"300ms\"\nfall = 2";
    let stage = checked("silent", check);
    let cut_off = stage.lab.backends()[0].cut_off().unwrap();
    let down = await_health(&stage.lbd, "backend-1", Health::Down);
    assert_eq!(down.reason, "2 of 2 probes failed: no answer within 300ms");
    assert_eq!(stage.spread(vip4(), 50).len(), 1);
    drop(cut_off);
    await_health(&stage.lbd, "backend-1", Health::Up);
    stage.await_next_hops();
    assert_eq!(stage.spread(vip4(), 50).len(), 2);
}

/// Without a check nothing but the operator takes a backend out, and all are used at once.
#[test]
fn without_a_check_nobody_is_down() {
    let mut stage = Stage::new("unchecked", 2);
    let probes = stage.servers[0].connections();
    stage.servers[0].kill();
    let many = stage.lab.client().connect_many(vip4(), 50, 10).unwrap();
    assert!(many.by_server["backend-2"] > 0 && !many.failures.is_empty());
    let backend = stage.lbd.backend("web", "backend-1");
    assert_eq!(backend.health, Health::Unknown);
    assert_reason(&backend, "not checked");
    assert!(backend.slots > 0);
    assert_eq!(probes, 0);
}

/// All are down: nobody is there to take a connection, the client is told (S-CT-7), `lbctl status`
/// says so, and the drops are counted.
#[test]
fn no_backend_left_is_said_and_counted() {
    let mut stage = checked("all-down", FAST_TCP);
    stage.servers.iter_mut().for_each(|server| server.kill());
    await_health(&stage.lbd, "backend-1", Health::Down);
    await_health(&stage.lbd, "backend-2", Health::Down);
    let warnings = stage.lbd.status().warnings;
    let said = "service web has no backend that takes connections".to_owned();
    assert!(warnings.contains(&said), "{warnings:?}");
    let client = stage.lab.client().netns();
    let attempt = client.run(|| std::net::TcpStream::connect(vip4()).map(drop));
    assert_eq!(
        attempt.unwrap_err().kind(),
        std::io::ErrorKind::ConnectionRefused
    );
    assert!(stage.lbd.drops()["no_backend"] > 0);
}
