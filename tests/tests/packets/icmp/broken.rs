//! Errors that are none of ours, and broken ones that are.

use lb_common::reason::Reason;
use lb_tests::packets::{Body, Expect, Extension, Icmp, Packet, Testbed, address};

use super::{FAMILIES, Family, data, ip};

/// S-FWD-7, S-ICMP-1: what does not quote a TCP segment that its receiver has sent in a service's
/// name, or that a backend was sent, passes untouched.
#[test]
fn what_is_not_about_a_balanced_connection_passes() {
    let mut testbed = Testbed::with_one_backend_each();
    for family in &FAMILIES {
        testbed.connect(address(family.client), address(family.listen));
        for (way, error) in [
            ("towards the backend", family.towards_backend()),
            ("towards the client", family.towards_client()),
        ] {
            for (description, message) in strange(family, &error) {
                let description = format!("{way}: {description}");
                testbed.check(&description, &message.build(), &Expect::Pass);
            }
        }
        for (description, message) in unrelated(family) {
            testbed.check(description, &message.build(), &Expect::Pass);
        }
    }
}

/// An error that is ours, made one that is not.
fn strange(family: &Family, error: &Icmp) -> Vec<(String, Icmp)> {
    let mut table = Vec::new();
    let mut add = |description: &str, message: Icmp| table.push((description.to_owned(), message));
    let error = || error.clone();
    let errors: &[u8] = match family.is_ipv4() {
        true => &[3, 11, 12],
        false => &[1, 2, 3, 4],
    };
    for kind in (0..=255).filter(|kind| !errors.contains(kind)) {
        add(&format!("type {kind}"), error().kind(kind, 3));
    }
    for length in 0..family.header() + 8 {
        add(&format!("{length} bytes quoted"), error().cut(length));
    }
    let mut garbage = error();
    garbage.body = Body::Bytes(vec![0xff; 100]);
    add("garbage quoted", garbage);
    if family.is_ipv4() {
        let quoted = |change: &dyn Fn(&mut lb_tests::packets::Ipv4)| {
            error().quoting(|packet| packet.v4(change))
        };
        for protocol in [0, 1, 4, 17, 41, 58, 132] {
            add(
                &format!("protocol {protocol} quoted"),
                quoted(&|ip| ip.protocol = protocol),
            );
        }
        add("later fragment quoted", quoted(&|ip| ip.fragment = 1));
        add("last fragment quoted", quoted(&|ip| ip.fragment = 0x1fff));
        for words in 0..5 {
            add(
                &format!("quoted header of {words} words"),
                quoted(&|ip| ip.header_length = Some(words)),
            );
        }
        for version in [0, 5, 6, 15] {
            add(
                &format!("version {version} quoted"),
                quoted(&|ip| ip.version = version),
            );
        }
        // The TCP header would begin at byte 60.
        add(
            "quoted header that goes on behind the quote",
            quoted(&|ip| ip.header_length = Some(15)).cut(67),
        );
        add("options", error().v4(|ip| ip.options = vec![1; 4]));
        add("first fragment", error().v4(|ip| ip.fragment = 0x2000));
        add("later fragment", error().v4(|ip| ip.fragment = 3));
        add("version 6", error().v4(|ip| ip.version = 6));
        add(
            "header of 16 bytes",
            error().v4(|ip| ip.header_length = Some(4)),
        );
    } else {
        let quoted = |change: &dyn Fn(&mut lb_tests::packets::Ipv6)| {
            error().quoting(|packet| packet.v6(change))
        };
        for protocol in [0, 1, 4, 17, 41, 58, 132] {
            add(
                &format!("next header {protocol} quoted"),
                quoted(&|ip| ip.protocol = protocol),
            );
        }
        for kind in [Extension::HOP_BY_HOP, Extension::DESTINATION_OPTIONS] {
            add(
                &format!("extension header {kind} quoted"),
                quoted(&|ip| ip.extensions = vec![Extension::new(kind, 0)]),
            );
            add(
                &format!("behind extension header {kind}"),
                error().v6(|ip| ip.extensions = vec![Extension::new(kind, 0)]),
            );
        }
        add(
            "fragment quoted",
            quoted(&|ip| ip.extensions = vec![Extension::fragment(0, true)]),
        );
        add(
            "fragment",
            error().v6(|ip| ip.extensions = vec![Extension::fragment(0, true)]),
        );
        add("version 4", error().v6(|ip| ip.version = 4));
        add("version 4 quoted", quoted(&|ip| ip.version = 4));
    }
    table
}

