//! The lab itself: it comes, works, notices, and goes without a trace.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{
    env, fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    panic::{self, AssertUnwindSafe},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use lb_tests::lab::{
    Arms, Binaries, Lab, Lbd, Topology, VlanTag, output, remove_labs_on_signal, sweep, wait_until,
};

const PORT: u16 = 8080;
const PATIENCE: Duration = Duration::from_secs(10);
const MEGABYTE: u64 = 1 << 20;

/// Everything on this machine that bears the name of a lab.
fn traces(name: &str) -> Vec<String> {
    let temporary = env::temp_dir();
    [
        "/run/netns".as_ref(),
        "/sys/fs/bpf".as_ref(),
        temporary.as_path(),
    ]
    .into_iter()
    .flat_map(|directory: &Path| fs::read_dir(directory).into_iter().flatten())
    .map(|entry| entry.unwrap().path().display().to_string())
    .filter(|path| path.contains(name))
    .collect()
}

/// Every client talks to every backend, over IPv4 and IPv6, through the balancer as a router.
fn reaches_every_backend(lab: &Lab) {
    let servers = lab.serve_identity(PORT).unwrap();
    for client in lab.clients() {
        for backend in lab.backends() {
            let families: [(SocketAddr, std::net::IpAddr); 2] = [
                (backend.v4(PORT), client.ipv4().into()),
                (backend.v6(PORT), client.ipv6().into()),
            ];
            for (address, seen) in families {
                let greeting = client.exchange(address, MEGABYTE).unwrap();
                assert_eq!(greeting.server, backend.name());
                assert_eq!(greeting.peer, greeting.local);
                assert_eq!(greeting.peer.ip(), seen);
            }
        }
    }
    let clients = lab.clients().len() as u64;
    for server in &servers {
        assert_eq!(server.connections(), 2 * clients);
        assert_eq!(server.bytes(), 2 * clients * MEGABYTE);
    }
}

#[test]
fn a_lab_leaves_nothing_behind() {
    let lab = Lab::new("drop").unwrap();
    let name = lab.name().to_owned();
    let sleeper = lab.backends()[0].spawn("sleep", &["300"]).unwrap();
    let id = sleeper.id();
    // Whoever forgets a process does not keep the namespace alive.
    std::mem::forget(sleeper);
    // Two hosts at either side of the balancer, a switch between it and the backends, a directory.
    assert_eq!(traces(&name).len(), 6, "{:?}", traces(&name));
    drop(lab);
    assert_eq!(traces(&name), [""; 0]);
    wait_until(PATIENCE, "the forgotten process is dead", || {
        let status = fs::read_to_string(format!("/proc/{id}/stat"));
        status.map_or(true, |status| status.contains(") Z "))
    });
}

#[test]
fn a_panic_leaves_nothing_behind() {
    let mut name = String::new();
    let panicked = panic::catch_unwind(AssertUnwindSafe(|| {
        let lab = Lab::new("panic").unwrap();
        name = lab.name().to_owned();
        let _servers = lab.serve_identity(PORT).unwrap();
        assert!(traces(&name).is_empty(), "this test panics on purpose");
    }));
    assert!(panicked.is_err());
    assert_eq!(traces(&name), [""; 0]);
}

/// The body of [`a_signal_leaves_nothing_behind`]'s child process.
#[test]
#[ignore = "started by another test"]
fn hold_a_lab_until_a_signal_comes() {
    remove_labs_on_signal().unwrap();
    let lab = Lab::new("signal").unwrap();
    println!("name={}", lab.name());
    thread::sleep(Duration::from_secs(60));
}

#[test]
fn a_signal_leaves_nothing_behind() {
    for (signal, number) in [("INT", 2), ("TERM", 15)] {
        let (mut child, name) = child_with_a_lab();
        output(Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]))
            .unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(128 + number));
        assert_eq!(traces(&name), [""; 0]);
    }
}

#[test]
fn the_lab_of_a_killed_process_is_swept() {
    let (mut child, name) = child_with_a_lab();
    sweep();
    assert_eq!(traces(&name).len(), 6, "a living process loses nothing");
    child.kill().unwrap();
    child.wait().unwrap();
    sweep();
    assert_eq!(traces(&name), [""; 0]);
}

