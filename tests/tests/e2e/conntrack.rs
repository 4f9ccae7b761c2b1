//! The connection table as `lbctl` shows it: states, timeouts, counts, and what it cannot hold.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    time::Duration,
};

use lb_tests::lab::{Topology, wait_until};
use lb_userspace::api::ConnectionInfo;

use super::{
    PATIENCE,
    ask::Ask,
    config::{Config, Service},
    setup::{Stage, finish, hear, vip4},
};

/// A stage whose connections are forgotten after a second or two of silence.
fn forgetful(hint: &str) -> Stage {
    let timeouts = "half_open = \"2s\"\nestablished = \"2s\"\nfin_wait = \"2s\"\n\
                    closing = \"1s\"\ntime_wait = \"1s\"\nreset = \"1s\"";
    Stage::with(hint, &Topology::default(), |lab| {
        Config::new([Service::web(lab).timeouts(timeouts)])
    })
}

/// Connects, and reads the greeting.
fn connect(stage: &Stage) -> TcpStream {
    let client = stage.lab.client().netns();
    let mut stream = client.run(|| TcpStream::connect(vip4())).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut byte = [0];
    while byte != *b"\n" {
        stream.read_exact(&mut byte).unwrap();
    }
    stream
}

fn echo(stream: &mut TcpStream) {
    let mut heard = [0; 5];
    stream.write_all(b"hello").unwrap();
    stream.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"hello");
}

/// The only connection.
fn state(stage: &Stage) -> Option<String> {
    let mut connections = stage.lbd.connections("web");
    assert!(connections.len() <= 1, "{connections:?}");
    connections.pop().map(|c| c.state)
}

fn await_state(stage: &Stage, expected: Option<&str>) {
    wait_until(PATIENCE, format!("its state is {expected:?}"), || {
        state(stage).as_deref() == expected
    });
}

/// S-NAT-3, S-CT-5: an idle connection is forgotten after its timeout; it finds its backend again
/// all the same, and is known from then on.
#[test]
fn an_idle_connection_is_forgotten_and_lives() {
    let stage = forgetful("idle");
    let mut stream = connect(&stage);
    await_state(&stage, Some("ESTABLISHED"));
    let backend = stage.lbd.connections("web")[0].backend.clone();
    await_state(&stage, None);
    assert_eq!(stage.lbd.conntrack().used, 0);
    echo(&mut stream);
    await_state(&stage, Some("ESTABLISHED"));
    assert_eq!(stage.lbd.connections("web")[0].backend, backend);
}

/// S-NAT-2: half-closed, closed, and forgotten.
#[test]
fn a_connection_ends_step_by_step() {
    let stage = forgetful("closing");
    let stream = connect(&stage);
    stream.shutdown(Shutdown::Write).unwrap();
    // The server answers an end with an end.
    await_state(&stage, Some("TIME_WAIT"));
    let conntrack = stage.lbd.conntrack();
    assert_eq!((conntrack.established, conntrack.closing), (0, 1));
    await_state(&stage, None);
}

/// S-NAT-7: a client that uses its port again at once gets through.
#[test]
fn a_client_s_port_may_be_used_again() {
    let stage = Stage::new("reuse", 2);
    let client = stage.lab.client().netns();
    // Fewer ports than connections.
    let range = [
        ("ipv4/ip_local_port_range", "20000 20019"),
        ("ipv4/tcp_tw_reuse", "1"),
        ("ipv4/tcp_timestamps", "1"),
    ];
    client.sysctl(&range).unwrap();
    for _ in 0..3 {
        for _ in 0..20 {
            // An RST instead of an orderly end, so that the client forgets it at once.
            let mut stream = connect(&stage);
            echo(&mut stream);
            stream.write_all(b"unread").unwrap();
            wait_until(PATIENCE, "the answer is there", || {
                stream.peek(&mut [0; 6]).unwrap() == 6
            });
            drop(stream);
        }
    }
    let ports = stage.lbd.connections("web").len();
    assert!(ports <= 20, "{ports}");
}

