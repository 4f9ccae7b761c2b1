//! Errors change no connection.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use lb_common::flow::Tick;
use lb_tests::{
    lab::wait_until,
    packets::{Icmp, Packet, Testbed, Verdict, address, flags},
};

use super::{FAMILIES, Family};

/// Every error there is, in both directions, about this client's connection.
fn errors(family: &Family, client: SocketAddr) -> Vec<Icmp> {
    let kinds: &[u8] = match family.is_ipv4() {
        true => &[3, 11, 12],
        false => &[1, 2, 3, 4],
    };
    let codes = |&kind: &u8| (0..=15).map(move |code| (kind, code));
    let both = |(kind, code)| {
        [
            family.towards_backend().quoting(|packet| packet.to(client)),
            family
                .towards_client()
                .quoting(|packet| packet.from(client)),
        ]
        .map(|error| error.kind(kind, code))
    };
    kinds.iter().flat_map(codes).flat_map(both).collect()
}

/// S-ICMP-3: no record is removed, changed or given a later expiry, in whatever state it is; and none is
/// made.
#[test]
fn errors_change_no_record() {
    use flags::{ACK, FIN, RST, SYN, SYN_ACK};
    // What the client (true) and the backend (false) have sent.
    let lives: [(&str, &[(bool, u8)]); 6] = [
        ("SYN_SENT", &[(true, SYN)]),
        ("SYN_RECEIVED", &[(true, SYN), (false, SYN_ACK)]),
        ("REFUSED", &[(true, SYN), (false, RST | ACK)]),
        ("ESTABLISHED", &[(true, SYN), (false, SYN_ACK), (true, ACK)]),
        (
            "FIN_WAIT",
            &[
                (true, SYN),
                (false, SYN_ACK),
                (true, ACK),
                (true, FIN | ACK),
            ],
        ),
        (
            "RESET",
            &[(true, SYN), (false, SYN_ACK), (true, ACK), (true, RST)],
        ),
    ];
    let mut testbed = Testbed::with_one_backend_each();
    let clients = |family: &Family, n: usize| {
        let mut client = address(family.client);
        client.set_port(50_000 + n as u16);
        client
    };
    for family in &FAMILIES {
        for (n, (state, life)) in lives.iter().enumerate() {
            let client = clients(family, n);
            for &(from_client, flags) in *life {
                match from_client {
                    true => testbed.request(client, address(family.listen), flags),
                    false => testbed.reply(address(family.server), client, flags),
                };
            }
            assert_eq!(testbed.state(family.service, client), Some(*state));
        }
    }
    // Whoever renews a record in the tick that it is from does so unseen.
    let (begun, tick) = (Instant::now(), Duration::from_nanos(Tick::NANOSECONDS));
    wait_until(3 * tick, "a tick passes", || begun.elapsed() > tick);
    let mut records = testbed.records();
    for family in &FAMILIES {
        // The last client has no connection, and no route leads to it: only its slot is known.
        for n in 0..=lives.len() {
            let client = clients(family, n);
            for error in errors(family, client) {
                let outcome = testbed.run(&error.build());
                let sent = n < lives.len() || error.destination() != client.ip();
                let expected = if sent {
                    Verdict::Transmit
                } else {
                    Verdict::Pass
                };
                assert_eq!(outcome.verdict, expected, "{error:?}");
            }
        }
    }
    assert!(testbed.records() == records);
    // That one sees a change: the connection's own packets make it.
    for family in &FAMILIES {
        for (n, (state, _)) in lives.iter().enumerate() {
            let packet = Packet::new(clients(family, n), address(family.listen));
            testbed.run(&packet.flags(SYN).build());
            let changed = testbed.records();
            assert!(changed != records, "{state}");
            records = changed;
        }
    }
}

/// S-ICMP-3: a connection goes on after "port unreachable" from either side, as after any forged
/// error.
#[test]
fn connections_survive_errors() {
    let mut testbed = Testbed::with_one_backend_each();
    for family in &FAMILIES {
        let (client, listen) = (address(family.client), address(family.listen));
        let server = testbed.connect(client, listen);
        for error in errors(family, client) {
            testbed.run(&error.build());
        }
        assert_eq!(testbed.state(family.service, client), Some("ESTABLISHED"));
        assert_eq!(testbed.request(client, listen, flags::ACK), server);
        assert_eq!(testbed.reply(server, client, flags::ACK), listen);
    }
}