/// Runs this very program as another process that holds a lab.
fn child_with_a_lab() -> (std::process::Child, String) {
    use std::io::{BufRead, BufReader};
    let mut child = Command::new(env::current_exe().unwrap())
        .args([
            "--ignored",
            "--exact",
            "--nocapture",
            "hold_a_lab_until_a_signal_comes",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let name = lines
        .map_while(Result::ok)
        .find_map(|line| Some(line.split_once("name=")?.1.to_owned()))
        .unwrap();
    (child, name)
}

#[test]
fn one_client_reaches_one_backend() {
    let topology = Topology {
        backends: 1,
        ..Topology::default()
    };
    reaches_every_backend(&Lab::with("pair", &topology).unwrap());
}

#[test]
fn many_clients_reach_many_backends() {
    let topology = Topology {
        clients: 2,
        backends: 3,
        ..Topology::default()
    };
    reaches_every_backend(&Lab::with("many", &topology).unwrap());
}

#[test]
fn one_arm_serves_both_sides() {
    let topology = Topology {
        arms: Arms::One,
        ..Topology::default()
    };
    let lab = Lab::with("one-arm", &topology).unwrap();
    reaches_every_backend(&lab);
    let interfaces = lab.lb().netns().ip("-o link show").unwrap();
    assert!(!interfaces.contains("eth1"), "{interfaces}");
}

#[test]
fn clients_speak_through_tags() {
    for tags in [
        vec![VlanTag::Customer(7)],
        vec![VlanTag::Service(4094), VlanTag::Customer(7)],
    ] {
        let topology = Topology {
            clients: 2,
            client_tags: tags,
            ..Topology::default()
        };
        reaches_every_backend(&Lab::with("tags", &topology).unwrap());
    }
}

#[test]
fn impossible_labs_are_refused() {
    for (topology, reason) in [
        (
            Topology {
                backends: 0,
                ..Topology::default()
            },
            "1 to 200 backends",
        ),
        (
            Topology {
                arms: Arms::One,
                client_tags: vec![VlanTag::Customer(7)],
                ..Topology::default()
            },
            "two arms",
        ),
        (
            Topology {
                client_tags: vec![VlanTag::Customer(0)],
                ..Topology::default()
            },
            "1 to 4094",
        ),
    ] {
        let error = Lab::with("impossible", &topology).err().unwrap();
        assert!(error.to_string().contains(reason), "{error}");
    }
}

#[test]
fn two_labs_do_not_collide() {
    let labs = thread::scope(|scope| {
        let make = || scope.spawn(|| Lab::new("twin").unwrap());
        [make(), make()].map(|making| making.join().unwrap())
    });
    assert_ne!(labs[0].name(), labs[1].name());
    thread::scope(|scope| {
        for lab in &labs {
            scope.spawn(|| reaches_every_backend(lab));
        }
    });
    let [first, second] = labs;
    drop(first);
    reaches_every_backend(&second);
}

#[test]
fn connections_are_counted_on_both_sides() {
    let lab = Lab::new("count").unwrap();
    let servers = lab.serve_identity(PORT).unwrap();
    let backend = &lab.backends()[0];

    let spread = lab
        .client()
        .connect_many(backend.v4(PORT), 300, 20)
        .unwrap();
    assert_eq!(spread.failures, [""; 0]);
    assert_eq!(spread.by_server, [(backend.name().to_owned(), 300)].into());

    let held = lab.client().hold_many(backend.v6(PORT), 100, 10).unwrap();
    assert_eq!(held.spread.connected(), 100);
    let established = || backend.established(PORT).unwrap();
    wait_until(PATIENCE, "only the held ones are open", || {
        servers[0].open() == 100
    });
    assert_eq!(established().len(), 100);
    assert!(
        established()
            .iter()
            .all(|c| c.local == backend.v6(PORT) && c.peer.ip() == lab.client().ipv6())
    );
    drop(held);
    wait_until(PATIENCE, "all are closed", || established().is_empty());
    assert_eq!(servers[0].connections(), 400);
    assert_eq!(servers[1].connections(), 0);
}

#[test]
fn failures_are_counted_with_their_reasons() {
    let lab = Lab::new("fail").unwrap();
    let mut server = lab.backends()[0].serve_identity(PORT).unwrap();
    let address = lab.backends()[0].v4(PORT);
    server.kill();
    let spread = lab.client().connect_many(address, 3, 3).unwrap();
    assert_eq!(spread.connected(), 0);
    assert_eq!(spread.failures.len(), 3);
    assert!(
        spread.failures[0].contains("refused"),
        "{:?}",
        spread.failures
    );
    server.restart().unwrap();
    assert_eq!(
        lab.client()
            .connect_many(address, 3, 3)
            .unwrap()
            .connected(),
        3
    );
}

#[test]
fn live_connections_notice_a_killed_server() {
    let lab = Lab::new("live").unwrap();
    let mut servers = lab.serve_identity(PORT).unwrap();
    let client = lab.client();
    let doomed = client
        .live_connections(lab.backends()[0].v4(PORT), 10)
        .unwrap();
    let lucky = client
        .live_connections(lab.backends()[1].v6(PORT), 10)
        .unwrap();
    wait_until(PATIENCE, "all have talked", || {
        doomed.report().fewest_echoes >= 5 && lucky.report().fewest_echoes >= 5
    });
    servers[0].kill();
    wait_until(PATIENCE, "all have noticed", || {
        doomed.report().broken.len() == 10
    });
    let (doomed, lucky) = (doomed.finish(), lucky.finish());
    assert!(
        doomed.broken[0].contains("to backend-1"),
        "{:?}",
        doomed.broken
    );
    assert_eq!(lucky.broken, [""; 0]);
    assert_eq!(lucky.bytes_lost, 0);
    assert_eq!(lucky.by_server, [("backend-2".to_owned(), 10)].into());
    assert!(lucky.longest_silence >= Duration::from_millis(50));
}

#[test]
fn open_connections_outlive_a_server_that_refuses_new_ones() {
    let lab = Lab::new("refuse").unwrap();
    let server = lab.backends()[0].serve_identity(PORT).unwrap();
    let address = lab.backends()[0].v4(PORT);
    let live = lab.client().live_connections(address, 3).unwrap();
    server.refuse();
    wait_until(PATIENCE, "new ones are refused", || {
        lab.client()
            .connect_many(address, 1, 1)
            .unwrap()
            .connected()
            == 0
    });
    let before = live.report().fewest_echoes;
    wait_until(PATIENCE, "the old ones go on", || {
        live.report().fewest_echoes > before + 3
    });
    let report = live.finish();
    assert_eq!(
        (report.broken.len(), report.bytes_lost),
        (0, 0),
        "{report:?}"
    );
}

#[test]
fn live_connections_notice_silence_and_loss() {
    let lab = Lab::new("deaf").unwrap();
    let backend = &lab.backends()[0];
    let _server = backend.serve_identity(PORT).unwrap();
    let live = lab.client().live_connections(backend.v4(PORT), 2).unwrap();
    wait_until(PATIENCE, "all have talked", || {
        live.report().fewest_echoes >= 2
    });
    let silence = Duration::from_millis(500);

    let deaf = backend.cut_off().unwrap();
    wait_until(PATIENCE, "the silence is noticed", || {
        live.report().longest_silence > silence
    });
    drop(deaf);
    let before = live.report().fewest_echoes;
    wait_until(PATIENCE, "they have recovered", || {
        live.report().fewest_echoes > before
    });
    assert_eq!(live.report().broken, [""; 0]);

    let before = live.report().longest_silence;
    let _deaf = backend.cut_off().unwrap();
    wait_until(PATIENCE, "messages are on their way", || {
        live.report().longest_silence > before + silence
    });
    let report = live.finish();
    assert_eq!(report.broken.len(), 2);
    assert!(
        report.broken[0].contains("last echoes"),
        "{:?}",
        report.broken
    );
    assert!(report.bytes_lost >= 2 * 64, "{report:?}");
}

#[test]
fn a_health_server_answers_with_the_status_it_is_told() {
    let lab = Lab::new("health").unwrap();
    let mut server = lab.backends()[0].serve_health(PORT).unwrap();
    let url = format!("http://{}/healthz", lab.backends()[0].v4(PORT));
    let client = lab.client().netns();
    let ask = || {
        let format = "%{stdout}%{http_code} ";
        let mut curl = client.command("curl");
        output(curl.args(["-sS", "-m", "5", "-w", format, &url]))
    };
    assert_eq!(ask().unwrap(), "backend-1200 ");
    server.set_status(503);
    assert_eq!(ask().unwrap(), "backend-1503 ");
    assert_eq!(server.requests(), 2);
    server.kill();
    assert!(ask().unwrap_err().to_string().contains("curl"));
    server.restart().unwrap();
    assert_eq!(ask().unwrap(), "backend-1503 ");
}

/// Programs that keep the daemon's contract as far as the lab is concerned.
fn impostors(directory: &Path, lbd: &str) -> Binaries {
    let home = "home=$(dirname \"$2\")\n";
    for (name, script) in [
        ("lbd", format!("#!/bin/sh\n{home}{lbd}")),
        (
            "lbctl",
            format!("#!/bin/sh\n{home}test -e $home/ready || exit 3\necho \"[\\\"$*\\\"]\"\n"),
        ),
    ] {
        let file = directory.join(name);
        fs::write(&file, script).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }
    Binaries::inside(directory).unwrap()
}

#[test]
fn a_daemon_that_does_not_start_is_reported_with_its_log() {
    let lab = Lab::new("stillborn").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let binaries = impostors(directory.path(), "echo no such interface: eth7 >&2; exit 4");
    let error = Lbd::start_from(&lab, &binaries, "").err().unwrap();
    let error = format!("{error:#}");
    assert!(error.contains("no such interface: eth7"), "{error}");
    assert!(error.contains("exit status: 4"), "{error}");
}

#[test]
fn a_daemon_is_killed_stopped_and_started_again() {
    let lab = Lab::new("daemon").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let binaries = impostors(
        directory.path(),
        "trap 'rm $home/ready; echo stopped; exit 0' TERM
         trap 'echo reloaded' HUP
         echo started
         touch $home/ready
         while :; do sleep 0.05; done",
    );
    let mut lbd = Lbd::start_from(&lab, &binaries, "[[interface]]\nname = \"eth0\"\n").unwrap();
    let log = |lbd: &Lbd| lbd.log().split_whitespace().collect::<Vec<_>>().join(" ");
    let config = fs::read_to_string(lbd.config_path()).unwrap();
    let socket = lbd.socket().display().to_string();
    assert!(config.starts_with("[daemon]\n") && config.ends_with("\nname = \"eth0\"\n"));
    assert!(
        config.contains(&format!("socket = \"{socket}\"\n")),
        "{config}"
    );

    lbd.sighup().unwrap();
    wait_until(PATIENCE, "it has reloaded", || {
        log(&lbd) == "started reloaded"
    });
    lbd.kill9().unwrap();
    assert!(
        lbd.kill9()
            .unwrap_err()
            .to_string()
            .contains("does not run")
    );
    fs::remove_file(lbd.socket().with_file_name("ready")).unwrap();
    assert_eq!(lbd.lbctl(&["status"]).unwrap().status.code(), Some(3));
    assert!(lbd.lbctl_text(&["status"]).is_err());

    lbd.start_again().unwrap();
    lbd.restart().unwrap();
    assert!(lbd.terminate().unwrap().success());
    assert_eq!(
        log(&lbd),
        "started reloaded started stopped started stopped"
    );

    lbd.start_again().unwrap();
    let answer = lbd.lbctl_json(&["service", "list"]).unwrap();
    assert_eq!(
        answer,
        serde_json::json!([format!("--socket {socket} -o json service list")])
    );

    fs::create_dir(lbd.bpffs()).unwrap();
    let pins = lbd.bpffs().to_owned();
    drop(lbd);
    assert!(!pins.exists());
    fs::create_dir(&pins).unwrap();
    drop(lab);
    assert!(!pins.exists(), "the lab removes what its daemon could not");
}
