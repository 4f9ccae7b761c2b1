//! Who has the last word: what `lbctl` changes, what the file says, and how one becomes the other.

use std::{fs, path::Path};

use lb_tests::lab::wait_until;
use lb_userspace::{api::Reloaded, model::Weight};

use super::{
    PATIENCE, PORT,
    ask::Ask,
    config::{Config, Service},
    setup::{Stage, finish, hear, vip4, vip6},
};

/// Removes backend-1, drains backend-2, gives backend-3 another weight.
fn edit(stage: &Stage) {
    let lbd = &stage.lbd;
    lbd.change(&["backend", "remove", "web", "backend-1"]);
    lbd.change(&["backend", "drain", "web", "backend-2"]);
    lbd.change(&["backend", "set", "web", "backend-3", "--weight", "7"]);
}

/// Name, admin state and weight of all backends of `web`.
fn wanted(stage: &Stage) -> Vec<String> {
    let backends = stage.lbd.backends("web").into_iter();
    let wanted = backends.map(|b| format!("{} {} {}", b.name, b.admin, b.weight));
    wanted.collect()
}

const EDITED: [&str; 2] = ["backend-2 drain 100", "backend-3 enabled 7"];

#[test]
fn edits_survive_a_restart_and_a_reload_reverts_them() {
    let mut stage = Stage::new("edits", 3);
    let live = stage.talk(30);
    edit(&stage);
    let table = stage.lbd.service("web").table;
    stage.lbd.kill9().unwrap();
    stage.lbd.start_again().unwrap();
    assert_eq!(wanted(&stage), EDITED);
    assert_eq!(stage.lbd.service("web").table, table);
    let log = stage.lbd.log();
    for kept in ["backend-1 removed", "has admin drain", "has weight 7"] {
        let mut lines = log.lines();
        assert!(
            lines.any(|l| l.contains("kept") && l.contains(kept)),
            "{log}"
        );
    }

    let reloaded: Reloaded = stage.lbd.json(&["reload"]);
    assert_eq!(reloaded.file, stage.lbd.config_path());
    assert_eq!(reloaded.restart, [""; 0]);
    let changes = reloaded.changes.join("\n");
    for reverted in [
        "backend-1 is back, with weight 100",
        "backend-2 is enabled",
        "backend-3 has weight 100 now, 7 before",
    ] {
        assert!(changes.contains(reverted), "{changes}");
    }
    let as_in_file = [1, 2, 3].map(|n| format!("backend-{n} enabled 100"));
    assert_eq!(wanted(&stage), as_in_file);
    assert_eq!(
        stage.lbd.lbctl_text(&["reload"]).unwrap(),
        "nothing changed\n"
    );
    hear(&live, 2);
    finish(live);
}

#[test]
fn what_is_saved_is_what_runs() {
    let mut stage = Stage::new("saved", 3);
    edit(&stage);
    let address = stage.lab.backends()[0].v4(PORT).to_string();
    stage
        .lbd
        .change(&["backend", "add", "web", &address, "--name", "new"]);
    let table = stage.lbd.service("web").table;
    let before = wanted(&stage);

    let copy = stage.lab.directory().join("copy.toml");
    let copy = copy.to_str().unwrap();
    let said = stage.lbd.lbctl_text(&["save", copy]).unwrap();
    assert_eq!(said, format!("{copy}\n"));
    stage.lbd.lbctl_text(&["save"]).unwrap();
    let saved = fs::read_to_string(stage.lbd.config_path()).unwrap();
    assert_eq!(saved, fs::read_to_string(Path::new(copy)).unwrap());

    assert_eq!(
        stage.lbd.lbctl_text(&["reload"]).unwrap(),
        "nothing changed\n"
    );
    stage.lbd.restart().unwrap();
    assert_eq!(wanted(&stage), before);
    assert_eq!(stage.lbd.service("web").table, table);
    assert!(!stage.lbd.log().contains("kept, though"));
    assert_eq!(
        stage.lbd.lbctl_text(&["reload"]).unwrap(),
        "nothing changed\n"
    );
}

/// `lbctl reload FILE` and SIGHUP; what cannot change at once is named.
#[test]
fn a_changed_file_is_taken_over() {
    let mut stage = Stage::new("reload", 2);
    let live = stage.talk(30);
    let mut config = Config::new([Service::web(&stage.lab)]);
    config.web().backends[1].weight = 50;
    stage.lbd.configure(&config.to_string()).unwrap();
    stage.lbd.sighup().unwrap();
    wait_until(PATIENCE, "the file is taken over", || {
        stage.lbd.backend("web", "backend-2").weight == Weight(50)
    });

    config.conntrack = "capacity = 60_000".to_owned();
    config.interfaces[1].1 = "native";
    config.services.push(Service::web6(&stage.lab));
    stage.lbd.configure(&config.to_string()).unwrap();
    let reloaded: Reloaded = stage.lbd.json(&["reload"]);
    let changes = reloaded.changes.join("\n");
    assert!(changes.contains("service web6 is new"), "{changes}");
    let restart = reloaded.restart.join("\n");
    for waiting in ["capacity: 50000 -> 60000", "eth1: mode: auto -> native"] {
        assert!(restart.contains(waiting), "{restart}");
    }
    stage.await_next_hops();
    assert_eq!(stage.spread(vip6(), 50).len(), 2);
    hear(&live, 2);
    finish(live);

    config.services.remove(0);
    stage.lbd.configure(&config.to_string()).unwrap();
    stage.lbd.lbctl_text(&["reload"]).unwrap();
    // The other service does not notice.
    let refused = stage.lab.client().connect_many(vip4(), 1, 1).unwrap();
    assert_eq!(refused.connected(), 0);
    assert_eq!(stage.spread(vip6(), 50).len(), 2);
}
