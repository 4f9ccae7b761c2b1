//! What becomes of an error's headers and of its quote, in both directions: every expected frame
//! is built anew, with its checksums computed in full (S-FWD-3).

use std::ops::Range;

use lb_tests::packets::{Body, Expect, Icmp, Tag, Testbed, address, flags};

use super::{FAMILIES, Family, ip};

/// Changes to an error that leave it one that is translated.
fn cases(family: &Family) -> Vec<(String, Icmp, Icmp)> {
    let mut cases = Vec::new();
    let mut add = |description: &str, change: &dyn Fn(Icmp) -> Icmp| {
        cases.push((
            description.to_owned(),
            change(family.towards_backend()),
            change(family.towards_client()),
        ));
    };
    let header = family.header();
    add("as it comes", &|m| m);
    for (kind, code) in kinds(family) {
        add(&format!("type {kind} code {code}"), &|m| m.kind(kind, code));
    }
    // 8 bytes of TCP are enough; 18 hold the checksum.
    for tcp in [8, 9, 16, 18, 19, 20, 21, 27, 46] {
        add(&format!("{tcp} bytes of TCP"), &|m| m.cut(header + tcp));
        add(&format!("{tcp} bytes of TCP and padding"), &|m| {
            m.cut(header + tcp).padding(40)
        });
    }
    add("a quote as long as a router's may be", &|m| {
        m.quoting(|p| p.payload(&[0x5a; 1400]))
            .cut(if header == 20 { 548 } else { 1232 })
    });
    add("a SYN with options", &|m| {
        m.quoting(|p| {
            p.flags(flags::SYN)
                .payload(b"")
                .tcp(|tcp| tcp.options = vec![2, 4, 5, 0xb4, 1, 1, 4, 2])
        })
    });
    add("wrong checksum", &|m| m.checksum_error(1));
    add("wrong checksum, short quote", &|m| {
        m.cut(header + 8).checksum_error(0x8000)
    });
    add("wrong quoted TCP checksum", &|m| {
        m.quoting(|p| p.tcp(|tcp| tcp.checksum_error = 0x0101))
    });
    add("everything wrong", &|m| {
        m.quoting(|p| p.tcp(|tcp| tcp.checksum_error = 7))
            .checksum_error(9)
    });
    add("quoted data offset lies", &|m| {
        m.quoting(|p| p.tcp(|tcp| tcp.data_offset = Some(1)))
    });
    add("quoted packet on its last hop", &|m| {
        m.quoting(|p| p.hops(0))
    });
    add("highest TTL", &|m| m.hops(255));
    add("lowest TTL that goes on", &|m| m.hops(2));
    add("one tag", &|m| m.tags(&[Tag::dot1q(0x6005)]));
    add("two tags", &|m| m.tags(&[Tag::dot1ad(7), Tag::dot1q(9)]));
    add("much behind the packet", &|m| m.padding(300));
    if family.is_ipv4() {
        add("DSCP, no DF", &|m| {
            m.v4(|ip| (ip.service_type, ip.fragment) = (0xc0, 0))
        });
        for options in [4, 8, 20, 36, 40] {
            for tcp in [8, 18, 46] {
                let quote = format!("{options} bytes of quoted options, {tcp} of TCP");
                add(&quote, &|m| {
                    m.quoting(|p| p.v4(|ip| ip.options = vec![1; options]))
                        .cut(header + options + tcp)
                });
            }
        }
        add("wrong quoted IP checksum", &|m| {
            m.quoting(|p| p.v4(|ip| ip.checksum_error = 0x1234))
        });
        add("wrong quoted IP checksum, short quote", &|m| {
            m.quoting(|p| p.v4(|ip| ip.checksum_error = 0x1234)).cut(28)
        });
        for length in [0, 19, 20, 27, 1500, 65_535] {
            add(&format!("quoted length {length}"), &|m| {
                m.quoting(|p| p.v4(|ip| ip.total_length = Some(length)))
            });
        }
        add("first fragment quoted", &|m| {
            m.quoting(|p| p.v4(|ip| ip.fragment = 0x2000))
        });
    } else {
        add("traffic class and flow label", &|m| {
            m.v6(|ip| (ip.traffic_class, ip.flow_label) = (0xbb, 0xf_ffff))
        });
        for length in [0, 7, 1500, 65_535] {
            add(&format!("quoted length {length}"), &|m| {
                m.quoting(|p| p.v6(|ip| ip.payload_length = Some(length)))
            });
        }
    }
    cases
}

