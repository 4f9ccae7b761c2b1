//! The life of a connection: which backend its packets go to, and the state that its record shows.

use std::{net::SocketAddr, time::Duration};

use lb_tests::lab::wait_until;
use lb_tests::packets::{
    CLIENT, CLIENT6, Expect, LISTEN, LISTEN6, Packet, SERVER, SERVER6, Testbed, WEB, WEB6, address,
    client,
    flags::{ACK, FIN, PSH, RST, SYN, SYN_ACK},
    timeouts,
};
use lb_userspace::{dataplane::Timeouts, model::BackendIndex};

const PATIENCE: Duration = Duration::from_secs(10);

const FOUR: [(u16, &str); 4] = [
    (1, "10.0.0.1:8080"),
    (2, "10.0.0.2:8080"),
    (3, "10.0.0.3:8080"),
    (4, "10.0.0.4:8080"),
];

/// With so much room that every connection finds a place.
fn with_four_backends() -> Testbed {
    let mut testbed = Testbed::with_capacity(10_000);
    testbed.add_service(WEB, LISTEN, &FOUR);
    testbed
}

fn index_of(server: SocketAddr) -> u16 {
    let found = FOUR.iter().find(|(_, text)| address(text) == server);
    found.unwrap_or_else(|| panic!("{server} is no backend")).0
}

/// Who sends a segment.
#[derive(Clone, Copy, Debug)]
enum Sender {
    Client,
    Backend,
}
use Sender::{Backend, Client};

/// Runs segments of one connection with the only backend, in both families, and holds the state
/// that its record shows after each against what is expected.
fn walk(steps: &[(Sender, u8, &str)]) {
    let mut testbed = Testbed::with_one_backend_each();
    for (service, listen, server, client) in [
        (WEB, LISTEN, SERVER, CLIENT),
        (WEB6, LISTEN6, SERVER6, CLIENT6),
    ] {
        let (listen, server, client) = (address(listen), address(server), address(client));
        for (n, (from, flags, state)) in steps.iter().enumerate() {
            match from {
                Client => assert_eq!(testbed.request(client, listen, *flags), server),
                Backend => assert_eq!(testbed.reply(server, client, *flags), listen),
            }
            let shown = testbed.state(service, client);
            assert_eq!(shown, Some(*state), "step {n}: {from:?} {flags:#04x}");
        }
    }
}

const OPEN: [(Sender, u8, &str); 3] = [
    (Client, SYN, "SYN_SENT"),
    (Backend, SYN_ACK, "SYN_RECEIVED"),
    (Client, ACK, "ESTABLISHED"),
];

/// S-NAT-2
#[test]
fn a_connection_is_opened_used_and_closed_by_the_client() {
    walk(&[
        OPEN[0],
        OPEN[1],
        OPEN[2],
        (Client, PSH | ACK, "ESTABLISHED"),
        (Backend, ACK, "ESTABLISHED"),
        (Backend, PSH | ACK, "ESTABLISHED"),
        (Client, ACK, "ESTABLISHED"),
        (Client, FIN | ACK, "FIN_WAIT"),
        (Backend, ACK, "FIN_WAIT"),
        (Backend, PSH | ACK, "FIN_WAIT"),
        (Client, ACK, "FIN_WAIT"),
        (Backend, FIN | ACK, "CLOSING"),
        (Client, ACK, "TIME_WAIT"),
        (Backend, FIN | ACK, "TIME_WAIT"),
        (Client, ACK, "TIME_WAIT"),
    ]);
}

/// S-NAT-2: half-close in the other direction.
#[test]
fn a_connection_is_closed_by_the_backend() {
    walk(&[
        OPEN[0],
        OPEN[1],
        OPEN[2],
        (Backend, FIN | ACK, "FIN_WAIT"),
        (Client, PSH | ACK, "FIN_WAIT"),
        (Backend, ACK, "FIN_WAIT"),
        (Client, FIN | ACK, "CLOSING"),
        (Backend, ACK, "CLOSING"),
    ]);
}

