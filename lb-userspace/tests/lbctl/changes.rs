//! Commands that change something.

use lb_userspace::{
    api::Ended,
    config::Config,
    engine::Change,
    model::{Admin, Backend, Weight},
};
use serde_json::{Value, json};

use crate::fake::{Daemon, desired, lbctl, name, stderr};

#[tokio::test]
async fn backends_are_changed_as_asked() {
    let daemon = Daemon::start().await;
    let (web, web_1) = (name("web"), name("web-1"));
    let added = |text: &str, address: &str, weight| Change::AddBackend {
        service: web.clone(),
        backend: Backend {
            name: name(text),
            address: address.parse().unwrap(),
            weight,
            admin: Admin::Enabled,
        },
    };
    let admin = |admin| Change::SetAdmin {
        service: web.clone(),
        backend: web_1.clone(),
        admin,
    };
    for (line, change) in [
        (
            "backend add web 10.0.1.13:80 --name web-3 --weight 7",
            added("web-3", "10.0.1.13:80", Weight(7)),
        ),
        (
            "backend add web 10.0.1.13:80",
            added("10.0.1.13:80", "10.0.1.13:80", Weight::DEFAULT),
        ),
        (
            "backend add web [2001:db8::3]:80",
            added("2001:db8::3:80", "[2001:db8::3]:80", Weight::DEFAULT),
        ),
        (
            "backend set web web-1 --weight 0",
            Change::SetWeight {
                service: web.clone(),
                backend: web_1.clone(),
                weight: Weight(0),
            },
        ),
        ("backend drain web web-1", admin(Admin::Drain)),
        ("backend enable web web-1", admin(Admin::Enabled)),
        ("backend maint web web-1", admin(Admin::Maint)),
    ] {
        let words: Vec<_> = line.split(' ').collect();
        assert_eq!(daemon.table(&words).await, "backend changed\n", "{line}");
        assert_eq!(daemon.last_change(), change, "{line}");
    }
    assert_eq!(
        daemon.json(&["backend", "drain", "web", "web-1"]).await,
        json!({"changes": ["backend changed"]})
    );

    let (code, _) = daemon.failure(&["backend", "remove", "web", "web-1"]).await;
    assert_eq!(code, 1);
    assert_eq!(
        daemon.last_change(),
        Change::RemoveBackend {
            service: web.clone(),
            backend: web_1.clone()
        }
    );
}

#[tokio::test]
async fn reload_says_what_changed_and_what_waits() {
    let daemon = Daemon::start().await;
    assert_eq!(daemon.table(&["reload"]).await, "nothing changed\n");
    assert_eq!(daemon.last_change(), Change::Replace(desired()));

    let mut config = Config::load(&daemon.path("lb.toml")).unwrap();
    config.desired.services.pop();
    config.conntrack.capacity = 5_000;
    std::fs::write(daemon.path("other.toml"), config.to_toml()).unwrap();
    // A relative path is relative to where lbctl runs, not to where lbd does.
    assert_eq!(
        daemon.table(&["reload", "other.toml"]).await,
        "service mail removed\n\
         needs a restart of lbd: [conntrack] capacity: 1000000 -> 5000\n"
    );
    assert_eq!(daemon.last_change(), Change::Replace(config.desired));
}

#[tokio::test]
async fn an_invalid_file_changes_nothing() {
    let daemon = Daemon::start().await;
    let path = daemon.path("bad.toml");
    std::fs::write(&path, "[[service]]\nnmae = \"web\"\n").unwrap();
    let (code, text) = daemon.failure(&["reload", "bad.toml"]).await;
    assert_eq!(code, 4);
    assert!(text.starts_with("lbctl: "), "{text}");
    let place = format!("{}:2:1: unknown key \"nmae\"", path.display());
    assert!(text.contains(&place), "{text}");
    let (code, text) = daemon.failure(&["reload", "missing.toml"]).await;
    assert_eq!(code, 4);
    assert!(text.contains("missing.toml"), "{text}");
    assert!(daemon.changes.lock().unwrap().is_empty());
}

#[tokio::test]
async fn save_writes_a_file_that_makes_the_same_state() {
    let daemon = Daemon::start().await;
    let file = daemon.path("saved.toml");
    assert_eq!(
        daemon.table(&["save", "saved.toml"]).await,
        format!("{}\n", file.display())
    );
    let saved = Config::load(&file).unwrap();
    assert_eq!(saved, Config::load(&daemon.path("lb.toml")).unwrap());
    assert_eq!(saved.desired, desired());

    std::fs::remove_file(daemon.path("lb.toml")).unwrap();
    assert_eq!(
        daemon.json(&["save"]).await,
        json!({"file": daemon.path("lb.toml")})
    );
    assert_eq!(Config::load(&daemon.path("lb.toml")).unwrap(), saved);

    let (code, text) = daemon.failure(&["save", "no/such/dir.toml"]).await;
    assert_eq!(code, 1);
    assert!(text.starts_with("lbctl: cannot write "), "{text}");
}

#[tokio::test]
async fn detach_is_left_to_the_daemon_which_then_ends() {
    let daemon = Daemon::start().await;
    assert_eq!(
        daemon.table(&["detach"]).await,
        "program of interface eth0 detached\n12 maps removed\n"
    );
    assert_eq!(*daemon.detached.lock().unwrap(), 1);
    let socket = daemon.path("lbd.sock");
    assert_eq!(daemon.ended(false).await, Ended::Detached);
    assert!(!socket.exists());
}

#[tokio::test]
async fn detach_needs_no_daemon() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("lb.toml");
    let mut config = Config::default();
    config.daemon.socket = directory.path().join("lbd.sock");
    config.daemon.bpffs = directory.path().join("pins");
    std::fs::write(&file, config.to_toml()).unwrap();
    // Without --socket: the configuration names it too.
    let output = lbctl(&["detach", "--config", file.to_str().unwrap(), "-o", "json"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(
        serde_json::from_slice::<Value>(&output.stdout).unwrap(),
        json!({"interfaces": [], "maps": 0})
    );

    std::fs::write(&file, "[demon]\n").unwrap();
    let output = lbctl(&["detach", "--config", file.to_str().unwrap()]).await;
    assert_eq!(output.status.code(), Some(4));
    assert!(
        stderr(&output).contains("lb.toml:1:"),
        "{}",
        stderr(&output)
    );
}

#[tokio::test]
async fn detach_of_other_pins_leaves_the_daemon_alone() {
    let daemon = Daemon::start().await;
    let other = daemon.path("other-pins");
    assert_eq!(
        daemon
            .table(&["detach", "--bpffs", other.to_str().unwrap()])
            .await,
        format!("nothing is attached: no pins below {}\n", other.display())
    );
    assert_eq!(*daemon.detached.lock().unwrap(), 0);

    let config = daemon.path("lb.toml");
    assert_eq!(
        daemon
            .json(&["detach", "--config", config.to_str().unwrap()])
            .await,
        json!({"interfaces": ["eth0"], "maps": 12})
    );
}

#[tokio::test]
async fn a_server_that_is_stopped_removes_its_socket() {
    let daemon = Daemon::start().await;
    let socket = daemon.path("lbd.sock");
    daemon.table(&["status"]).await;
    assert_eq!(daemon.ended(true).await, Ended::Shutdown);
    assert!(!socket.exists());
}
