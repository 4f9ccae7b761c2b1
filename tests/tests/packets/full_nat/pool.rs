//! The addresses that a service sends from, while they change.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use lb_tests::{
    lab::wait_until,
    packets::{
        Testbed, WEB, client,
        flags::{ACK, FIN, PSH, RST},
    },
};
use lb_userspace::dataplane::MapWrite;

use super::{SCENES, Scene};

const PATIENCE: Duration = Duration::from_secs(10);
const SECOND: [&str; 2] = ["10.0.0.251", "fd00::251"];
const CLIENTS: std::ops::Range<u32> = 0..300;

fn connect_all(testbed: &mut Testbed, scene: &Scene) -> BTreeMap<u32, SocketAddr> {
    let connect = |n| {
        let [_, source] = testbed.connect_full_nat((scene.clients)(n), scene.listen);
        (n, source)
    };
    CLIENTS.map(connect).collect()
}

#[track_caller]
fn assert_all_go_on(testbed: &mut Testbed, scene: &Scene, sources: &BTreeMap<u32, SocketAddr>) {
    for (&n, &source) in sources {
        let client = (scene.clients)(n);
        let [_, now] = testbed.request_full_nat(client, scene.listen, PSH | ACK);
        assert_eq!(now, source);
        let reply = testbed.forward(&scene.reply(source).flags(ACK));
        assert_eq!(reply.destination, client);
    }
}

/// S-NAT-4, S-CT-3: an address that is added takes half of the new connections and none of the old
/// ones; one that is removed takes no new ones and keeps those that it has.
#[test]
fn connections_stay_while_addresses_change() {
    let mut testbed = Testbed::with_full_nat();
    for (scene, second) in SCENES.into_iter().zip(SECOND) {
        let sources = connect_all(&mut testbed, &scene);
        let both = [scene.snat, second];
        testbed.write_full_nat(scene.service, scene.listen, &both, |_| {});
        assert_all_go_on(&mut testbed, &scene, &sources);
        let from = |testbed: &mut Testbed, numbers: std::ops::Range<u32>| {
            let mut from = BTreeMap::<String, u32>::new();
            for n in numbers {
                let [_, source] = testbed.connect_full_nat((scene.clients)(n), scene.listen);
                *from.entry(source.ip().to_string()).or_default() += 1;
            }
            from
        };
        let shares = from(&mut testbed, 1_000..2_000);
        assert!(shares.values().all(|&share| share > 400), "{shares:?}");
        testbed.write_full_nat(scene.service, scene.listen, &[second], |_| {});
        assert_all_go_on(&mut testbed, &scene, &sources);
        let shares = from(&mut testbed, 3_000..3_100);
        assert_eq!(shares, [(second.to_owned(), 100)].into());
        assert_all_go_on(&mut testbed, &scene, &sources);
    }
}

/// An address that nobody sends from any more keeps its ports until the last connection is over.
#[test]
fn an_address_is_given_up_after_its_last_connection() {
    let mut testbed = Testbed::with_full_nat();
    let (scene, second) = (SCENES[0], SECOND[0]);
    let capacity = testbed.totals().capacity;
    let sources = connect_all(&mut testbed, &scene);
    testbed.write_full_nat(WEB, scene.listen, &[second], |_| {});
    let with_both = testbed.totals().capacity;
    assert!(with_both > capacity);
    for n in CLIENTS {
        testbed.request_full_nat(client(n), scene.listen, FIN | ACK);
    }
    assert_all_go_on(&mut testbed, &scene, &sources);
    let write = |testbed: &mut Testbed| {
        testbed.write_full_nat(WEB, scene.listen, &[second], |record| {
            record.timeouts.fin_wait = Duration::ZERO;
            record.timeouts.reset = Duration::ZERO;
        });
    };
    write(&mut testbed);
    assert_eq!(testbed.totals().capacity, with_both);
    for n in CLIENTS {
        testbed.request_full_nat(client(n), scene.listen, RST | ACK);
    }
    wait_until(PATIENCE, "the connections expire", || {
        testbed.totals().used == 0
    });
    write(&mut testbed);
    assert_eq!(testbed.totals().capacity, capacity);
    testbed.apply(&MapWrite::ClearService { service: WEB });
    assert!(testbed.totals().capacity < capacity);
}
