//! Bad input: said clearly, and what runs goes on.

use std::{fs, path::Path, time::Duration};

use lb_tests::lab::{Binaries, Lab, output, wait_until};
use lb_userspace::api::BackendInfo;

use super::{
    PATIENCE, PORT,
    ask::{Ask, Refusal},
    config::{Backend, Config, Service},
    setup::{Stage, finish, hear, vip4},
};

/// Starts `lbd` with a configuration that it has to refuse, with files and pins below `home`.
fn start_in_vain(lab: &Lab, home: &Home, config: &str) -> Refusal {
    let file = lab.directory().join("refused.toml");
    fs::write(&file, format!("{}{config}", home.text())).unwrap();
    let lbd = Binaries::locate().unwrap().lbd();
    let arguments = ["--config", file.to_str().unwrap()];
    let mut process = lab.lb().spawn(lbd, &arguments).unwrap();
    let code = process.wait(Duration::from_secs(20)).unwrap().code();
    Refusal {
        code: code.unwrap(),
        message: process.log(),
    }
}

/// `[daemon]` of a second daemon.
struct Home {
    socket: String,
    bpffs: String,
}

impl Home {
    /// Nobody else's.
    fn of_its_own(lab: &Lab) -> Self {
        let directory = lab.directory().display();
        Self {
            socket: format!("{directory}/second.sock"),
            bpffs: format!("/sys/fs/bpf/{}-second", lab.name()),
        }
    }

    fn text(&self) -> String {
        let Self { socket, bpffs } = self;
        format!(
            "[daemon]\nsocket = {socket:?}\nbpffs = {bpffs:?}\nstate_dir = \"{socket}.state\"\n\n"
        )
    }

    /// Where `needle` stands first in a file of these lines and `config`, as `lbd` says it.
    fn place(&self, config: &str, needle: &str) -> String {
        let text = format!("{}{config}", self.text());
        let before = &text[..text.find(needle).unwrap()];
        let line = before.matches('\n').count() + 1;
        let column = before.len() - before.rfind('\n').map_or(0, |n| n + 1) + 1;
        format!("refused.toml:{line}:{column}: ")
    }

    fn left_behind(&self) -> bool {
        Path::new(&self.socket).exists() || Path::new(&self.bpffs).exists()
    }
}

fn attached(lab: &Lab) -> bool {
    let links = lab.lb().netns().ip("link show").unwrap();
    links.contains("prog/xdp")
}

#[test]
fn a_wrong_file_is_refused_at_the_start() {
    let lab = Lab::new("wrong-file").unwrap();
    let home = Home::of_its_own(&lab);
    let good = Config::new([Service::web(&lab)]).to_string();
    for (right, wrong, at, message) in [
        ("listen", "lisen", "lisen", "did you mean \"listen\"?"),
        ("\"auto\"", "\"fast\"", "\"fast\"", "native"),
        ("weight = 100", "weight = -1", "-1\n", "0 to 65535"),
        ("[[service]]", "[[service", "\nname = \"web\"", "]]"),
    ] {
        let wrong = good.replacen(right, wrong, 1);
        let refusal = start_in_vain(&lab, &home, &wrong);
        let text = &refusal.message;
        assert_eq!(refusal.code, 4, "{text}");
        let place = home.place(&wrong, at);
        assert!(text.contains(&place), "{place}: {text}");
        assert!(text.contains(message), "{message}: {text}");
        assert!(!home.left_behind() && !attached(&lab));
        fs::remove_file(lab.directory().join("lb-lbd.log")).unwrap();
    }
}

#[test]
fn two_services_may_not_share_an_address() {
    let lab = Lab::new("shared-vip").unwrap();
    let home = Home::of_its_own(&lab);
    let mut other = Service::web(&lab);
    other.name = "other".to_owned();
    let config = Config::new([Service::web(&lab), other]).to_string();
    let refusal = start_in_vain(&lab, &home, &config);
    assert_eq!(refusal.code, 4, "{}", refusal.message);
    let first = home.place(&config, "\"192.0.2.10:80\"");
    let (_, rest) = config.split_once("\"other\"\nlisten = ").unwrap();
    let before = &config[..config.len() - rest.len()];
    let second = home.place(&config, &config[before.len()..]);
    for part in ["listen address of service web", &first, &second] {
        assert!(
            refusal.message.contains(part),
            "{part}: {}",
            refusal.message
        );
    }
    assert!(!home.left_behind() && !attached(&lab));
}

