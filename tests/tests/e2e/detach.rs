//! `lbctl detach` takes everything down, and leaves the host as it was.

use lb_tests::lab::{IdentityServer, wait_until};
use lb_userspace::api::Detached;

use super::{
    PATIENCE,
    ask::Ask,
    setup::{Stage, vip4},
};

/// No program, no pins, no socket; packets for the service's address reach the host's own server.
fn assert_is_down(stage: &Stage) {
    let lb = stage.lab.lb().netns();
    let links = lb.ip("link show").unwrap();
    assert!(!links.contains("xdp"), "{links}");
    assert!(!stage.lbd.bpffs().exists());
    assert!(!stage.lbd.socket().exists());
    lb.ip("address replace 192.0.2.10/32 dev lo").unwrap();
    let _server = IdentityServer::start("lb", lb, 80).unwrap();
    let greeting = stage.lab.client().exchange(vip4(), 10_000).unwrap();
    assert_eq!(greeting.server, "lb");
}

/// With what it had, also what `lbctl` has changed.
fn assert_starts_again(stage: &mut Stage) {
    stage.lbd.start_again().unwrap();
    stage.await_next_hops();
    let by_server = stage.spread(vip4(), 50);
    assert_eq!(by_server, [("backend-2".to_owned(), 50)].into());
    assert!(stage.lbd.conntrack().used >= 50);
}

#[test]
fn a_running_daemon_takes_the_data_plane_down_and_ends() {
    let mut stage = Stage::new("detach", 2);
    stage.lbd.change(&["backend", "drain", "web", "backend-1"]);
    stage.spread(vip4(), 20);
    for _ in 0..2 {
        let detached: Detached = stage.lbd.json(&["detach"]);
        assert_eq!(detached.interfaces, ["eth0", "eth1"]);
        assert!(detached.maps > 0);
        wait_until(PATIENCE, "the daemon has ended", || {
            !stage.lbd.socket().exists()
        });
        assert!(stage.lbd.terminate().unwrap().success());
        assert!(stage.lbd.log().contains("detached; ending"));
        assert_is_down(&stage);
        assert_starts_again(&mut stage);
    }
}

#[test]
fn what_a_dead_daemon_has_left_is_taken_down() {
    let mut stage = Stage::new("detach-dead", 2);
    stage.lbd.change(&["backend", "drain", "web", "backend-1"]);
    stage.lbd.kill9().unwrap();
    stage.spread(vip4(), 20);
    let config = stage.lbd.config_path().to_str().unwrap().to_owned();
    let said = stage
        .lbd
        .lbctl_text(&["detach", "--config", &config])
        .unwrap();
    assert!(
        said.contains("program of interface eth0 detached"),
        "{said}"
    );
    // A killed daemon cannot remove its socket, and whoever comes next takes its place.
    std::fs::remove_file(stage.lbd.socket()).unwrap();
    assert_is_down(&stage);
    let again = stage
        .lbd
        .lbctl_text(&["detach", "--config", &config])
        .unwrap();
    assert!(again.starts_with("nothing is attached"), "{again}");
    assert_starts_again(&mut stage);
}
