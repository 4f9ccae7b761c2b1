//! A connection table that is full, or under attack.

use std::net::SocketAddr;

use lb_common::reason::Reason;
use lb_tests::packets::{
    LISTEN, LISTEN6, SERVER, SERVER6, Testbed, WEB, WEB6, address, client, client6,
    flags::{ACK, PSH, SYN},
};
use lb_userspace::model::ServiceId;

/// Tables for 64 flows each: 23 buckets of 4 records.
const FLOWS: u32 = 64;
const RECORDS: usize = 92;
const OTHER_SERVER: &str = "10.0.0.9:8080";
const OTHER_SERVER6: &str = "[fd00::9]:8080";

/// A service of each family, and how its clients are called.
struct Family {
    service: ServiceId,
    listen: &'static str,
    servers: [&'static str; 2],
    /// Of the backends at `servers`.
    indices: [u16; 2],
    client: fn(u32) -> SocketAddr,
}

const FAMILIES: [Family; 2] = [
    Family {
        service: WEB,
        listen: LISTEN,
        servers: [SERVER, OTHER_SERVER],
        indices: [1, 3],
        client,
    },
    Family {
        service: WEB6,
        listen: LISTEN6,
        servers: [SERVER6, OTHER_SERVER6],
        indices: [2, 4],
        client: client6,
    },
];

/// All slots belong to the first server at first, so that a move of all slots to the second tells
/// what is tracked from what is hashed.
fn small_tables() -> Testbed {
    let mut testbed = Testbed::with_capacity(FLOWS);
    for family in &FAMILIES {
        let backends = [0, 1].map(|n| (family.indices[n], family.servers[n]));
        testbed.add_service(family.service, family.listen, &backends);
        testbed.share(family.service, &family.indices[..1]);
    }
    testbed
}

/// Makes connections until this many have a record; their clients. Hashing leaves some without one
/// before all records are taken.
fn establish(testbed: &mut Testbed, family: &Family, wanted: usize) -> Vec<SocketAddr> {
    let mut tracked = Vec::new();
    for n in 0..2_000 {
        let client = (family.client)(n);
        if testbed.connect_if_tracked(client, address(family.listen)) {
            tracked.push(client);
        }
        if tracked.len() == wanted {
            return tracked;
        }
    }
    panic!("only {} of {wanted} records are used", tracked.len());
}

/// S-CT-1: a SYN flood removes no established connection, not even from a table that it fills.
#[test]
fn a_syn_flood_removes_no_established_connection() {
    let mut testbed = small_tables();
    for family in &FAMILIES {
        let listen = address(family.listen);
        let [first, second] = family.servers.map(address);
        let tracked = establish(&mut testbed, family, 40);
        testbed.share(family.service, &family.indices[1..]);
        for n in 0..5_000 {
            let backend = testbed.request((family.client)(100_000 + n), listen, SYN);
            assert_eq!(backend, second);
        }
        for client in tracked {
            assert_eq!(testbed.state(family.service, client), Some("ESTABLISHED"));
            assert_eq!(testbed.request(client, listen, PSH | ACK), first);
            assert_eq!(testbed.reply(first, client, ACK), listen);
        }
    }
    assert_eq!(testbed.totals().established, 80);
}

/// S-CT-1: a client alone, whatever it sends, makes no record that stays.
#[test]
fn a_flood_of_forged_segments_removes_no_established_connection() {
    let mut testbed = small_tables();
    let listen = address(LISTEN);
    let tracked = establish(&mut testbed, &FAMILIES[0], 40);
    for n in 0..1_000 {
        let forged = client(100_000 + n);
        for flags in [SYN, ACK, PSH | ACK, ACK] {
            testbed.request(forged, listen, flags);
        }
    }
    testbed.share(WEB, &[3]);
    for client in tracked {
        assert_eq!(testbed.request(client, listen, ACK), address(SERVER));
    }
    assert_eq!(testbed.totals().established, 40);
}

/// S-CT-2: a table full of established connections evicts none of them; who finds no place is
/// hashed, counted and shown.
#[test]
fn a_full_table_evicts_nobody() {
    let mut testbed = small_tables();
    for family in &FAMILIES {
        let listen = address(family.listen);
        let [first, second] = family.servers.map(address);
        let tracked = establish(&mut testbed, family, RECORDS);
        let before = testbed.reason(family.service, Reason::Untracked);
        for n in 0..100 {
            let client = (family.client)(200_000 + n);
            // All of a connection's packets go the same way without a record.
            assert_eq!(testbed.request(client, listen, SYN), first);
            assert_eq!(testbed.request(client, listen, ACK), first);
            assert_eq!(testbed.state(family.service, client), None);
        }
        assert_eq!(
            testbed.reason(family.service, Reason::Untracked),
            before + 100
        );
        testbed.share(family.service, &family.indices[1..]);
        for client in &tracked {
            assert_eq!(testbed.request(*client, listen, PSH | ACK), first);
            assert_eq!(testbed.reply(first, *client, ACK), listen);
        }
        let hashed = (family.client)(200_000);
        assert_eq!(testbed.request(hashed, listen, ACK), second);
    }
    let totals = testbed.totals();
    assert_eq!(totals.used, 2 * RECORDS as u64);
    assert_eq!(totals.established, totals.used);
}

/// Connections that stand behind full buckets are found for as long as they last, and no longer
/// looked for behind them when they are gone.
#[test]
fn overflows_are_remembered_for_as_long_as_there_is_need() {
    let mut testbed = small_tables();
    let family = &FAMILIES[0];
    let [listen, first] = [family.listen, family.servers[0]].map(address);
    let tracked = establish(&mut testbed, family, RECORDS);
    testbed.share(family.service, &family.indices[1..]);
    let overflowed = testbed.overflowed();
    assert!(overflowed >= 10, "{overflowed}");
    // Twice: once for each half of the bits.
    for _ in 0..2 {
        testbed.refresh_overflows();
        for client in &tracked {
            assert_eq!(testbed.request(*client, listen, PSH | ACK), first);
            assert_eq!(testbed.reply(first, *client, ACK), listen);
        }
    }
    assert!((1..=overflowed).contains(&testbed.overflowed()));
    testbed.forget_connections();
    testbed.refresh_overflows();
    assert_eq!(testbed.overflowed(), 0);
    testbed.share(family.service, &family.indices[..1]);
    establish(&mut testbed, family, RECORDS);
}

/// A table that is offered as many flows as it was made for finds a place for all but one in a
/// thousand or so.
#[test]
fn most_of_the_promised_flows_find_a_place() {
    const PROMISED: u64 = 4_000;
    let mut testbed = Testbed::with_capacity(PROMISED as u32);
    testbed.add_service(WEB, LISTEN, &[(1, SERVER)]);
    for n in 0..PROMISED as u32 {
        testbed.connect_if_tracked(client(n), address(LISTEN));
    }
    let established = testbed.totals().established;
    let untracked = testbed.reason(WEB, Reason::Untracked);
    assert_eq!(established + untracked, PROMISED);
    assert!(established >= PROMISED * 99 / 100, "{established}");
}
