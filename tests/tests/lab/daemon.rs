//! Handling of the daemon, shown on impostors of it.

use std::{env, fs, os::unix::fs::PermissionsExt, path::Path};

use lb_tests::lab::{Binaries, Lab, Lbd, wait_until};

use super::PATIENCE;

#[test]
fn the_programs_under_test_are_built_and_found() {
    let binaries = Binaries::locate().unwrap();
    let directory = binaries.lbd().parent().unwrap().to_owned();
    assert!(env::current_exe().unwrap().starts_with(directory));
    assert!(binaries.lbctl().is_file());
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
