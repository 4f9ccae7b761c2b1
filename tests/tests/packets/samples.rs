//! What the program tells of the packets that it refuses.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use lb_tests::{
    bench::pin,
    packets::{
        CLIENT, Extension, LISTEN, LISTEN6, Packet, SERVER, Tag, Testbed, WEB, WEB6, address,
        client, client6,
        flags::{ACK, SYN},
        within_a_tick,
    },
};
use lb_userspace::{
    dataplane::{MapWrite, Reader as _, Sample},
    model::{NoBackend, ServiceId},
};

/// Services without a backend that answer like this.
fn without_backends(answer: NoBackend) -> Testbed {
    let mut testbed = Testbed::new();
    for (service, listen) in [(WEB, LISTEN), (WEB6, LISTEN6)] {
        testbed.add_service(service, listen, &[]);
        testbed.write_service_with(service, listen, |record| record.no_backend = answer);
    }
    testbed
}

/// The samples of one service and reason, the newest first.
fn samples(testbed: &Testbed, service: Option<ServiceId>, reason: &str) -> Vec<Sample> {
    let mut samples = testbed.reader().samples();
    samples.retain(|sample| (sample.service, sample.reason) == (service, reason));
    samples
}

#[track_caller]
fn assert_names(samples: &[Sample], packet: &Packet, has_ports: bool) {
    let [sample] = samples else {
        panic!("{packet:?}: {samples:?}");
    };
    let end = |end: SocketAddr| (end.ip(), has_ports.then_some(end.port()));
    assert_eq!(sample.source, end(packet.source()), "{packet:?}");
    assert_eq!(sample.destination, end(packet.destination()), "{packet:?}");
    assert_eq!(sample.interface, "lo");
    assert!(sample.age < Duration::from_secs(60), "{:?}", sample.age);
}

/// Whoever was refused is named, by ports too where they can be read, whether or not an answer
/// has been written over the packet.
#[test]
fn a_sample_says_who_was_refused_and_why() {
    let v4 = || Packet::request().flags(SYN);
    let v6 = || Packet::request6().flags(SYN);
    let tags = [Tag::dot1ad(1), Tag::dot1q(2)];
    let extensions =
        |count, packet: Packet| packet.v6(|ip| ip.extensions = vec![Extension::new(60, 0); count]);
    let refused = [
        ("no_backend", v4(), Some(WEB), true),
        ("no_backend", extensions(2, v6()), Some(WEB6), true),
        ("ttl_expired", v4().hops(1).tags(&tags), Some(WEB), true),
        ("ttl_expired", v6().hops(1).tags(&tags), Some(WEB6), true),
        (
            "bad_ip_checksum",
            v4().v4(|ip| (ip.options, ip.checksum_error) = (vec![1; 8], 1)),
            Some(WEB),
            true,
        ),
        ("impossible_flags", v6().flags(0), Some(WEB6), true),
        ("fragment", v4().v4(|ip| ip.fragment = 0x2000), None, false),
        ("extension_headers", extensions(7, v6()), None, false),
        ("malformed_ip", v4().v4(|ip| ip.version = 5), None, false),
    ];
    for answer in [NoBackend::Rst, NoBackend::Icmp, NoBackend::Drop] {
        let mut testbed = without_backends(answer);
        for (reason, packet, service, has_ports) in &refused {
            testbed.run(&packet.build());
            assert_names(&samples(&testbed, *service, reason), packet, *has_ports);
        }
        assert_eq!(testbed.reader().samples().len(), refused.len());
    }
}

/// A refused reply is named as it came from the backend.
#[test]
fn replies_are_sampled_too() {
    let mut testbed = Testbed::with_one_backend_each();
    testbed.connect(address(CLIENT), address(LISTEN));
    let reply = Packet::new(address(SERVER), address(CLIENT)).hops(1);
    testbed.run(&reply.build());
    assert_names(&samples(&testbed, Some(WEB), "ttl_expired"), &reply, true);
}

/// What is sent on, or passes, is not sampled.
#[test]
fn what_is_not_refused_is_not_sampled() {
    let mut testbed = Testbed::with_one_backend_each();
    testbed.connect(address(CLIENT), address(LISTEN));
    testbed.run(&Packet::new(address(CLIENT), address("192.0.2.99:80")).build());
    assert_eq!(testbed.reader().samples(), []);
}

/// A CPU leaves eight samples of each reason a tick, however many are refused.
#[test]
fn samples_are_rate_limited_by_reason() {
    const LIMIT: u32 = 8;
    let mut testbed = without_backends(NoBackend::Rst);
    // Rates are a CPU's, and test runs happen on that of the thread which asks for them.
    pin().expect("a thread may be pinned");
    let mut next = 0;
    let first = within_a_tick(|| {
        let first = next;
        next += 1000;
        for n in first..next {
            let packet = Packet::new(client(n), address(LISTEN)).flags(ACK);
            testbed.run(&packet.build());
            testbed.run(&packet.hops(1).build());
            let packet = Packet::new(client6(n), address(LISTEN6)).flags(ACK);
            testbed.run(&packet.build());
        }
        first
    });
    let sources = |service, reason| -> Vec<IpAddr> {
        let samples = samples(&testbed, Some(service), reason).into_iter();
        samples.map(|sample| sample.source.0).collect()
    };
    let newest = |count, client: fn(u32) -> SocketAddr| -> Vec<IpAddr> {
        let numbers = (first..first + count).rev();
        numbers.map(|n| client(n).ip()).collect()
    };
    assert_eq!(sources(WEB, "ttl_expired"), newest(LIMIT, client));
    // Both services share the rate of a reason.
    let no_backend = sources(WEB, "no_backend");
    assert_eq!(no_backend[..4], newest(LIMIT / 2, client));
    let no_backend = sources(WEB6, "no_backend");
    assert_eq!(no_backend[..4], newest(LIMIT / 2, client6));
}

/// The samples of a service that is removed are not shown for its successor of the same id.
#[test]
fn samples_go_with_their_service() {
    let mut testbed = without_backends(NoBackend::Rst);
    for packet in [Packet::request(), Packet::request6()] {
        testbed.run(&packet.build());
    }
    testbed.apply(&MapWrite::ClearService { service: WEB });
    assert_eq!(samples(&testbed, Some(WEB), "no_backend"), []);
    assert_eq!(samples(&testbed, Some(WEB6), "no_backend").len(), 1);
}
