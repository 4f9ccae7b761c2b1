//! ICMP that nobody thought of: whatever comes in, it is passed as it is, dropped, or sent on with
//! checksums that are as right or wrong as they were.

use std::cell::RefCell;

use lb_tests::packets::{Icmp, Outcome, Packet, Tag, Testbed, Verdict, address};
use proptest::{
    prelude::*,
    sample::Index,
    test_runner::{Config, TestCaseError, TestRunner},
};

use super::FAMILIES;

/// Echo requests and errors, with a few bytes changed, cut short or stretched.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let message = (0..2_usize, 0..3_usize, any::<u8>(), any::<Vec<u8>>()).prop_map(
        |(family, which, hops, data)| {
            let family = &FAMILIES[family];
            let message = match which {
                0 => family.towards_backend(),
                1 => family.towards_client(),
                _ => Icmp::echo(
                    address(family.client).ip(),
                    address(family.listen).ip(),
                    &data,
                ),
            };
            message.quoting(|packet| packet.payload(&data)).hops(hops)
        },
    );
    let options = prop_oneof![3 => Just(vec![]), 1 => prop::collection::vec(any::<u8>(), 0..=40)];
    let cut = prop::option::of(0..100_usize);
    let damage = prop::collection::vec((any::<Index>(), any::<u8>()), 0..4);
    let end = prop::option::weighted(0.1, any::<Index>());
    (message, options, cut, damage, end, 0..=2_usize).prop_map(
        |(message, options, cut, damage, end, tags)| {
            let is_ipv4 = message.is_ipv4();
            let quoting = |packet: Packet| match is_ipv4 {
                true => packet.v4(|ip| ip.options = options),
                false => packet,
            };
            let message = message.quoting(quoting).tags(&[Tag::dot1q(5); 2][..tags]);
            let message = match cut {
                Some(length) => message.cut(length),
                None => message,
            };
            let mut frame = message.build();
            for (place, value) in damage {
                let place = place.index(frame.len().min(140));
                frame[place] = value;
            }
            if let Some(end) = end {
                // 14 bytes are the least that the kernel runs.
                frame.resize(14 + end.index(frame.len()), 0x5a);
            }
            frame
        },
    )
}

/// What a frame's checksums have to be held against: the IP packet.
fn packet(frame: &[u8]) -> &[u8] {
    let tags = (0..2)
        .take_while(|n| frame[12 + 4 * n..14 + 4 * n] == [0x81, 0])
        .count();
    &frame[14 + 4 * tags..]
}

/// RFC 1071, over parts of an even length but for the last.
fn sum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let mut sum: u32 = words
        .map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // Two ways to say that nothing is wrong.
    if sum == 0 { 0xffff } else { sum as u16 }
}

/// By how much each checksum is wrong: the IPv4 header's, the message's, and the quoted header's
/// if there is one.
fn errors(packet: &[u8]) -> (u16, u16, Option<u16>) {
    if packet[0] >> 4 == 4 {
        let length = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
        let message = &packet[20..length];
        let quoted = message.get(8).map(|first| 4 * usize::from(first & 0xf));
        let quoted = quoted.filter(|_| matches!(message[0], 3 | 11 | 12));
        let header = quoted.and_then(|length| message.get(8..8 + length));
        (
            sum(&[&packet[..20]]),
            sum(&[message]),
            header.map(|header| sum(&[header])),
        )
    } else {
        let length = usize::from(u16::from_be_bytes([packet[4], packet[5]]));
        let pseudo = [
            &packet[8..40],
            &(length as u32).to_be_bytes(),
            &[0, 0, 0, 58],
        ]
        .concat();
        (0xffff, sum(&[&pseudo, &packet[40..40 + length]]), None)
    }
}

/// Whether the program did right by a frame; true if it sent it on.
fn judge(frame: &[u8], outcome: &Outcome) -> Result<bool, TestCaseError> {
    match outcome.verdict {
        Verdict::Pass => {
            prop_assert!(outcome.frame == frame, "passed, but not as it was");
            Ok(false)
        }
        Verdict::Drop => Ok(false),
        Verdict::Transmit => {
            let (before, after) = (packet(frame), packet(&outcome.frame));
            prop_assert_eq!(errors(before), errors(after));
            prop_assert_eq!(errors(after).0, 0xffff);
            prop_assert_eq!(before.len(), after.len());
            Ok(true)
        }
        verdict => Err(TestCaseError::fail(format!("{verdict:?}"))),
    }
}

/// S-FWD-1, S-FWD-3, S-FWD-7, S-ICMP-3
#[test]
fn damaged_messages_are_translated_consistently_or_not_at_all() {
    let mut testbed = Testbed::with_one_backend_each();
    for family in &FAMILIES {
        testbed.connect(address(family.client), address(family.listen));
    }
    let records = testbed.records();
    let testbed = RefCell::new(testbed);
    let sent = RefCell::new(0);
    let config = Config {
        cases: 10_000,
        failure_persistence: None,
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(&frames(), |frame| {
        let outcome = testbed.borrow_mut().run(&frame);
        *sent.borrow_mut() += u32::from(judge(&frame, &outcome)?);
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
    let sent = sent.into_inner();
    assert!(sent > 1_000, "only {sent} messages were sent on");
    assert!(testbed.into_inner().records() == records);
}