/// S-NAT-2: simultaneous open (RFC 9293 §3.5), retransmitted SYN and SYN-ACK.
#[test]
fn handshakes_may_be_unusual() {
    walk(&[
        (Client, SYN, "SYN_SENT"),
        (Backend, SYN, "SYN_SENT"),
        (Backend, SYN_ACK, "SYN_RECEIVED"),
        (Client, ACK, "ESTABLISHED"),
    ]);
    walk(&[
        (Client, SYN, "SYN_SENT"),
        (Client, SYN, "SYN_SENT"),
        (Backend, SYN_ACK, "SYN_RECEIVED"),
        (Client, SYN, "SYN_RECEIVED"),
        (Backend, SYN_ACK, "SYN_RECEIVED"),
        (Client, PSH | ACK, "ESTABLISHED"),
    ]);
}

/// S-NAT-6: a RST of the client only shortens the timer; whoever shows the connection alive
/// restores it.
#[test]
fn a_forged_reset_ends_nothing() {
    for alive in [(Client, ACK), (Client, PSH | ACK), (Backend, ACK)] {
        walk(&[
            OPEN[0],
            OPEN[1],
            OPEN[2],
            (Client, RST, "RESET"),
            (alive.0, alive.1, "ESTABLISHED"),
        ]);
    }
}

/// S-NAT-6: the transitory timer is the shorter one, and is undone with it.
#[test]
fn a_reset_shortens_the_timer() {
    let mut testbed = Testbed::with_one_backend_each();
    let (listen, client) = (address(LISTEN), address(CLIENT));
    let hour = Duration::from_secs(3600);
    testbed.write_service(
        WEB,
        LISTEN,
        Timeouts {
            reset: Duration::ZERO,
            established: hour,
            ..timeouts()
        },
    );
    testbed.connect(client, listen);
    testbed.request(client, listen, RST);
    testbed.request(client, listen, ACK);
    let living = testbed.connections();
    assert_eq!(living.len(), 1);
    assert_eq!(living[0].state, "ESTABLISHED");
    testbed.request(client, listen, RST);
    wait_until(PATIENCE, "a reset connection expires", || {
        testbed.connections().is_empty()
    });
    assert_eq!(testbed.totals().used, 0);
}

/// S-CT-1: a backend that refuses makes the record replaceable, whatever was there.
#[test]
fn a_refusal_takes_the_record_back() {
    walk(&[
        (Client, SYN, "SYN_SENT"),
        (Backend, RST | ACK, "REFUSED"),
        (Client, ACK, "REFUSED"),
        (Client, SYN, "SYN_SENT"),
    ]);
    walk(&[
        (Client, ACK, "SYN_SENT"),
        (Client, PSH | ACK, "SYN_SENT"),
        (Backend, RST, "REFUSED"),
    ]);
}

/// S-CT-5: a connection without a record is picked up where its slot's owner confirms it.
#[test]
fn a_lost_connection_is_picked_up() {
    walk(&[
        (Client, PSH | ACK, "SYN_SENT"),
        (Backend, ACK, "ESTABLISHED"),
        (Client, ACK, "ESTABLISHED"),
    ]);
    walk(&[
        (Client, FIN | ACK, "SYN_SENT"),
        (Backend, FIN | ACK, "FIN_WAIT"),
    ]);
}

/// S-CT-5: state lost, slots unmoved: the same backend, in the middle of a connection too. A RST
/// leaves no record.
#[test]
fn a_connection_without_a_record_reaches_its_slots_owner() {
    let mut testbed = with_four_backends();
    let listen = address(LISTEN);
    let owners: Vec<_> = (0..200)
        .map(|n| testbed.connect(client(n), listen))
        .collect();
    testbed.forget_connections();
    for (n, owner) in (0..).zip(&owners) {
        let flags = [ACK, PSH | ACK, FIN | ACK, SYN][n as usize % 4];
        assert_eq!(testbed.request(client(n), listen, RST), *owner);
        assert_eq!(testbed.state(WEB, client(n)), None);
        assert_eq!(testbed.request(client(n), listen, flags), *owner);
        assert_eq!(testbed.reply(*owner, client(n), ACK), listen);
    }
}

