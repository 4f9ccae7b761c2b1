//! Connections that the balancer ends, so that nobody waits for who is gone (S-CT-6).

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use lb_tests::lab::{Host, Lab, Lbd, Topology, VlanTag, wait_until};
use lb_userspace::model::Health;

use super::{
    PATIENCE, PORT,
    ask::Ask,
    config::{Config, Service},
    setup::{Stage, finish, hear, vip4, vip6},
};

/// Finds a backend down that says nothing for half a second.
const CHECK: &str = "interval = \"100ms\"\ntimeout = \"300ms\"\nrise = 2\nfall = 2";
/// How long an end may take (S-CT-6).
const AT_ONCE: Duration = Duration::from_secs(1);
const RESET_WHEN_DOWN: &str = "on_backend_down = \"reset\"";

/// Both families' services over two backends, with these settings.
fn checked(hint: &str, settings: &str) -> Stage {
    let stage = Stage::with(hint, &Topology::default(), |lab| {
        let services = [Service::web(lab), Service::web6(lab)];
        Config::new(services.map(|service| service.settings(settings).check(CHECK)))
    });
    for name in ["backend-1", "backend-2"] {
        await_health(&stage.lbd, name, Health::Up);
    }
    stage
}

/// In both services.
#[track_caller]
fn await_health(lbd: &Lbd, name: &str, health: Health) {
    wait_until(PATIENCE, format!("{name} is {health:?}"), || {
        ["web", "web6"].map(|service| lbd.backend(service, name).health) == [health; 2]
    });
}

/// A connection whose client waits for what its server says.
struct Idle {
    server: String,
    stream: TcpStream,
}

impl Idle {
    fn open(host: &Host, to: SocketAddr) -> Self {
        let mut stream = host.netns().run(|| TcpStream::connect(to)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (mut greeting, mut byte) = (Vec::new(), [0]);
        while byte != *b"\n" {
            stream.read_exact(&mut byte).unwrap();
            greeting.extend(byte);
        }
        let greeting = String::from_utf8(greeting).unwrap();
        let (server, _) = greeting.split_once(' ').unwrap();
        Self {
            server: server.to_owned(),
            stream,
        }
    }

    /// So many to each of the two services; those with `backend-1`, and the others.
    fn open_many(stage: &Stage, count: usize) -> (Vec<Self>, Vec<Self>) {
        let targets = [vip4(), vip6()].into_iter().cycle().take(2 * count);
        let all = targets.map(|to| Self::open(stage.lab.client(), to));
        let (first, others): (Vec<_>, Vec<_>) = all.partition(|idle| idle.server == "backend-1");
        assert!(!first.is_empty() && !others.is_empty());
        (first, others)
    }

    /// Blocks in a read until it ends: how, and when.
    fn wait(mut self) -> JoinHandle<(io::ErrorKind, Instant)> {
        thread::spawn(move || {
            let kind = self.end_of_silence();
            (kind, Instant::now())
        })
    }

    /// Blocks in a read until it fails; a signal to the process is none of the connection's.
    fn end_of_silence(&mut self) -> io::ErrorKind {
        loop {
            match self.stream.read(&mut [0]) {
                Ok(_) => return io::ErrorKind::UnexpectedEof,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return error.kind(),
            }
        }
    }

    fn echo(&mut self) {
        let mut heard = [0; 5];
        self.stream.write_all(b"hello").unwrap();
        self.stream.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"hello");
    }

    /// Nothing has come, and nothing comes for a while.
    fn assert_silent(&mut self, duration: Duration) {
        self.stream.set_read_timeout(Some(duration)).unwrap();
        assert_eq!(self.end_of_silence(), io::ErrorKind::WouldBlock);
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
    }
}