/// A SYN that nobody answers is half-open, and soon forgotten.
#[test]
fn an_unanswered_connection_is_half_open() {
    let stage = forgetful("half-open");
    let _cut_off: Vec<_> = stage
        .lab
        .backends()
        .iter()
        .map(|backend| backend.cut_off().unwrap())
        .collect();
    let client = stage.lab.client().netns();
    let attempt = client.run(|| TcpStream::connect_timeout(&vip4(), Duration::from_millis(200)));
    assert!(attempt.is_err());
    assert_eq!(state(&stage).as_deref(), Some("SYN_SENT"));
    let conntrack = stage.lbd.conntrack();
    assert_eq!((conntrack.half_open, conntrack.established), (1, 0));
    await_state(&stage, None);
}

/// Every count is the number of the rows that it is about.
#[test]
fn counts_and_lists_agree() {
    let stage = Stage::new("counts", 3);
    let held = stage.lab.client().hold_many(vip4(), 60, 10).unwrap();
    stage.spread(vip4(), 40);
    let cut_off: Vec<_> = stage.lab.backends().iter().map(|b| b.cut_off()).collect();
    let client = stage.lab.client().netns();
    for _ in 0..3 {
        let attempt =
            client.run(|| TcpStream::connect_timeout(&vip4(), Duration::from_millis(100)));
        assert!(attempt.is_err());
    }
    let count = |connections: &[ConnectionInfo], states: &[&str]| {
        let matching = connections
            .iter()
            .filter(|c| states.contains(&c.state.as_str()));
        matching.count() as u64
    };
    let connections = stage.lbd.connections("web");
    let stats = stage.lbd.conntrack();
    assert_eq!(stats.used, connections.len() as u64);
    assert_eq!(stats.established, count(&connections, &["ESTABLISHED"]));
    let half_open = ["SYN_SENT", "SYN_RECEIVED", "REFUSED"];
    assert_eq!(stats.half_open, count(&connections, &half_open));
    let closing = ["FIN_WAIT", "CLOSING", "TIME_WAIT", "RESET"];
    assert_eq!(stats.closing, count(&connections, &closing));
    assert_eq!(
        (stats.established, stats.half_open, stats.closing),
        (60, 3, 40)
    );
    assert_eq!(stage.lbd.status().conntrack, stats);
    let by_backend = stage.lbd.backends("web").into_iter();
    let by_backend: u64 = by_backend.map(|b| b.active_connections).sum();
    let active = count(&connections, &["ESTABLISHED", "FIN_WAIT"]);
    assert_eq!(by_backend, active);
    assert_eq!(stage.lbd.service("web").active_connections, active);
    assert!(stats.capacity >= 62_500 && stats.untracked_total == 0);
    drop((held, cut_off));

    let limited: Vec<ConnectionInfo> = stage.lbd.json(&["conntrack", "list", "--limit", "7"]);
    assert_eq!(limited.len(), 7);
    let table = stage.lbd.lbctl_text(&["conntrack", "list", "--limit", "7"]);
    assert!(table.unwrap().contains("and 96 more"));
}

/// S-CT-2: a table that is full of living connections keeps them; those that come later are
/// hashed, counted, and work.
#[test]
fn a_full_table_keeps_what_it_has() {
    let topology = Topology::default();
    let stage = Stage::with("full", &topology, |lab| {
        let mut config = Config::new([Service::web(lab)]);
        config.conntrack = "capacity = 64".to_owned();
        config
    });
    let first = stage.talk(40);
    hear(&first, 2);
    let known = stage.lbd.established("web");
    let later = stage.talk(150);
    hear(&later, 3);
    hear(&first, 3);
    let now = stage.lbd.established("web");
    assert!(
        known
            .iter()
            .all(|(client, backend)| now.get(client) == Some(backend))
    );
    let stats = stage.lbd.conntrack();
    assert!(
        stats.established < 190 && stats.untracked_total > 0,
        "{stats:?}"
    );
    finish(first);
    finish(later);
    assert_eq!(stage.lbd.drops(), BTreeMap::new());
}
