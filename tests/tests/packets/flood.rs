//! Floods of SYNs: connections that are forwarded and not recorded.

use lb_common::reason::Reason;
use lb_tests::{
    bench::pin,
    packets::{
        LISTEN, LISTEN6, Packet, SERVER, SERVER6, Testbed, Verdict, WEB, WEB6, address, client,
        client6,
        flags::{ACK, SYN},
        let_ticks_pass, within_a_tick,
    },
};
use lb_userspace::model::Forwarding;

const LIMIT: u32 = 10;

fn testbed() -> Testbed {
    let mut testbed = Testbed::with_settings(|settings| settings.flood_limit = LIMIT);
    testbed.add_service(WEB, LISTEN, &[(1, SERVER)]);
    testbed.add_service(WEB6, LISTEN6, &[(2, SERVER6)]);
    testbed
}

/// The meter counts CPU by CPU.
fn stay_on_one_cpu() {
    pin().expect("a thread may be pinned");
}

/// S-CT-1: above the limit SYNs are forwarded and make no record; what was recorded is followed,
/// and an ACK makes up for the record that its SYN has not made.
#[test]
fn in_a_flood_syns_make_no_records() {
    stay_on_one_cpu();
    let families = [
        (
            WEB,
            LISTEN,
            SERVER,
            client as fn(u32) -> std::net::SocketAddr,
        ),
        (WEB6, LISTEN6, SERVER6, client6),
    ];
    for (service, listen, server, client) in families {
        let mut testbed = testbed();
        let (listen, server) = (address(listen), address(server));
        testbed.connect(client(0), listen);
        let mut next = 1;
        let (recorded, not_recorded) = within_a_tick(|| {
            let clients = next..next + 3 * LIMIT;
            next = clients.end;
            let before = testbed.reason(service, Reason::FloodUnrecorded);
            for number in clients.clone() {
                assert_eq!(testbed.request(client(number), listen, SYN), server);
            }
            let connections = testbed.connections();
            let recorded = |number: &u32| connections.iter().any(|c| c.client == client(*number));
            let counted = testbed.reason(service, Reason::FloodUnrecorded) - before;
            let (with, without): (Vec<u32>, Vec<u32>) = clients.partition(recorded);
            assert_eq!(counted, without.len() as u64);
            (with, without)
        });
        // A tick that follows another one of a flood may have no recorded ones at all.
        assert!(recorded.len() <= LIMIT as usize, "{recorded:?}");
        assert!(not_recorded.len() >= 2 * LIMIT as usize);

        assert_eq!(testbed.state(service, client(0)), Some("ESTABLISHED"));
        assert_eq!(testbed.request(client(0), listen, ACK), server);
        let late = client(not_recorded[0]);
        assert_eq!(testbed.request(late, listen, ACK), server);
        assert_eq!(testbed.state(service, late), Some("SYN_SENT"));
        assert_eq!(testbed.reply(server, late, ACK), listen);
        assert_eq!(testbed.state(service, late), Some("ESTABLISHED"));
        assert_eq!(testbed.reason(service, Reason::Untracked), 0);
    }
}

/// When it is over, everything is as before by itself.
#[test]
fn after_a_flood_syns_are_recorded_again() {
    stay_on_one_cpu();
    let mut testbed = testbed();
    let listen = address(LISTEN);
    for number in 0..5 * LIMIT {
        testbed.request(client(number), listen, SYN);
    }
    assert!(testbed.reason(WEB, Reason::FloodUnrecorded) > 0);
    let_ticks_pass(2);
    testbed.request(client(1000), listen, SYN);
    assert_eq!(testbed.state(WEB, client(1000)), Some("SYN_SENT"));
}

/// Where only one direction is seen there are no replies to look out for.
#[test]
fn one_way_services_have_floods_too() {
    stay_on_one_cpu();
    let mut testbed = Testbed::with_settings(|settings| settings.flood_limit = LIMIT);
    let backends = [(1, "10.0.0.1:80")];
    testbed.add_service_with(WEB, LISTEN, &backends, Forwarding::Ipip, |_| {}, |_| {});
    for number in 0..5 * LIMIT {
        let packet = Packet::new(client(number), address(LISTEN)).flags(SYN);
        assert_eq!(testbed.run(&packet.build()).verdict, Verdict::Transmit);
    }
    assert!(testbed.reason(WEB, Reason::FloodUnrecorded) > 0);
}