/// S-CT-6, S-CT-3: silent and talking clients of a backend that vanishes are told at once; those of
/// others notice nothing.
#[test]
fn a_backend_that_goes_down_leaves_no_client_waiting() {
    let stage = checked("down-reset", RESET_WHEN_DOWN);
    let live = stage.talk(20);
    let (of_first, mut others) = Idle::open_many(&stage, 10);
    let count = of_first.len() as u64 + live.report().by_server["backend-1"];
    hear(&live, 1);
    let waiting: Vec<_> = of_first.into_iter().map(Idle::wait).collect();

    let _cut_off = stage.lab.backends()[0].cut_off().unwrap();
    await_health(&stage.lbd, "backend-1", Health::Down);
    let down = Instant::now();
    for client in waiting {
        let (how, when) = client.join().unwrap();
        assert_eq!(how, io::ErrorKind::ConnectionReset);
        assert!(when < down + AT_ONCE, "{:?} late", when - down);
    }
    wait_until(AT_ONCE, "every talking client is told", || {
        let report = live.report();
        report.broken.len() as u64 == report.by_server["backend-1"]
    });
    let broken = live.report().broken;
    let reset = |line: &String| line.contains("to backend-1") && line.contains("reset");
    assert!(broken.iter().all(reset), "{broken:#?}");

    let all = [stage.lbd.connections("web"), stage.lbd.connections("web6")].concat();
    let ended = all.iter().filter(|c| c.state == "ENDED");
    let ended: Vec<_> = ended.collect();
    let of_first = |name: &Option<lb_userspace::model::Name>| {
        name.as_ref()
            .is_some_and(|name| name.as_str() == "backend-1")
    };
    assert!(ended.iter().all(|c| of_first(&c.backend)), "{ended:?}");
    assert_eq!(ended.len() as u64, count);
    assert_eq!(stage.lbd.conntrack().ended, count);
    assert!(stage.lbd.drops()["ended"] >= count);
    assert!(stage.lbd.log().contains("ended connections"));

    others.iter_mut().for_each(Idle::echo);
    let report = live.finish();
    assert_eq!(report.broken, broken);
}

/// S-CT-6: also the backend is told, where it lives but is not well.
#[test]
fn a_backend_that_is_not_well_is_told_too() {
    let stage = checked("unwell-reset", RESET_WHEN_DOWN);
    let (of_first, mut others) = Idle::open_many(&stage, 10);
    // Beside them, a probe's connection may be open for a moment.
    wait_until(PATIENCE, "the server has its connections alone", || {
        stage.servers[0].open() == of_first.len() as u64
    });
    let waiting: Vec<_> = of_first.into_iter().map(Idle::wait).collect();
    // Its connections go on, as far as it is concerned.
    stage.servers[0].refuse();
    await_health(&stage.lbd, "backend-1", Health::Down);
    wait_until(AT_ONCE, "the server has nobody left", || {
        stage.servers[0].open() == 0
    });
    for client in waiting {
        let (how, _) = client.join().unwrap();
        assert_eq!(how, io::ErrorKind::ConnectionReset);
    }
    others.iter_mut().for_each(Idle::echo);
}

/// S-CT-3: unless told otherwise, the balancer leaves connections to those whose they are.
#[test]
fn by_default_connections_outlive_a_failure() {
    let stage = checked("down-keep", "");
    let (mut of_first, mut others) = Idle::open_many(&stage, 5);
    let cut_off = stage.lab.backends()[0].cut_off().unwrap();
    await_health(&stage.lbd, "backend-1", Health::Down);
    of_first[0].assert_silent(2 * AT_ONCE);
    others.iter_mut().for_each(Idle::echo);
    drop(cut_off);
    of_first.iter_mut().for_each(Idle::echo);
    assert_eq!(stage.lbd.conntrack().ended, 0);
}

/// S-CT-4, S-CT-6: what a daemon could not do because it was dead, the next one does.
#[test]
fn a_daemon_that_comes_back_ends_what_is_to_be_ended() {
    let mut stage = checked("back-reset", RESET_WHEN_DOWN);
    let (of_first, mut others) = Idle::open_many(&stage, 5);
    let waiting: Vec<_> = of_first.into_iter().map(Idle::wait).collect();
    stage.lbd.kill9().unwrap();
    let _cut_off = stage.lab.backends()[0].cut_off().unwrap();
    stage.lbd.start_again().unwrap();
    for client in waiting {
        let (how, _) = client.join().unwrap();
        assert_eq!(how, io::ErrorKind::ConnectionReset);
    }
    others.iter_mut().for_each(Idle::echo);
}

