//! Errors about connections of services whose backends answer past the balancer.

use lb_common::reason::Reason;
use lb_tests::packets::{
    BALANCER, Expect, Icmp, Link, Outer, Tag, Testbed, Verdict, address, backend_mac, flags,
};
use lb_userspace::model::Forwarding;

use super::{FAMILIES, Family, data, ip, translated};

const TUNNELS: [Forwarding; 2] = [Forwarding::Ipip, Forwarding::Gue];

fn testbed(forwarding: Forwarding, backends: [&str; 2], max_packet: u16) -> Testbed {
    let mut testbed = Testbed::new();
    for (family, backend) in FAMILIES.iter().zip(backends) {
        testbed.add_service_with(
            family.service,
            family.listen,
            &[(family.index, backend)],
            forwarding,
            |_| {},
            |record| record.max_packet = max_packet,
        );
    }
    testbed
}

/// Backends of both families for services of both.
const BACKENDS: [[&str; 2]; 3] = [
    ["10.0.0.1:80", "[fd00::1]:80"],
    ["[fd00::1]:80", "10.0.0.1:80"],
    ["10.0.0.1:80", "10.0.0.1:80"],
];

/// Full and short quotes, wrong checksums, padding.
fn errors(family: &Family) -> Vec<Icmp> {
    let error = family.towards_backend();
    vec![
        error.clone(),
        error.clone().cut(family.header() + 8),
        error.clone().from(address(family.client).ip()),
        error.clone().checksum_error(3),
        error.clone().quoting(|p| p.payload(b"odd")).padding(7),
        error.clone().tags(&[Tag::dot1q(7)]).hops(2),
        error.kind(if family.is_ipv4() { 11 } else { 3 }, 0),
    ]
}

/// With a record as without, whose table entries have moved.
fn connect(testbed: &mut Testbed, family: &Family) {
    let packet = lb_tests::packets::Packet::new(address(family.client), address(family.listen));
    for flags in [flags::SYN, flags::ACK] {
        let outcome = testbed.run(&packet.clone().flags(flags).build());
        assert_eq!(outcome.verdict, Verdict::Transmit);
    }
    testbed.share(family.service, &[]);
}

/// S-ICMP-1, S-ICMP-2: the backend has the service's address: nothing but the Ethernet header is
/// changed, and no hop is taken.
#[test]
fn dsr_errors_reach_the_backend_as_they_are() {
    for with_record in [false, true] {
        let mut testbed = testbed(Forwarding::Dsr, BACKENDS[0], 0);
        for family in &FAMILIES {
            if with_record {
                connect(&mut testbed, family);
            }
            for error in errors(family) {
                for hops in [0, 1, 64] {
                    let error = error.clone().hops(hops);
                    let link = Link {
                        to: backend_mac(family.index),
                        from: BALANCER,
                        tags: Vec::new(),
                    };
                    let expected = family.led(&error.clone().link(link));
                    testbed.check(&format!("{error:?}"), &error.build(), &expected);
                }
            }
        }
    }
}

/// S-ICMP-1, S-ICMP-2: inside the same outer headers as the connection's own packets, one hop less
/// to go.
#[test]
fn tunnelled_errors_reach_the_backend() {
    for forwarding in TUNNELS {
        for backends in BACKENDS {
            let mut testbed = testbed(forwarding, backends, 0);
            for (family, backend) in FAMILIES.iter().zip(backends) {
                for error in errors(family) {
                    assert_inside(&mut testbed, family, backend, &error, None);
                }
                let request = data(address(family.client), address(family.listen));
                let of_flow = Outer::of(&testbed.run(&request.build()).frame);
                connect(&mut testbed, family);
                for error in errors(family) {
                    assert_inside(&mut testbed, family, backend, &error, Some(&of_flow));
                }
            }
        }
    }
}