/// Every type of error, with every code that has a meaning and one that has none.
fn kinds(family: &Family) -> Vec<(u8, u8)> {
    let codes: &[(u8, u8)] = match family.is_ipv4() {
        true => &[(3, 15), (11, 1), (12, 2)],
        false => &[(1, 7), (2, 0), (3, 1), (4, 2)],
    };
    let all = |&(kind, last)| (0..=last).chain([200]).map(move |code| (kind, code));
    codes.iter().flat_map(all).collect()
}

/// S-ICMP-1, S-ICMP-2: an error about what the backend has sent, from the clients' side, without a
/// record of the connection.
#[test]
fn errors_reach_the_backend_without_state() {
    let mut testbed = Testbed::with_one_backend_each();
    errors_reach_the_backend(&mut testbed);
    assert_eq!(testbed.totals().used, 0);
}

/// S-ICMP-1, S-ICMP-2: with one.
#[test]
fn errors_reach_the_backend_with_state() {
    let mut testbed = Testbed::with_one_backend_each();
    for family in &FAMILIES {
        testbed.connect(address(family.client), address(family.listen));
        // Nobody's slot is the backend's any more.
        testbed.share(family.service, &[]);
    }
    errors_reach_the_backend(&mut testbed);
    assert_eq!(testbed.totals().established, 2);
}

#[track_caller]
fn errors_reach_the_backend(testbed: &mut Testbed) {
    for family in &FAMILIES {
        for (description, message, _) in cases(family) {
            for sender in [ip(family.front_router), address(family.client).ip()] {
                let message = message.clone().from(sender);
                let expected = family.at_backend(message.clone(), family.index, family.server);
                let description = format!("{description}, from {sender}");
                testbed.check(&description, &message.build(), &family.led(&expected));
            }
        }
    }
}

/// S-ICMP-1: an error about what the client has sent, from the backends' side, be it a router's or
/// the backend's own.
#[test]
fn errors_reach_the_client() {
    let mut testbed = Testbed::with_one_backend_each();
    for family in &FAMILIES {
        testbed.connect(address(family.client), address(family.listen));
        for (description, _, message) in cases(family) {
            for sender in [ip(family.back_router), address(family.server).ip()] {
                let message = message.clone().from(sender);
                let expected = family.at_client(message.clone(), family.listen);
                let description = format!("{description}, from {sender}");
                testbed.check(&description, &message.build(), &family.led(&expected));
            }
        }
    }
}

/// The error as its receiver gets it, but with this part of the quoted TCP checksum as it was.
fn with_old_checksum(before: &Icmp, after: Icmp, part: Range<usize>, length: usize) -> Icmp {
    let (Body::Quote(old, _), Body::Quote(new, _)) = (&before.body, &after.body) else {
        unreachable!("errors quote");
    };
    let (old, mut quoted) = (old.build_ip(), new.build_ip());
    assert_ne!(quoted[part.clone()], old[part.clone()]);
    quoted[part.clone()].copy_from_slice(&old[part]);
    quoted.truncate(length);
    let body = Body::Bytes(quoted);
    Icmp { body, ..after }
}