#[test]
fn an_interface_that_is_not_there_is_named() {
    let lab = Lab::new("no-interface").unwrap();
    let home = Home::of_its_own(&lab);
    let mut config = Config::new([Service::web(&lab)]);
    config.interfaces.push(("eth7", "auto"));
    let refusal = start_in_vain(&lab, &home, &config.to_string());
    assert_eq!(refusal.code, 1, "{}", refusal.message);
    assert!(
        refusal.message.contains("interface eth7"),
        "{}",
        refusal.message
    );
    assert!(!home.left_behind() && !attached(&lab));
}

/// Not even the program on the interfaces that came before.
#[test]
fn a_driver_without_native_mode_is_named() {
    let lab = Lab::new("no-native").unwrap();
    let home = Home::of_its_own(&lab);
    let mut config = Config::new([Service::web(&lab)]);
    config.interfaces.push(("lo", "native"));
    let refusal = start_in_vain(&lab, &home, &config.to_string());
    assert_eq!(refusal.code, 1, "{}", refusal.message);
    let said = "cannot attach to interface lo";
    assert!(refusal.message.contains(said), "{}", refusal.message);
    assert!(!home.left_behind() && !attached(&lab));
}

/// The running daemon goes on with what it had, asked by `lbctl` or by a signal.
#[test]
fn a_wrong_file_is_refused_at_a_reload() {
    let mut stage = Stage::new("wrong-reload", 2);
    let live = stage.talk(30);
    hear(&live, 1);
    let table = stage.lbd.service("web").table;
    let mut config = Config::new([Service::web(&stage.lab)]);
    config.web().backends.truncate(1);
    let wrong = config.to_string().replace("address", "adress");
    stage.lbd.configure(&wrong).unwrap();

    let refusal = stage.lbd.refused(&["reload"]);
    assert_eq!(refusal.code, 4);
    let path = stage.lbd.config_path();
    let text = fs::read_to_string(path).unwrap();
    let mut lines = text.lines();
    let line = 1 + lines.position(|l| l == "[[service.backend]]").unwrap();
    let place = format!("{}:{line}:1: ", path.display());
    assert!(
        refusal.message.contains(&place),
        "{place}: {}",
        refusal.message
    );
    assert!(
        refusal.message.contains("\"address\""),
        "{}",
        refusal.message
    );

    stage.lbd.sighup().unwrap();
    wait_until(PATIENCE, "the daemon has said no", || {
        let log = stage.lbd.log();
        log.contains("not reloaded, what ran before goes on") && log.contains(&place)
    });
    assert_eq!(stage.lbd.service("web").table, table);
    hear(&live, 2);
    assert_eq!(finish(live).by_server.len(), 2);
}

/// S-CT-4: the first is undisturbed.
#[test]
fn a_second_daemon_is_refused() {
    let stage = Stage::new("second", 2);
    let live = stage.talk(30);
    hear(&live, 1);
    let first = stage.lbd.id().unwrap();
    let config = Config::new([Service::web(&stage.lab)]).to_string();
    let mut home = Home::of_its_own(&stage.lab);
    home.bpffs = stage.lbd.bpffs().display().to_string();

    let refusal = start_in_vain(&stage.lab, &home, &config);
    assert_eq!(refusal.code, 1);
    let held = format!("held by another daemon (process {first})");
    assert!(refusal.message.contains(&held), "{}", refusal.message);
    assert!(!Path::new(&home.socket).exists());

    // The same socket with other pins, and nothing is left of these.
    let mut home = Home::of_its_own(&stage.lab);
    home.socket = stage.lbd.socket().display().to_string();
    let refusal = start_in_vain(&stage.lab, &home, &config);
    assert_eq!(refusal.code, 1);
    assert!(
        refusal.message.contains("another daemon listens"),
        "{}",
        refusal.message
    );
    assert!(!Path::new(&home.bpffs).exists(), "pins were left behind");

    assert_eq!(stage.lbd.status().pid, first);
    hear(&live, 2);
    finish(live);
    assert_eq!(stage.spread(vip4(), 50).len(), 2);
}

