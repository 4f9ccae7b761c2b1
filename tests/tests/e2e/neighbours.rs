//! Machines get other MAC addresses; live connections follow them.

use std::time::{Duration, Instant};

use lb_tests::lab::{Host, LiveConnections, wait_until};

use super::{
    PATIENCE,
    ask::Ask,
    setup::{Stage, finish, hear, vip4},
};

const MAC: &str = "02:00:00:00:00:77";

/// Gives the host another address, which it announces to its neighbours, as the successor of a
/// failed machine does.
fn move_to_another_mac(host: &Host) {
    let announce = [("ipv4/conf/eth0/arp_notify", "1")];
    host.netns().sysctl(&announce).unwrap();
    host.netns()
        .ip(&format!("link set eth0 address {MAC}"))
        .unwrap();
}

/// How long the connections took to be answered again, all of them.
fn silence(live: &LiveConnections, since: Instant) -> Duration {
    hear(live, 2);
    since.elapsed()
}

/// What is lost while the news travels comes again from TCP, which waits 200, 400, 800 and 1600 ms: the
/// fourth time at the latest.
const AT_ONCE: Duration = Duration::from_secs(4);

#[test]
fn a_backend_s_new_mac_is_followed() {
    let stage = Stage::new("backend-mac", 2);
    let live = stage.talk(50);
    hear(&live, 2);
    let moved = Instant::now();
    move_to_another_mac(&stage.lab.backends()[0]);
    wait_until(PATIENCE, "the new address is known", || {
        let hop = stage.lbd.backend("web", "backend-1").next_hop;
        hop.is_some_and(|hop| hop.mac == MAC)
    });
    let known = moved.elapsed();
    assert!(known < Duration::from_secs(1), "known after {known:?}");
    let silence = silence(&live, moved);
    assert!(silence < AT_ONCE, "silent for {silence:?}");
    assert_eq!(stage.spread(vip4(), 50).len(), 2);
    finish(live);
}

/// Replies go where the last request came from: nobody has to resolve the client.
#[test]
fn a_client_s_new_mac_is_followed() {
    let stage = Stage::new("client-mac", 2);
    let live = stage.talk(50);
    hear(&live, 2);
    let moved = Instant::now();
    move_to_another_mac(stage.lab.client());
    let silence = silence(&live, moved);
    assert!(silence < AT_ONCE, "silent for {silence:?}");
    assert_eq!(stage.spread(vip4(), 50).len(), 2);
    finish(live);
}
