//! Frames that nobody thought of: whatever comes in, it is passed as it is, dropped, or sent on as
//! a consistent packet (S-FWD-1, S-FWD-3, S-FWD-7).

use std::cell::RefCell;

use lb_tests::packets::{
    CLIENT, CLIENT6, Dissection, Extension, LISTEN, LISTEN6, Packet, SERVER, SERVER6, Tag, Testbed,
    Verdict, WEB, WEB6, address, next_hop,
};
use proptest::{
    prelude::*,
    sample::{Index, select},
    test_runner::{Config, TestCaseError, TestRunner},
};

/// Services whose backends are behind none, one and two tags, and connections with them.
fn testbed() -> Testbed {
    let mut testbed = Testbed::with_one_backend_each();
    testbed.connect(address(CLIENT), address(LISTEN));
    testbed.connect(address(CLIENT6), address(LISTEN6));
    testbed.write_backend(WEB, LISTEN, 1, SERVER, |backend| {
        backend.next_hop = Some(next_hop(1, 1, &[Tag::dot1ad(3), Tag::dot1q(4)]));
    });
    testbed.write_backend(WEB6, LISTEN6, 2, SERVER6, |backend| {
        backend.next_hop = Some(next_hop(2, 1, &[Tag::dot1q(4)]));
    });
    testbed
}

/// Whether the program did right by a frame; true if it sent it on.
fn judge(testbed: &mut Testbed, frame: &[u8]) -> Result<bool, TestCaseError> {
    let outcome = testbed.run(frame);
    match outcome.verdict {
        Verdict::Pass => {
            prop_assert!(outcome.frame == frame, "passed, but not as it was");
            Ok(false)
        }
        Verdict::Drop => Ok(false),
        Verdict::Transmit => {
            let before = Dissection::of(frame);
            let after = Dissection::of(&outcome.frame);
            let (Some(before), Some(after)) = (&before, &after) else {
                return Err(TestCaseError::fail(format!("{before:?} became {after:?}")));
            };
            prop_assert!(before.ip_checksum_verifies && after.ip_checksum_verifies);
            prop_assert_eq!(before.tcp_checksum_verifies, after.tcp_checksum_verifies);
            prop_assert_eq!(before.hops, after.hops + 1);
            prop_assert_eq!(before.flags, after.flags);
            prop_assert_eq!(&before.constant, &after.constant);
            translated(before, after)?;
            Ok(true)
        }
        verdict => Err(TestCaseError::fail(format!("{verdict:?}"))),
    }
}

/// Requests keep their source and replies their destination; the other end changes.
fn translated(before: &Dissection, after: &Dissection) -> Result<(), TestCaseError> {
    for (listen, server, tags) in [(LISTEN, SERVER, 2), (LISTEN6, SERVER6, 1)] {
        let (listen, server) = (address(listen), address(server));
        if before.destination == listen {
            prop_assert_eq!((after.source, after.destination), (before.source, server));
            prop_assert_eq!(after.link.tags.len(), tags);
            return Ok(());
        }
        if before.source == server {
            prop_assert_eq!(
                (after.source, after.destination),
                (listen, before.destination)
            );
            return Ok(());
        }
    }
    Err(TestCaseError::fail(format!("{before:?} is not ours")))
}

/// Runs `cases` frames; how many of them were sent on.
fn run(cases: u32, frames: &impl Strategy<Value = Vec<u8>>) -> u32 {
    let testbed = RefCell::new(testbed());
    let sent = RefCell::new(0);
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(frames, |frame| {
        *sent.borrow_mut() += u32::from(judge(&mut testbed.borrow_mut(), &frame)?);
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
    sent.into_inner()
}

/// Packets of ours, requests and replies, with all sorts of headers.
fn packets() -> impl Strategy<Value = Packet> {
    let tag = (select(vec![0x8100, 0x88a8]), any::<u16>())
        .prop_map(|(protocol, control)| Tag { protocol, control });
    let ends = select(vec![
        (CLIENT, LISTEN),
        (SERVER, CLIENT),
        (CLIENT6, LISTEN6),
        (SERVER6, CLIENT6),
    ]);
    let extensions = prop::collection::vec(
        (
            select(vec![Extension::HOP_BY_HOP, Extension::ROUTING, 60]),
            0..4_u8,
        ),
        0..4,
    );
    (
        ends,
        prop::collection::vec(tag, 0..=2),
        any::<u8>(),
        prop::collection::vec(any::<u8>(), 0..=40),
        prop::collection::vec(any::<u8>(), 0..64),
        prop_oneof![4 => Just(0), 1 => any::<u16>()],
        any::<u8>(),
        extensions,
        0..16_usize,
    )
        .prop_map(
            |((from, to), tags, flags, options, payload, error, hops, extensions, padding)| {
                let packet = Packet::new(address(from), address(to))
                    .tags(&tags)
                    .flags(flags)
                    .payload(&payload)
                    .hops(hops)
                    .padding(padding)
                    .tcp(|tcp| tcp.checksum_error = error);
                match packet.source().is_ipv4() {
                    true => packet.v4(|ip| ip.options = options),
                    false => packet.tcp(|tcp| tcp.options = options).v6(|ip| {
                        let extension = |(kind, units)| Extension::new(kind, units);
                        ip.extensions = extensions.into_iter().map(extension).collect();
                    }),
                }
            },
        )
}

#[test]
fn whole_packets_are_translated_consistently() {
    let sent = run(3_000, &packets().prop_map(|packet| packet.build()));
    assert!(sent > 500, "only {sent} packets were sent on");
}

/// Whole packets with a few bytes changed, and sometimes cut short or stretched.
#[test]
fn damaged_packets_are_translated_consistently_or_not_at_all() {
    let damage = prop::collection::vec((any::<Index>(), any::<u8>()), 0..4);
    let frames =
        (packets(), damage, prop::option::of(any::<Index>())).prop_map(|(packet, damage, end)| {
            let mut frame = packet.build();
            for (place, value) in damage {
                let place = place.index(frame.len().min(120));
                frame[place] = value;
            }
            if let Some(end) = end {
                // 14 bytes are the least that the kernel runs.
                frame.resize(14 + end.index(frame.len()), 0x5a);
            }
            frame
        });
    let sent = run(10_000, &frames);
    assert!(sent > 100, "only {sent} packets were sent on");
}

/// Bytes from nowhere, some of them behind an EtherType that is looked at.
#[test]
fn random_bytes_are_not_ours() {
    let ether_type = select(vec![0x0800_u16, 0x86dd, 0x8100, 0x88a8, 0x0806]);
    let bytes = prop::collection::vec(any::<u8>(), 14..200);
    let frames = (bytes, prop::option::of(ether_type)).prop_map(|(mut frame, ether_type)| {
        if let Some(ether_type) = ether_type {
            frame[12..14].copy_from_slice(&ether_type.to_be_bytes());
        }
        frame
    });
    assert_eq!(run(10_000, &frames), 0);
}