/// S-NAT-2, S-NAT-7: a SYN that is sent again, or on a living connection, goes to its backend even
/// when the slots have moved.
#[test]
fn a_syn_on_a_living_connection_goes_to_its_backend() {
    let mut testbed = with_four_backends();
    let listen = address(LISTEN);
    let half_open: Vec<_> = (0..50)
        .map(|n| testbed.request(client(n), listen, SYN))
        .collect();
    let established: Vec<_> = (50..100)
        .map(|n| testbed.connect(client(n), listen))
        .collect();
    let reset: Vec<_> = (100..150)
        .map(|n| testbed.connect(client(n), listen))
        .collect();
    for n in 100..150 {
        testbed.request(client(n), listen, RST);
    }
    let counted = connections(&testbed);
    testbed.share(WEB, &[4]);
    let owners = half_open.iter().chain(&established).chain(&reset);
    for (n, owner) in (0..).zip(owners) {
        assert_eq!(testbed.request(client(n), listen, SYN), *owner);
    }
    assert_eq!(
        connections(&testbed),
        counted,
        "none of these is a new connection"
    );
    for (n, owner) in (50..).zip(&established) {
        assert_eq!(testbed.state(WEB, client(n)), Some("ESTABLISHED"));
        assert_eq!(testbed.request(client(n), listen, ACK), *owner);
    }
    for n in 100..150 {
        assert_eq!(testbed.state(WEB, client(n)), Some("RESET"));
    }
}

/// S-NAT-7: a SYN on a closing, closed or refused connection begins a new one, without delay.
#[test]
fn a_syn_on_a_closed_connection_begins_a_new_one() {
    let mut testbed = with_four_backends();
    let listen = address(LISTEN);
    type Ending = &'static [(Sender, u8)];
    let endings: [Ending; 4] = [
        &[(Client, FIN | ACK), (Backend, FIN | ACK)],
        &[(Backend, FIN | ACK), (Client, FIN | ACK)],
        &[(Client, FIN | ACK), (Backend, FIN | ACK), (Client, ACK)],
        &[(Backend, RST)],
    ];
    for (case, ending) in (0..).zip(endings) {
        testbed.share(WEB, &[1, 2, 3]);
        let clients: Vec<_> = (0..20).map(|n| client(1000 * case + n)).collect();
        for client in &clients {
            let backend = testbed.connect(*client, listen);
            for (from, flags) in ending {
                match from {
                    Client => assert_eq!(testbed.request(*client, listen, *flags), backend),
                    Backend => assert_eq!(testbed.reply(backend, *client, *flags), listen),
                }
            }
        }
        let counted = connections(&testbed);
        testbed.share(WEB, &[4]);
        for client in &clients {
            assert_eq!(
                index_of(testbed.connect(*client, listen)),
                4,
                "ending {case}"
            );
            assert_eq!(testbed.state(WEB, *client), Some("ESTABLISHED"));
        }
        assert_eq!(connections(&testbed), counted + 20);
    }
}

/// S-NAT-7: an expired record is not in the way of a new connection, even before it is swept.
#[test]
fn a_syn_on_an_expired_connection_begins_a_new_one() {
    let mut testbed = with_four_backends();
    let listen = address(LISTEN);
    let brief = Timeouts {
        established: Duration::ZERO,
        ..timeouts()
    };
    testbed.write_service(WEB, LISTEN, brief);
    let clients: Vec<_> = (0..20).map(client).collect();
    for client in &clients {
        testbed.connect(*client, listen);
    }
    testbed.share(WEB, &[4]);
    wait_until(PATIENCE, "the connections expire", || {
        testbed.connections().is_empty()
    });
    for client in &clients {
        assert_eq!(index_of(testbed.connect(*client, listen)), 4);
    }
}