/// Sound errors about what is nobody's here.
fn unrelated(family: &Family) -> Vec<(&'static str, Icmp)> {
    let (listen, server, client) = (
        address(family.listen),
        address(family.server),
        address(family.client),
    );
    let router = ip(family.front_router);
    let about = |from, to| Icmp::too_big(router, data(from, to), 1400);
    let at = |mut endpoint: std::net::SocketAddr, port| {
        endpoint.set_port(port);
        endpoint
    };
    vec![
        (
            "from another port of the service's address",
            about(at(listen, 81), client),
        ),
        (
            "to another port of the backend",
            about(client, at(server, 81)),
        ),
        ("from the backend itself", about(server, client)),
        ("the request, from the clients' side", about(client, listen)),
        (
            "another client's packet to the backend, which no record is of and no slot",
            about(at(listen, 1), server).to(client.ip()),
        ),
        (
            "the service's packet, but to somebody else",
            about(listen, client).to(router),
        ),
        (
            "the service's packet, but to the backend",
            about(listen, client).to(server.ip()),
        ),
        (
            "the client's packet, but to the service",
            about(client, server).to(listen.ip()),
        ),
    ]
}

/// S-FWD-1, S-FWD-2: errors that are a service's and cannot be sent on.
#[test]
fn broken_errors_are_dropped_for_their_service() {
    let mut testbed = Testbed::with_one_backend_each();
    for family in &FAMILIES {
        testbed.connect(address(family.client), address(family.listen));
        for error in [family.towards_backend(), family.towards_client()] {
            let error = || error.clone();
            let mut table = vec![
                ("last hop", error().hops(1), Reason::TtlExpired),
                ("no hop", error().hops(0), Reason::TtlExpired),
            ];
            let whole = error().build().len() - 14;
            let with_length = |length: usize| match family.is_ipv4() {
                true => error().v4(|ip| ip.total_length = Some(length as u16)),
                false => error().v6(|ip| ip.payload_length = Some((length - 40) as u16)),
            };
            let least = 2 * family.header() + 16;
            let malformed = Reason::MalformedIp;
            table.extend([
                ("beyond the frame", with_length(whole + 1), malformed),
                ("far beyond the frame", with_length(65_535), malformed),
                ("too short for the quote", with_length(least - 1), malformed),
                ("without a quote", with_length(family.header()), malformed),
            ]);
            if family.is_ipv4() {
                table.extend([
                    (
                        "header checksum",
                        error().v4(|ip| ip.checksum_error = 1),
                        Reason::BadIpChecksum,
                    ),
                    (
                        "everything wrong",
                        error()
                            .v4(|ip| (ip.checksum_error, ip.total_length) = (1, Some(0)))
                            .hops(0),
                        Reason::BadIpChecksum,
                    ),
                ]);
            }
            for (description, message, reason) in table {
                let expect = Expect::Drop(Some(family.service), reason);
                testbed.check(description, &message.build(), &expect);
            }
        }
    }
}

/// S-FWD-1: what stands behind the packet is no part of the quote, even if it looks like one.
#[test]
fn padding_is_not_quoted() {
    let mut testbed = Testbed::with_one_backend_each();
    for family in &FAMILIES {
        testbed.connect(address(family.client), address(family.listen));
        let behind: Vec<u8> = Packet::request().build()[42..].to_vec();
        for tcp in [8, 16] {
            let cut = |mut message: Icmp| {
                message.padding.clone_from(&behind);
                message.cut(family.header() + tcp)
            };
            let up = cut(family.towards_backend());
            let expected = family.at_backend(up.clone(), family.index, family.server);
            testbed.check("up", &up.build(), &family.led(&expected));
            let down = cut(family.towards_client());
            let expected = family.at_client(down.clone(), family.listen);
            testbed.check("down", &down.build(), &family.led(&expected));
        }
    }
}

/// Frames cut short are passed as they came, or dropped.
#[test]
fn errors_cut_short_are_never_sent() {
    let mut testbed = Testbed::with_one_backend_each();
    for family in &FAMILIES {
        testbed.connect(address(family.client), address(family.listen));
        for error in [family.towards_backend(), family.towards_client()] {
            let whole = error.build();
            for length in 14..whole.len() {
                let short = &whole[..length];
                let quotes = length >= 14 + 2 * family.header() + 16;
                let expect = match quotes {
                    true => Expect::Drop(Some(family.service), Reason::MalformedIp),
                    false => Expect::Pass,
                };
                testbed.check(&format!("{length} bytes"), short, &expect);
            }
        }
    }
}