/// S-CT-6: both ends of connections that were idle for too long are told, in both families.
/// `settings` are of the two services.
fn assert_both_ends_are_told(lab: &Lab, settings: [&str; 2]) {
    let server = lab.backends()[0].netns();
    let listener = server.run(|| TcpListener::bind(("::", PORT))).unwrap();
    let services = [Service::web(lab), Service::web6(lab)]
        .into_iter()
        .zip(settings);
    let services = services.map(|(service, settings)| {
        service
            .settings(&format!("on_expiry = \"reset\"\n{settings}"))
            .timeouts("established = \"2s\"")
    });
    let lbd = Lbd::start(lab, &Config::new(services).to_string()).unwrap();
    wait_until(PATIENCE, "the way to the backend is known", || {
        !lbd.status().warnings.iter().any(|w| w.contains("next hop"))
    });

    let mut reads = Vec::new();
    let begun = Instant::now();
    for vip in [vip4(), vip6()] {
        let client = lab.client().netns().run(|| TcpStream::connect(vip));
        let (accepted, _) = listener.accept().unwrap();
        for stream in [client.unwrap(), accepted] {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let server = String::new();
            reads.push(Idle { server, stream }.wait());
        }
    }
    assert_eq!(lbd.conntrack().established, 2);
    for read in reads {
        let (how, when) = read.join().unwrap();
        assert_eq!(how, io::ErrorKind::ConnectionReset);
        // Not before its time, which is counted in ticks of 1.07 s and rounded up.
        let idle = when - begun;
        let latest = Duration::from_millis(3 * 1_074) + AT_ONCE;
        assert!((Duration::from_secs(2)..latest).contains(&idle), "{idle:?}");
    }
    assert_eq!(lbd.conntrack().ended, 2);
    wait_until(PATIENCE, "nothing is left of them", || {
        lbd.conntrack().used == 0
    });
}

/// S-CT-6, S-FWD-6
#[test]
fn both_ends_of_an_expired_connection_are_told_through_vlans() {
    let topology = Topology {
        backends: 1,
        client_tags: vec![VlanTag::Service(100), VlanTag::Customer(7)],
        ..Topology::default()
    };
    let lab = Lab::with("expiry", &topology).unwrap();
    assert_both_ends_are_told(&lab, ["", ""]);
}

/// S-CT-6: the backend takes an address of the balancer for the client.
#[test]
fn both_ends_of_an_expired_full_nat_connection_are_told() {
    let topology = Topology {
        backends: 1,
        ..Topology::default()
    };
    let lab = Lab::with("full-nat-expiry", &topology).unwrap();
    let balancer = lab.lb().netns();
    balancer.ip("address add 10.2.0.5/24 dev eth1").unwrap();
    balancer
        .ip("address add fd00:2::5/64 dev eth1 nodad")
        .unwrap();
    let settings = ["10.2.0.5", "fd00:2::5"]
        .map(|snat| format!("forwarding = \"full-nat\"\nsnat = [\"{snat}\"]"));
    assert_both_ends_are_told(&lab, settings.each_ref().map(String::as_str));
}

/// S-CT-6: an idle connection that is kept alive does not expire, and by default one that expires
/// goes on all the same.
#[test]
fn who_speaks_in_time_is_not_ended() {
    let stage = Stage::with("alive", &Topology::default(), |lab| {
        let reset = Service::web(lab).settings("on_expiry = \"reset\"");
        Config::new([reset, Service::web6(lab)].map(|s| s.timeouts("established = \"2s\"")))
    });
    let live = stage.talk(20);
    let mut forgotten = Idle::open(stage.lab.client(), vip6());
    forgotten.assert_silent(5 * AT_ONCE);
    assert_eq!(stage.lbd.connections("web6").len(), 0);
    forgotten.echo();
    hear(&live, 1);
    finish(live);
    assert_eq!(stage.lbd.conntrack().ended, 0);
}