#[test]
fn a_backend_without_a_way_is_seen() {
    let stage = Stage::new("no-route", 1);
    let arguments = ["backend", "add", "web", "203.0.113.9:80", "--name", "lost"];
    stage.lbd.change(&arguments);
    let mut lost: Option<BackendInfo> = None;
    wait_until(PATIENCE, "it is known that there is no way", || {
        let backend = stage.lbd.backend("web", "lost");
        let error = backend.next_hop_error.clone();
        lost = Some(backend);
        error == Some("no route to 203.0.113.9".to_owned())
    });
    assert_eq!(lost.and_then(|b| b.next_hop), None);
    let warnings = stage.lbd.status().warnings;
    let said = "backend lost of web has no next hop: no route to 203.0.113.9".to_owned();
    assert!(warnings.contains(&said), "{warnings:?}");
    let table = stage.lbd.lbctl_text(&["backend", "list"]).unwrap();
    assert!(table.contains("no route to 203.0.113.9"), "{table}");

    let lb = stage.lab.lb().netns();
    lb.ip("route add 203.0.113.0/24 via 10.2.0.11 dev eth1")
        .unwrap();
    stage.await_next_hops();
}

#[test]
fn an_unknown_name_is_refused_with_a_suggestion() {
    let stage = Stage::new("names", 1);
    for (arguments, parts) in [
        (
            &["backend", "drain", "web", "bakend-1"][..],
            ["bakend-1", "did you mean"],
        ),
        (
            &["backend", "drain", "wep", "backend-1"],
            ["wep", "did you mean"],
        ),
        (
            &["service", "show", "wbe"],
            ["wbe", "did you mean \"web\"?"],
        ),
        (
            &["conntrack", "list", "--backend", "backend-2"],
            ["backend-2", "\"backend-1\""],
        ),
        (
            &["backend", "remove", "web", "else"],
            ["else", "no backend"],
        ),
    ] {
        let refusal = stage.lbd.refused(arguments);
        assert_eq!(refusal.code, 1, "{arguments:?}");
        for part in parts {
            assert!(
                refusal.message.contains(part),
                "{arguments:?}: {}",
                refusal.message
            );
        }
    }
    let address = stage.lab.backends()[0].v4(PORT).to_string();
    let refusal = stage
        .lbd
        .refused(&["backend", "add", "web", &address, "--name", "b"]);
    assert_eq!(refusal.code, 1);
    assert!(refusal.message.contains(&address), "{}", refusal.message);
    let refusal = stage
        .lbd
        .refused(&["backend", "add", "web", "192.0.2.10:80"]);
    assert_eq!(
        refusal.code, 1,
        "a service as its own backend: {}",
        refusal.message
    );
    assert_eq!(stage.lbd.backends("web").len(), 1);
}

/// `lbd --check` says the same, and touches nothing.
#[test]
fn a_file_can_be_checked() {
    let lab = Lab::new("check").unwrap();
    let file = lab.directory().join("lb.toml");
    let lbd = Binaries::locate().unwrap().lbd();
    let check = |config: &str| {
        fs::write(&file, config).unwrap();
        let mut command = lab.lb().netns().command(&lbd);
        output(command.arg("--check").arg("--config").arg(&file))
    };
    let mut config = Config::new([Service::web(&lab)]);
    assert!(check(&config.to_string()).unwrap().ends_with(": valid\n"));
    let twice = Backend::new("backend-1", "10.2.0.99:1".parse().unwrap());
    config.web().backends.push(twice);
    let error = check(&config.to_string()).unwrap_err().to_string();
    assert!(
        error.contains("exit status: 4") && error.contains("backend-1"),
        "{error}"
    );
}