/// S-FWD-3: where the quote ends within the TCP checksum, the byte that there is of it stays, and
/// the message's own makes up for it.
#[test]
fn half_a_checksum_is_left_alone() {
    let mut testbed = Testbed::with_one_backend_each();
    for family in &FAMILIES {
        let length = family.header() + 17;
        let error = family.towards_backend().cut(length);
        let after = family.at_backend(error.clone(), family.index, family.server);
        let expected = with_old_checksum(&error, after, length - 1..length, length);
        testbed.check("17 bytes", &error.build(), &family.led(&expected));
    }
}

/// Quotes that go on in a further buffer: what decides has to be in the first, and what is not in it
/// is left as it is.
#[test]
fn quotes_in_several_buffers() {
    let mut testbed = Testbed::with_one_backend_each();
    for family in &FAMILIES {
        let error = family
            .towards_backend()
            .quoting(|p| p.payload(&[0x5a; 6000]));
        let frame = error.build();
        let whole = family.at_backend(error.clone(), family.index, family.server);
        let tcp = 14 + 2 * family.header() + 8;
        let checksum = family.header() + 16..family.header() + 18;
        let without = with_old_checksum(&error, whole.clone(), checksum, usize::MAX);
        for (description, linear, expect) in [
            ("no quote", tcp - 1, Expect::Pass),
            ("not enough of TCP", tcp + 7, Expect::Pass),
            ("just enough", tcp + 8, family.led(&without)),
            ("half the checksum", tcp + 17, family.led(&without)),
            ("the checksum", tcp + 18, family.led(&whole)),
            ("some data", 2000, family.led(&whole)),
        ] {
            let before = testbed.reasons();
            let outcome = testbed.run_split(&frame, linear);
            testbed.compare(description, &frame, &expect, &before, outcome);
        }
    }
}

/// S-FWD-3: all around the corner cases of ones' complement, with the TCP checksum in the quote and
/// without.
#[test]
fn checksums_agree_all_around_zero() {
    let mut testbed = Testbed::with_one_backend_each();
    for family in &FAMILIES {
        testbed.connect(address(family.client), address(family.listen));
    }
    let mut seen = [0; 2];
    for n in 0..2_000_u16 {
        for (count, family) in seen.iter_mut().zip(&FAMILIES) {
            let tcp = if n % 2 == 0 { 8 } else { 46 };
            let change = |mut message: Icmp| {
                message.rest = u32::from(n.wrapping_mul(33));
                message
                    .quoting(|p| p.tcp(|tcp| tcp.window = n.wrapping_mul(37)))
                    .cut(family.header() + tcp)
            };
            let up = change(family.towards_backend());
            let down = change(family.towards_client());
            for (message, expected) in [
                (
                    up.clone(),
                    family.at_backend(up, family.index, family.server),
                ),
                (down.clone(), family.at_client(down, family.listen)),
            ] {
                let outcome = testbed.run(&message.build());
                assert!(outcome.frame == expected.build(), "{n}: {message:?}");
                *count += 1;
            }
        }
    }
    assert_eq!(seen, [4_000; 2]);
}

/// S-FWD-6: tags of the way out, whatever tags the error came with.
#[test]
fn errors_get_the_tags_of_their_way_out() {
    let tags = [Tag::dot1ad(100), Tag::dot1q(0x2007)];
    let mut testbed = Testbed::with_one_backend_each();
    for family in &FAMILIES {
        for outgoing in 0..=2 {
            testbed.write_backend(
                family.service,
                family.listen,
                family.index,
                family.server,
                |backend| {
                    let hop = lb_tests::packets::next_hop(family.index, 1, &tags[..outgoing]);
                    backend.next_hop = Some(hop);
                },
            );
            for incoming in 0..=2 {
                let message = family.towards_backend().tags(&tags[..incoming]).padding(3);
                let expected = family
                    .at_backend(message.clone(), family.index, family.server)
                    .tags(&tags[..outgoing]);
                let expected: Expect = family.led(&expected);
                let description = format!("{incoming} to {outgoing}");
                testbed.check(&description, &message.build(), &expected);
            }
        }
    }
}
