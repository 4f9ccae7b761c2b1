//! Servers and clients: what they count, check and notice.

use std::time::Duration;

use lb_tests::lab::{Lab, output, wait_until};

use super::{PATIENCE, PORT};

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
fn ten_thousand_connections_are_held_at_once() {
    let lab = Lab::new("many-held").unwrap();
    let backend = &lab.backends()[0];
    let _server = backend.spawn_identity(PORT).unwrap();
    let held = lab
        .client()
        .hold_many(backend.v4(PORT), 10_000, 100)
        .unwrap();
    assert_eq!(held.spread.failures, [""; 0]);
    assert_eq!(held.spread.connected(), 10_000);
    assert_eq!(backend.established(PORT).unwrap().len(), 10_000);
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
