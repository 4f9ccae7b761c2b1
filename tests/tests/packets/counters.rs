//! What is counted, to the packet and to the byte.

use lb_common::reason::Reason;
use lb_tests::packets::{
    CLIENT, LISTEN, LISTEN6, Packet, SERVER, SERVER6, Tag, Testbed, WEB, WEB6, address,
    flags::{ACK, FIN, PSH, SYN, SYN_ACK},
};
use lb_userspace::{
    dataplane::{BackendCounters, MapWrite, Reader as _},
    model::BackendIndex,
};

/// Connections, packets and bytes of the IP packets, both ways; neither tags nor padding count.
#[test]
fn backends_count_connections_packets_and_bytes() {
    let mut testbed = Testbed::with_one_backend_each();
    for (request, index, listen, server, header) in [
        (Packet::request(), 1, LISTEN, SERVER, 40),
        (Packet::request6(), 2, LISTEN6, SERVER6, 60),
    ] {
        let backend = BackendIndex(index);
        let client = request.source();
        let mut expected = BackendCounters::default();
        let incoming = [
            (request.clone().flags(SYN), 0, 1),
            // Sent again: no further connection.
            (request.clone().flags(SYN), 0, 0),
            (request.clone().flags(ACK).padding(6), 0, 0),
            (
                request.clone().flags(PSH | ACK).payload(&[1; 1001]),
                1001,
                0,
            ),
            (
                request.clone().flags(FIN | ACK).tags(&[Tag::dot1q(5)]),
                0,
                0,
            ),
        ];
        for (packet, payload, connections) in incoming {
            testbed.forward(&packet);
            expected.packets_in += 1;
            expected.bytes_in += header + payload;
            expected.connections += connections;
            assert_eq!(packet.ip_length() as u64, header + payload);
            assert_eq!(testbed.backend_counters(backend), expected);
        }
        let reply = Packet::new(address(server), client);
        let outgoing = [
            (reply.clone().flags(SYN_ACK), 0),
            (
                reply
                    .clone()
                    .flags(PSH | ACK)
                    .payload(&[2; 777])
                    .padding(99),
                777,
            ),
        ];
        for (packet, payload) in outgoing {
            assert_eq!(testbed.forward(&packet).source, address(listen));
            expected.packets_out += 1;
            expected.bytes_out += header + payload;
            assert_eq!(testbed.backend_counters(backend), expected);
        }
    }
}

/// A packet that is dropped or passed counts for no backend.
#[test]
fn what_is_not_forwarded_counts_for_no_backend() {
    let mut testbed = Testbed::with_one_backend_each();
    for packet in [
        Packet::request().hops(1),
        Packet::request().v4(|ip| ip.checksum_error = 3),
        Packet::request().flags(SYN_ACK),
        Packet::request().to(address("192.0.2.10:81")),
        Packet::new(address(SERVER), address(CLIENT)),
    ] {
        testbed.run(&packet.build());
    }
    let counters = testbed.backend_counters(BackendIndex(1));
    assert_eq!(counters, BackendCounters::default());
}

/// A connection that is begun anew on the same tuple counts as another.
#[test]
fn every_connection_is_counted_once() {
    let mut testbed = Testbed::with_one_backend_each();
    let (client, listen, server) = (address(CLIENT), address(LISTEN), address(SERVER));
    for connections in 1..=5 {
        testbed.connect(client, listen);
        testbed.request(client, listen, FIN | ACK);
        testbed.reply(server, client, FIN | ACK);
        let counters = testbed.backend_counters(BackendIndex(1));
        assert_eq!(counters.connections, connections);
    }
}

/// Drops by service and reason, and their sums.
#[test]
fn services_count_drops_by_reason() {
    let mut testbed = Testbed::with_one_backend_each();
    for (packet, times) in [
        (Packet::request().hops(1), 3),
        (Packet::request().flags(SYN_ACK), 2),
        (Packet::request6().hops(0), 4),
        (Packet::request6().v6(|ip| ip.version = 9), 1),
    ] {
        for _ in 0..times {
            testbed.run(&packet.build());
        }
    }
    assert_eq!(testbed.reason(WEB, Reason::TtlExpired), 3);
    assert_eq!(testbed.reason(WEB, Reason::UnexpectedSynAck), 2);
    assert_eq!(testbed.reason(WEB6, Reason::TtlExpired), 4);
    let drops = |service| {
        let counters = testbed.reader().service_counters(service);
        counters.expect("the counters are read").drops
    };
    assert_eq!((drops(WEB), drops(WEB6)), (5, 4));
    let unassigned = testbed
        .reader()
        .reasons(None)
        .expect("the counters are read");
    assert_eq!(unassigned.len(), 1);
    assert_eq!(
        (unassigned[0].reason, unassigned[0].packets),
        ("malformed_ip", 1)
    );
    assert!(unassigned[0].dropped);
}

/// Counters go with what they count, and with nothing else.
#[test]
fn cleared_records_start_from_zero() {
    let mut testbed = Testbed::with_one_backend_each();
    for packet in [Packet::request(), Packet::request6()] {
        testbed.forward(&packet);
        testbed.run(&packet.hops(1).build());
    }
    testbed.apply(&MapWrite::ClearBackend {
        backend: BackendIndex(1),
    });
    testbed.apply(&MapWrite::ClearService { service: WEB });
    let counters = testbed.backend_counters(BackendIndex(1));
    assert_eq!(counters, BackendCounters::default());
    assert_eq!(testbed.reason(WEB, Reason::TtlExpired), 0);
    assert_eq!(testbed.backend_counters(BackendIndex(2)).packets_in, 1);
    assert_eq!(testbed.reason(WEB6, Reason::TtlExpired), 1);
}