/// `of_flow` is how a request of the same connection leaves, if one has.
fn assert_inside(
    testbed: &mut Testbed,
    family: &Family,
    backend: &str,
    error: &Icmp,
    of_flow: Option<&Outer>,
) {
    let translated = testbed.reason(family.service, Reason::IcmpTranslated);
    let outcome = testbed.run(&error.build());
    assert_eq!(outcome.verdict, Verdict::Transmit, "{error:?}");
    assert_eq!(
        testbed.reason(family.service, Reason::IcmpTranslated),
        translated + 1
    );
    let outer = Outer::of(&outcome.frame);
    let mut inside = error.clone().forwarded(family.front_link());
    inside.padding.clear();
    assert!(outer.inner == inside.build()[14..], "{error:?}");
    assert_eq!(outer.padding, error.padding);
    assert_eq!(outer.destination, address(backend).ip());
    assert_eq!(outer.link.to, backend_mac(family.index));
    if let Some(udp) = outer.udp {
        assert_eq!(
            udp.checksum_verifies,
            error.checksum_error == 0,
            "{error:?}"
        );
        assert_ne!(udp.checksum, 0);
    }
    if let Some(of_flow) = of_flow {
        let entropy = |outer: &Outer| {
            let port = outer.udp.map(|udp| udp.source);
            (outer.source, outer.flow_label, port)
        };
        assert_eq!(entropy(&outer), entropy(of_flow));
    }
}

/// S-FWD-2: a tunnel is a hop.
#[test]
fn a_tunnel_takes_no_error_without_a_hop_to_go() {
    for forwarding in TUNNELS {
        let mut testbed = testbed(forwarding, BACKENDS[0], 0);
        for family in &FAMILIES {
            for hops in [0, 1] {
                let frame = family.towards_backend().hops(hops).build();
                let expect = Expect::Drop(Some(family.service), Reason::TtlExpired);
                testbed.check("last hop", &frame, &expect);
            }
        }
    }
}

/// S-ICMP-6: no error about an error, however large.
#[test]
fn errors_that_do_not_fit_are_dropped_without_an_answer() {
    const LIMIT: u16 = 1280;
    for forwarding in [
        Forwarding::Nat,
        Forwarding::Dsr,
        Forwarding::Ipip,
        Forwarding::Gue,
    ] {
        let mut testbed = match forwarding {
            Forwarding::Nat => Testbed::with_one_backend_each(),
            _ => testbed(forwarding, BACKENDS[0], LIMIT),
        };
        for family in &FAMILIES {
            if forwarding == Forwarding::Nat {
                let Family {
                    service,
                    listen,
                    index,
                    server,
                    ..
                } = *family;
                testbed.write_backend(service, listen, index, server, |backend| {
                    backend.max_packet = LIMIT;
                });
            }
            let error = |length: usize| {
                let quoted = length - family.header() - 8;
                family
                    .towards_backend()
                    .quoting(|p| p.payload(&[0x5a; 1400]))
                    .cut(quoted)
            };
            let frame = error(usize::from(LIMIT) + 1).build();
            let expect = Expect::Drop(Some(family.service), Reason::TooBig);
            testbed.check("too big", &frame, &expect);
            let frame = error(LIMIT.into()).build();
            assert_eq!(testbed.run(&frame).verdict, Verdict::Transmit);
        }
    }
}

/// Whose addresses a one-way service's backend has is no matter: its packets never come through here.
#[test]
fn errors_to_the_client_are_not_ours_in_other_modes() {
    for forwarding in [Forwarding::Dsr, Forwarding::Ipip, Forwarding::Gue] {
        let mut testbed = testbed(forwarding, [FAMILIES[0].server, FAMILIES[1].server], 0);
        for family in &FAMILIES {
            let frame = family.towards_client().build();
            testbed.check("towards the client", &frame, &Expect::Pass);
        }
    }
}

/// S-NAT-8: the service whose port the quoted packet came from says how the backend is reached.
#[test]
fn services_of_several_modes_share_an_address() {
    let mut testbed = Testbed::with_one_backend_each();
    let [family, _] = FAMILIES;
    let other = lb_userspace::model::ServiceId(3);
    testbed.add_service_with(
        other,
        "192.0.2.10:81",
        &[(3, "10.0.0.3:80")],
        Forwarding::Dsr,
        |_| {},
        |_| {},
    );
    let quoted = data(address("192.0.2.10:81"), address(family.client));
    let error = Icmp::too_big(ip(family.front_router), quoted, 1400).link(family.front_link());
    let link = Link {
        to: backend_mac(3),
        from: BALANCER,
        tags: Vec::new(),
    };
    let expected = translated(other, &error.clone().link(link));
    testbed.check("dsr", &error.build(), &expected);
    let error = family.towards_backend();
    let expected = family.at_backend(error.clone(), family.index, family.server);
    testbed.check("nat", &error.build(), &family.led(&expected));
}
