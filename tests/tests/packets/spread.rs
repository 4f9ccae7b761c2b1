//! How connections spread over backends.

use std::{collections::BTreeMap, net::SocketAddr};

use lb_tests::packets::{
    LISTEN, LISTEN6, Testbed, WEB, WEB6, address, client, client6, flags::SYN, timeouts,
};
use lb_userspace::{
    dataplane::{MapWrite, ServiceRecord, Slot},
    model::{BackendIndex, Forwarding, Scheduler, ServiceId},
};

const SLOTS: u32 = 65_537;
const CONNECTIONS: u32 = 40_000;

/// Writes a service with a table of full size in which backend `n` owns `weights[n]` of every
/// sum of weights slots.
fn full_table(
    testbed: &mut Testbed,
    service: ServiceId,
    listen: &str,
    backends: &[(u16, &str, u32)],
) {
    let names: Vec<_> = backends
        .iter()
        .map(|(index, server, _)| (*index, *server))
        .collect();
    testbed.add_service(service, listen, &names);
    testbed.apply(&MapWrite::CreateTable {
        service,
        slots: SLOTS,
    });
    testbed.apply(&MapWrite::WriteService {
        service,
        record: ServiceRecord {
            listen: address(listen),
            forwarding: Forwarding::Nat,
            scheduler: Scheduler::Maglev,
            slots: SLOTS,
            timeouts: timeouts(),
            snat: Vec::new(),
            tunnel: Default::default(),
            no_backend: Default::default(),
        },
    });
    let pattern: Vec<u16> = backends
        .iter()
        .flat_map(|(index, _, weight)| (0..*weight).map(|_| *index))
        .collect();
    let slots = (0..SLOTS as usize).map(|slot| Slot {
        primary: Some(BackendIndex(pattern[slot % pattern.len()])),
        secondary: None,
    });
    testbed.apply(&MapWrite::WriteTable {
        service,
        slots: slots.collect(),
    });
}

fn spread(
    testbed: &mut Testbed,
    listen: &str,
    clients: fn(u32) -> SocketAddr,
) -> BTreeMap<SocketAddr, u32> {
    let mut spread = BTreeMap::new();
    for n in 0..CONNECTIONS {
        *spread
            .entry(testbed.request(clients(n), address(listen), SYN))
            .or_default() += 1;
    }
    spread
}

/// Equal backends get equal shares, within 5 % (almost six standard deviations).
#[test]
fn equal_backends_get_equal_shares() {
    let mut testbed = Testbed::with_capacity(2 * CONNECTIONS);
    let v4 = [1, 2, 3, 4].map(|n| {
        (
            n,
            ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80"][usize::from(n) - 1],
            1,
        )
    });
    full_table(&mut testbed, WEB, LISTEN, &v4);
    let v6 = [5, 6, 7, 8].map(|n| {
        (
            n,
            [
                "[fd00::1]:80",
                "[fd00::2]:80",
                "[fd00::3]:80",
                "[fd00::4]:80",
            ][usize::from(n) - 5],
            1,
        )
    });
    full_table(&mut testbed, WEB6, LISTEN6, &v6);
    for spread in [
        spread(&mut testbed, LISTEN, client),
        spread(&mut testbed, LISTEN6, client6),
    ] {
        assert_eq!(spread.len(), 4);
        for connections in spread.values() {
            let deviation = connections.abs_diff(CONNECTIONS / 4);
            assert!(deviation <= CONNECTIONS / 4 / 20, "{spread:?}");
        }
    }
}
