//! Echo requests to a service's address.

use lb_common::reason::Reason;
use lb_tests::packets::{BALANCER, Expect, GATEWAY, Icmp, Link, Tag, Testbed, address};

use super::{FAMILIES, Family, ip};

impl Family {
    fn echo(&self, data: &[u8]) -> Icmp {
        let (client, listen) = (address(self.client), address(self.listen));
        Icmp::echo(client.ip(), listen.ip(), data).link(self.front_link())
    }
}

/// Back where it came from, as its own reply.
fn reply(request: &Icmp) -> Expect {
    let kind = if request.is_ipv4() { 0 } else { 129 };
    let link = Link {
        to: request.link.from,
        from: request.link.to,
        tags: request.link.tags.clone(),
    };
    let reply = request
        .clone()
        .from(request.destination())
        .to(request.source())
        .kind(kind, 0)
        .hops(64)
        .link(link);
    let sent = Box::new(Expect::Transmit(reply.build()));
    Expect::Counted(None, Reason::EchoAnswered, sent)
}

/// S-ICMP-4: on whatever port the service listens.
#[test]
fn echo_requests_are_answered() {
    let mut testbed = Testbed::with_one_backend_each();
    for family in &FAMILIES {
        let tags = [Tag::dot1ad(0x2007), Tag::dot1q(9)];
        let mut table = vec![
            ("no data", family.echo(b"")),
            ("a byte", family.echo(b"!")),
            ("odd", family.echo(b"seven..")),
            ("as ping sends it", family.echo(&[0x10; 56])),
            ("full", family.echo(&[0xff; 1400])),
            ("last hop", family.echo(b"data").hops(1)),
            ("no hop", family.echo(b"data").hops(0)),
            ("highest TTL", family.echo(b"data").hops(255)),
            ("one tag", family.echo(b"data").tags(&tags[1..])),
            ("two tags", family.echo(b"data").tags(&tags)),
            ("padding", family.echo(b"").padding(18)),
            ("odd and padding", family.echo(b"odd").padding(15)),
            // S-FWD-3
            ("wrong checksum", family.echo(b"data").checksum_error(1)),
            (
                "wrong in its high byte",
                family.echo(b"data").checksum_error(0x8000),
            ),
        ];
        table.push(match family.is_ipv4() {
            true => (
                "DSCP, no DF",
                family
                    .echo(b"data")
                    .v4(|ip| (ip.service_type, ip.fragment) = (0xb9, 0)),
            ),
            false => (
                "traffic class",
                family
                    .echo(b"data")
                    .v6(|ip| (ip.traffic_class, ip.flow_label) = (0xb9, 7)),
            ),
        });
        for (description, request) in table {
            testbed.check(description, &request.build(), &reply(&request));
        }
        for n in 0..=u16::MAX / 16 {
            let mut request = family.echo(b"data");
            request.rest = u32::from(n) << 4;
            let outcome = testbed.run(&request.build());
            let (Expect::Counted(_, _, sent), frame) = (reply(&request), outcome.frame) else {
                unreachable!("replies are counted");
            };
            assert!(
                matches!(*sent, Expect::Transmit(bytes) if bytes == frame),
                "{n}"
            );
        }
    }
}

/// S-ICMP-4: the host's own, if that is wanted.
#[test]
fn echo_requests_pass_if_that_is_set() {
    let mut testbed = Testbed::with_settings(|settings| settings.answer_echo = false);
    for family in &FAMILIES {
        testbed.add_service(
            family.service,
            family.listen,
            &[(family.index, family.server)],
        );
        testbed.check("echo", &family.echo(b"data").build(), &Expect::Pass);
    }
}

