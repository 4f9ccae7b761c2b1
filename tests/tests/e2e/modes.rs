//! A running service in another forwarding mode.

use std::net::SocketAddr;

use lb_tests::lab::{Lab, Topology, VIP4, wait_until};
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

/// `web` over every backend of the lab, with such settings.
fn web(lab: &Lab, settings: &str) -> Config {
    Config::new([Service {
        listen: vip(),
        settings: settings.to_owned(),
        ..Service::web(lab)
    }])
}

/// So many backends, which have the service's address, too.
fn stage(hint: &str, backends: u8, settings: &str) -> Stage {
    let topology = Topology {
        backends,
        ..Topology::default()
    };
    Stage::with(hint, &topology, |lab| {
        for host in lab.backends() {
            let add = format!("address add {VIP4}/32 dev lo");
            host.netns().ip(&add).unwrap();
        }
        web(lab, settings)
    })
}

/// What a reload with such settings says.
fn reload(stage: &mut Stage, settings: &str) -> String {
    let text = web(&stage.lab, settings).to_string();
    stage.lbd.configure(&text).unwrap();
    let reloaded: Reloaded = stage.lbd.json(&["reload"]);
    assert_eq!(reloaded.restart, [""; 0]);
    reloaded.changes.join("\n")
}

/// Between `nat` and `dsr`, and back: it is said that open connections break; they do, at once and
/// not by a timeout, and new ones reach every backend all the time.
#[test]
fn the_mode_of_a_running_service_can_be_changed() {
    let mut stage = stage("modes", 3, "");
    let sent_back = |stage: &Stage| stage.lbd.service("web").counters.traffic.packets_out;
    for (mode, replies_seen) in [("dsr", false), ("nat", true)] {
        let live = stage.lab.client().live_connections(vip(), 20).unwrap();
        hear(&live, 2);
        let told = reload(&mut stage, &format!("forwarding = \"{mode}\""));
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

/// S-CT-4: nor does a change of a setting that leaves addresses alone.
#[test]
fn a_restart_in_a_mode_without_replies_breaks_no_connection() {
    let dsr = "forwarding = \"dsr\"";
    let mut stage = stage("dsr-restart", 2, dsr);
    let live = stage.lab.client().live_connections(vip(), 20).unwrap();
    hear(&live, 2);
    assert_eq!(
        reload(&mut stage, &format!("{dsr}\nno_backend = \"drop\"")),
        "service web has no_backend drop, not rst"
    );
    stage.lbd.kill9().unwrap();
    hear(&live, 2);
    stage.lbd.start_again().unwrap();
    hear(&live, 2);
    finish(live);
}
