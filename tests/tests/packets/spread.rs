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

fn service_record(listen: &str, slots: u32) -> ServiceRecord {
    ServiceRecord {
        listen: address(listen),
        forwarding: Forwarding::Nat,
        scheduler: Scheduler::Maglev,
        slots,
        timeouts: timeouts(),
        snat: Vec::new(),
        tunnel: Default::default(),
        no_backend: Default::default(),
    }
}

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
        record: service_record(listen, SLOTS),
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

/// A service may get a table of another size at any time. Where a small one follows a full one or
/// the other way round, connections are taken throughout.
#[test]
fn a_table_may_change_its_size() {
    const SIZES: [u32; 6] = [SLOTS, 252, 1009, SLOTS, 251, SLOTS];
    let servers = ["10.0.0.1:80", "10.0.0.2:80"];
    let mut testbed = Testbed::new();
    testbed.add_service(WEB, LISTEN, &[(1, servers[0]), (2, servers[1])]);
    testbed.share(WEB, &[1]);
    let mut clients = 0;
    let mut all_go_to = |testbed: &mut Testbed, server: &str| {
        for _ in 0..300 {
            clients += 1;
            let backend = testbed.request(client(clients), address(LISTEN), SYN);
            assert_eq!(backend, address(server));
        }
    };
    all_go_to(&mut testbed, servers[0]);
    let mut before = 252;
    for (n, slots) in (1..).zip(SIZES) {
        testbed.apply(&MapWrite::CreateTable {
            service: WEB,
            slots,
        });
        if (before == SLOTS) != (slots == SLOTS) {
            all_go_to(&mut testbed, servers[(n - 1) % 2]);
        }
        let slot = Slot {
            primary: Some(BackendIndex(1 + n as u16 % 2)),
            secondary: None,
        };
        testbed.apply(&MapWrite::WriteTable {
            service: WEB,
            slots: vec![slot; slots as usize].into(),
        });
        all_go_to(&mut testbed, servers[n % 2]);
        testbed.apply(&MapWrite::WriteService {
            service: WEB,
            record: service_record(LISTEN, slots),
        });
        all_go_to(&mut testbed, servers[n % 2]);
        before = slots;
    }
}
