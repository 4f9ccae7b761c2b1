//! Services and backends that are there in part: being set up, being taken down, out of reach.

use lb_common::reason::Reason;
use lb_tests::packets::{
    CLIENT6, Expect, LISTEN, LISTEN6, Packet, SERVER, Tag, Testbed, Verdict, WEB, address, flags,
    next_hop,
};
use lb_userspace::{
    dataplane::MapWrite,
    model::{BackendIndex, ServiceId},
};

/// No backend, and no way to the backend there is.
#[test]
fn a_service_without_a_usable_backend_says_so() {
    let mut testbed = Testbed::new();
    let expect = |reason| Expect::Drop(Some(WEB), reason);
    let syn = Packet::request().flags(flags::SYN);
    let reset = Expect::Answer(WEB, Reason::NoBackend, syn.reset());
    let syn = syn.build();
    testbed.add_service(WEB, LISTEN, &[]);
    testbed.check("empty table", &syn, &reset);
    testbed.share(WEB, &[1]);
    testbed.check("slots without a record", &syn, &reset);
    testbed.write_backend(WEB, LISTEN, 1, SERVER, |backend| backend.next_hop = None);
    testbed.check("no next hop and no route", &syn, &expect(Reason::NoNextHop));
    testbed.write_backend(WEB, LISTEN, 1, SERVER, |_| {});
    assert_eq!(testbed.run(&syn).verdict, Verdict::Transmit);
}

/// A service that is being taken down: its address is still known, its record is gone.
#[test]
fn a_service_without_a_record_is_not_ours() {
    let mut testbed = Testbed::new();
    testbed.apply(&MapWrite::Listen {
        address: address(LISTEN),
        service: ServiceId(3),
    });
    let syn = Packet::request().flags(flags::SYN).build();
    testbed.check("SYN", &syn, &Expect::Pass);
}

/// Addresses that are given up are passed again.
#[test]
fn a_service_that_is_removed_is_not_ours() {
    let mut testbed = Testbed::with_one_backend_each();
    let fragment = Packet::request().v4(|ip| ip.fragment = 0x2000).build();
    let steps = [
        MapWrite::Unlisten {
            address: address(LISTEN),
        },
        MapWrite::UnbindEndpoint {
            address: address(SERVER),
        },
        MapWrite::ClearBackend {
            backend: BackendIndex(1),
        },
        MapWrite::ClearService { service: WEB },
        MapWrite::RemoveTable { service: WEB },
    ];
    for step in steps.iter().chain(&steps) {
        testbed.apply(step);
        testbed.check("fragment", &fragment, &Expect::Pass);
        testbed.check("request", &Packet::request().build(), &Expect::Pass);
    }
    let other = Packet::new(address(CLIENT6), address(LISTEN6)).flags(flags::SYN);
    assert_eq!(testbed.run(&other.build()).verdict, Verdict::Transmit);
}

/// A frame without headroom for the tags of its way out is dropped, and says why.
#[test]
fn no_headroom_for_tags_is_a_reason() {
    let mut testbed = Testbed::with_one_backend_each();
    testbed.write_backend(WEB, LISTEN, 1, SERVER, |backend| {
        backend.next_hop = Some(next_hop(1, 1, &[Tag::dot1q(5)]));
    });
    let packet = Packet::request().flags(flags::SYN).build();
    let outcome = testbed.run_without_headroom(&packet);
    assert_eq!(outcome.verdict, Verdict::Drop);
    assert_eq!(testbed.reason(WEB, Reason::NoHeadroom), 1);
}