/// A backend that takes no new connections: a retransmitted SYN moves on, what is established
/// stays.
#[test]
fn a_half_open_connection_leaves_a_backend_that_went_down() {
    let mut testbed = with_four_backends();
    let listen = address(LISTEN);
    testbed.share(WEB, &[1]);
    testbed.request(client(1), listen, SYN);
    testbed.request(client(2), listen, SYN);
    testbed.reply(address(FOUR[0].1), client(2), SYN_ACK);
    testbed.connect(client(3), listen);
    testbed.share(WEB, &[2]);
    let (index, server) = FOUR[0];
    testbed.write_backend(WEB, LISTEN, index, server, |backend| {
        backend.accepts_new = false;
    });
    assert_eq!(index_of(testbed.request(client(1), listen, SYN)), 2);
    assert_eq!(index_of(testbed.request(client(1), listen, ACK)), 2);
    assert_eq!(index_of(testbed.request(client(2), listen, SYN)), 2);
    assert_eq!(index_of(testbed.request(client(3), listen, SYN)), 1);
    assert_eq!(index_of(testbed.request(client(3), listen, ACK)), 1);
    assert_eq!(testbed.state(WEB, client(3)), Some("ESTABLISHED"));
}

/// S-CT-3: a table that is swapped between two packets moves new connections only.
#[test]
fn a_table_swap_moves_new_connections_only() {
    let mut testbed = with_four_backends();
    let listen = address(LISTEN);
    let owners: Vec<_> = (0..100)
        .map(|n| testbed.connect(client(n), listen))
        .collect();
    for backends in [&[4][..], &[1, 2], &[3, 1, 4], &[]] {
        testbed.share(WEB, backends);
        for (n, owner) in (0..).zip(&owners) {
            assert_eq!(testbed.request(client(n), listen, PSH | ACK), *owner);
            assert_eq!(testbed.reply(*owner, client(n), ACK), listen);
        }
        let fresh = (0..20).map(|n| client(5000 + 100 * backends.len() as u32 + n));
        for client in fresh.filter(|_| !backends.is_empty()) {
            let index = index_of(testbed.request(client, listen, SYN));
            assert!(
                backends.contains(&index),
                "{index} is not among {backends:?}"
            );
        }
    }
}

/// S-NAT-7: a SYN-ACK from the client side on a connection that is there changes nothing.
#[test]
fn a_syn_ack_of_a_client_is_no_new_connection() {
    let mut testbed = with_four_backends();
    let listen = address(LISTEN);
    let backend = testbed.connect(client(1), listen);
    testbed.request(client(1), listen, FIN | ACK);
    testbed.reply(backend, client(1), FIN | ACK);
    let counted = connections(&testbed);
    assert_eq!(testbed.request(client(1), listen, SYN_ACK), backend);
    assert_eq!(testbed.state(WEB, client(1)), Some("CLOSING"));
    assert_eq!(connections(&testbed), counted);
}

/// A reply of the wrong backend belongs to no connection.
#[test]
fn a_reply_of_another_backend_is_not_translated() {
    let mut testbed = with_four_backends();
    let backend = testbed.connect(client(1), address(LISTEN));
    for (index, server) in FOUR {
        if index == index_of(backend) {
            continue;
        }
        let stranger = Packet::new(address(server), client(1)).build();
        testbed.check("another backend", &stranger, &Expect::Pass);
    }
}

/// S-FWD-7: a client may use the port of a connection that is over to speak with the backend itself.
#[test]
fn a_closed_connection_gives_its_port_to_one_straight_to_the_backend() {
    let mut testbed = Testbed::with_one_backend_each();
    for (service, listen, server, client) in [
        (WEB, LISTEN, SERVER, CLIENT),
        (WEB6, LISTEN6, SERVER6, CLIENT6),
    ] {
        let (listen, server, client) = (address(listen), address(server), address(client));
        for last in ["CLOSING", "TIME_WAIT"] {
            testbed.connect(client, listen);
            testbed.request(client, listen, FIN | ACK);
            testbed.reply(server, client, FIN | ACK);
            if last == "TIME_WAIT" {
                testbed.request(client, listen, ACK);
            }
            assert_eq!(testbed.state(service, client), Some(last));
            for flags in [SYN_ACK, ACK, PSH | ACK, FIN | ACK] {
                let reply = Packet::new(server, client).flags(flags).build();
                testbed.check("straight from the backend", &reply, &Expect::Pass);
            }
            assert_eq!(testbed.state(service, client), None);
        }
    }
}

/// Connections that the backends were given, as counted.
fn connections(testbed: &Testbed) -> u64 {
    let indices = FOUR.iter().map(|(index, _)| BackendIndex(*index));
    indices
        .map(|index| testbed.backend_counters(index).connections)
        .sum()
}