/// S-ICMP-6, S-FWD-7: what is no service's, no echo request, or from nobody who could be answered.
#[test]
fn nothing_else_is_answered() {
    let mut testbed = Testbed::with_one_backend_each();
    for family in &FAMILIES {
        let echo = family.echo(b"data");
        let strangers: &[&str] = match family.is_ipv4() {
            true => &["192.0.2.11", "10.0.0.1", "224.0.0.1", "255.255.255.255"],
            false => &["2001:db8::11", "fd00::1", "ff02::1", "ff02::1:ff00:10"],
        };
        for stranger in strangers {
            let frame = echo.clone().to(ip(stranger)).build();
            testbed.check(&format!("to {stranger}"), &frame, &Expect::Pass);
        }
        let impossible: &[&str] = match family.is_ipv4() {
            true => &["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255"],
            false => &["::", "::1", "ff02::1", "ff0e::7"],
        };
        for source in impossible {
            let frame = echo.clone().from(ip(source)).build();
            testbed.check(&format!("from {source}"), &frame, &Expect::Pass);
        }
        for group in [[0xff; 6], [1, 0, 0x5e, 0, 0, 1], [0x33, 0x33, 0, 0, 0, 1]] {
            let link = Link {
                to: group,
                from: GATEWAY,
                tags: Vec::new(),
            };
            let frame = echo.clone().link(link).build();
            testbed.check(&format!("to {group:02x?}"), &frame, &Expect::Pass);
        }
        let request = echo.kind;
        for kind in (0..=255).filter(|kind| *kind != request) {
            let frame = echo.clone().kind(kind, 0).build();
            testbed.check(&format!("type {kind}"), &frame, &Expect::Pass);
        }
        let frame = echo.clone().kind(request, 1).build();
        testbed.check("code 1", &frame, &Expect::Pass);
        let cut = echo.build();
        for length in 14..14 + family.header() + 8 {
            testbed.check(&format!("{length} bytes"), &cut[..length], &Expect::Pass);
        }
    }
    let [v4, v6] = FAMILIES;
    let echo = v4.echo(b"data");
    for (description, message) in [
        ("options", echo.clone().v4(|ip| ip.options = vec![1; 4])),
        ("first fragment", echo.clone().v4(|ip| ip.fragment = 0x2000)),
        ("last fragment", echo.clone().v4(|ip| ip.fragment = 2)),
        ("version 5", echo.clone().v4(|ip| ip.version = 5)),
        (
            "header of 16 bytes",
            echo.v4(|ip| ip.header_length = Some(4)),
        ),
        ("version 4", v6.echo(b"data").v6(|ip| ip.version = 4)),
    ] {
        testbed.check(description, &message.build(), &Expect::Pass);
    }
}

/// S-FWD-1: aimed at a service, so counted.
#[test]
fn broken_echo_requests_are_dropped() {
    let mut testbed = Testbed::with_one_backend_each();
    let [v4, v6] = FAMILIES;
    let (echo, echo6) = (v4.echo(b"data"), v6.echo(b"data"));
    let malformed = Reason::MalformedIp;
    for (description, message, reason) in [
        (
            "header checksum",
            echo.clone().v4(|ip| ip.checksum_error = 5),
            Reason::BadIpChecksum,
        ),
        (
            "shorter than a header",
            echo.clone().v4(|ip| ip.total_length = Some(27)),
            malformed,
        ),
        (
            "beyond the frame",
            echo.v4(|ip| ip.total_length = Some(33)),
            malformed,
        ),
        (
            "shorter than a header, IPv6",
            echo6.clone().v6(|ip| ip.payload_length = Some(7)),
            malformed,
        ),
        (
            "beyond the frame, IPv6",
            echo6.v6(|ip| ip.payload_length = Some(13)),
            malformed,
        ),
    ] {
        assert_eq!(message.link.to, BALANCER);
        testbed.check(description, &message.build(), &Expect::Drop(None, reason));
    }
}

/// S-ICMP-4: of which a part is in a further buffer, as with jumbo frames.
#[test]
fn echo_requests_in_several_buffers_are_answered() {
    let mut testbed = Testbed::with_one_backend_each();
    for family in &FAMILIES {
        let request = family.echo(&[0x77; 6000]);
        let before = testbed.reasons();
        let outcome = testbed.run_split(&request.build(), 3000);
        testbed.compare(
            "split",
            &request.build(),
            &reply(&request),
            &before,
            outcome,
        );
    }
}
