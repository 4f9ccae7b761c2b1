//! A running service in another forwarding mode.

use std::net::SocketAddr;

use lb_tests::lab::{Topology, VIP4, wait_until};
use lb_userspace::api::Reloaded;

use super::{
    PATIENCE, PORT,
    ask::Ask,
    config::{Config, Service},
    setup::{Stage, finish, hear},
};

/// Backends answer clients themselves in every mode but `nat`, and so on the port that clients know.
fn vip() -> SocketAddr {
    SocketAddr::from((VIP4, PORT))
}

/// `web` in a mode, over every backend of the lab.
fn config(stage: &Stage, forwarding: &str) -> String {
    let service = Service {
        listen: vip(),
        ..Service::web(&stage.lab)
    };
    let text = Config::new([service]).to_string();
    text.replacen(
        "listen = ",
        &format!("forwarding = \"{forwarding}\"\nlisten = "),
        1,
    )
}

fn reload(stage: &mut Stage, forwarding: &str) -> String {
    let text = config(stage, forwarding);
    stage.lbd.configure(&text).unwrap();
    let reloaded: Reloaded = stage.lbd.json(&["reload"]);
    assert_eq!(reloaded.restart, [""; 0]);
    let service = stage.lbd.service("web");
    assert_eq!(service.forwarding.to_string(), forwarding);
    reloaded.changes.join("\n")
}

/// Between `nat` and `dsr`, and back: it is said that open connections break; they do, at once and
/// not by a timeout, and new ones reach every backend all the time.
#[test]
fn the_mode_of_a_running_service_can_be_changed() {
    let topology = Topology {
        backends: 3,
        ..Topology::default()
    };
    let mut stage = Stage::with("modes", &topology, |lab| {
        let service = Service {
            listen: vip(),
            ..Service::web(lab)
        };
        Config::new([service])
    });
    for host in stage.lab.backends() {
        let add = format!("address add {VIP4}/32 dev lo");
        host.netns().ip(&add).unwrap();
    }
    let sent_back = |stage: &Stage| stage.lbd.service("web").counters.traffic.packets_out;
    for (mode, replies_seen) in [("dsr", false), ("nat", true)] {
        let live = stage.lab.client().live_connections(vip(), 20).unwrap();
        hear(&live, 2);
        let told = reload(&mut stage, mode);
        assert!(
            told.contains(&format!("has forwarding {mode}, not ")),
            "{told}"
        );
        assert!(told.contains("the connections that it has break"), "{told}");
        wait_until(
            PATIENCE,
            "every connection of the old mode has ended",
            || live.report().broken.len() == 20,
        );
        drop(live);

        let before = sent_back(&stage);
        let spread = stage.spread(vip(), 300);
        assert_eq!(spread.len(), 3, "{spread:?}");
        assert_eq!(sent_back(&stage) > before, replies_seen);
    }
}

/// From one mode that leaves addresses alone to itself with another setting, and through a restart:
/// nothing breaks.
#[test]
fn a_restart_in_a_mode_without_replies_breaks_no_connection() {
    let topology = Topology {
        backends: 2,
        ..Topology::default()
    };
    let mut stage = Stage::with("dsr-restart", &topology, |lab| {
        for host in lab.backends() {
            let add = format!("address add {VIP4}/32 dev lo");
            host.netns().ip(&add).unwrap();
        }
        let service = Service {
            listen: vip(),
            ..Service::web(lab)
        };
        Config::new([service])
    });
    reload(&mut stage, "dsr");
    let live = stage.lab.client().live_connections(vip(), 20).unwrap();
    hear(&live, 2);
    let text = config(&stage, "dsr").replacen("listen = ", "no_backend = \"drop\"\nlisten = ", 1);
    stage.lbd.configure(&text).unwrap();
    let reloaded: Reloaded = stage.lbd.json(&["reload"]);
    assert_eq!(
        reloaded.changes,
        ["service web has no_backend drop, not rst"]
    );
    stage.lbd.kill9().unwrap();
    hear(&live, 2);
    stage.lbd.start_again().unwrap();
    hear(&live, 2);
    finish(live);
}
