#![cfg(not(loom))]

use core::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;

use super::*;
use crate::{hash::HashKey, tcp::State};

fn bucket() -> Bucket4<AtomicU64> {
    Bucket4::empty(|| AtomicU64::new(0))
}

fn key(n: u8) -> FlowKey4 {
    FlowKey4::new([10, 0, 0, n], [0x80, n], 7)
}

/// Into a table of this one bucket.
fn claim<B: Bucket>(bucket: &B, key: B::Key, value: FlowValue, now: Tick) -> bool {
    insert(bucket, bucket, key, value, now)
}

fn value(state: State, expires: u32) -> FlowValue {
    FlowValue::new(3, 4, state, Tick::new(expires))
}

#[test]
fn a_claimed_flow_is_found_with_its_value() {
    let bucket = bucket();
    assert_eq!(bucket.find(key(1)), None);
    assert!(claim(
        &bucket,
        key(1),
        value(State::SYN_SENT, 100),
        Tick::new(50)
    ));
    let found = bucket.find(key(1)).unwrap();
    assert_eq!(
        (found.slot, found.value.backend(), found.value.last_hop()),
        (0, 3, 4)
    );
    assert_eq!(found.value.state(), State::SYN_SENT);
    assert_eq!(bucket.find(key(2)), None);
    assert_eq!(bucket.at(0), Some((key(1), found.value)));
    assert_eq!((bucket.at(1), bucket.at(4)), (None, None));
}

#[test]
fn expired_records_give_way_and_living_ones_do_not() {
    let bucket = bucket();
    for n in 0..4 {
        let expires = if n == 2 { 40 } else { 100 };
        assert!(claim(
            &bucket,
            key(n),
            value(State::ESTABLISHED, expires),
            Tick::new(30)
        ));
        assert_eq!(bucket.find(key(n)).unwrap().slot, usize::from(n));
    }
    assert!(!claim(
        &bucket,
        key(9),
        value(State::SYN_SENT, 100),
        Tick::new(40)
    ));
    assert!(claim(
        &bucket,
        key(9),
        value(State::SYN_SENT, 100),
        Tick::new(41)
    ));
    assert_eq!(bucket.find(key(2)), None);
    assert_eq!(bucket.find(key(9)).unwrap().slot, 2);
}

#[test]
fn the_first_bucket_is_preferred_then_the_emptier() {
    let (first, second) = (bucket(), bucket());
    let in_first = [true, true, false, false, true, false, true, false];
    for (n, expected) in (0..).zip(in_first) {
        let value = value(State::ESTABLISHED, 100);
        assert!(insert(&first, &second, key(n), value, Tick::new(0)));
        assert_eq!(first.find(key(n)).is_some(), expected, "flow {n}");
        assert_eq!(second.find(key(n)).is_none(), expected, "flow {n}");
    }
    assert!(!insert(
        &first,
        &second,
        key(8),
        value(State::ESTABLISHED, 100),
        Tick::new(0)
    ));
}

/// S-CT-1, S-CT-2: full buckets give up their oldest half-open record, never an established one.
#[test]
fn half_open_gives_way_established_never() {
    let bucket = bucket();
    let now = Tick::new(10);
    for (n, state, expires) in [
        (0, State::ESTABLISHED, 20),
        (1, State::SYN_SENT, 90),
        (2, State::SYN_RECEIVED, 80),
        (3, State::RESET, 12),
    ] {
        assert!(claim(&bucket, key(n), value(state, expires), now));
    }
    for (n, slot) in [(9, Some(2)), (10, Some(1)), (11, None)] {
        assert_eq!(
            claim(&bucket, key(n), value(State::ESTABLISHED, 95), now),
            slot.is_some()
        );
        assert_eq!(bucket.find(key(n)).map(|found| found.slot), slot);
    }
    for n in [0, 3, 9, 10] {
        assert!(bucket.find(key(n)).is_some(), "flow {n}");
    }
}

#[test]
fn a_record_that_was_refreshed_is_not_taken() {
    let bucket = bucket();
    claim(&bucket, key(1), value(State::SYN_SENT, 100), Tick::new(0));
    let seen = bucket.find(key(1)).unwrap();
    let word = bucket.value(0).unwrap();
    assert!(
        word.replace(
            seen.value.bits(),
            seen.value
                .renewed(State::ESTABLISHED, Tick::new(200))
                .bits()
        )
    );
    assert!(!bucket.take(0, seen.value, key(2), value(State::SYN_SENT, 300)));
    assert_eq!(
        bucket.find(key(1)).unwrap().value.state(),
        State::ESTABLISHED
    );
}

#[test]
fn a_sweep_ends_only_what_has_expired() {
    let bucket = bucket();
    claim(
        &bucket,
        key(1),
        value(State::ESTABLISHED, 100),
        Tick::new(0),
    );
    let word = bucket.value(0).unwrap();
    assert!(!expire(word, Tick::new(100)));
    assert!(expire(word, Tick::new(101)));
    assert_eq!(bucket.find(key(1)), None);
    assert!(!expire(word, Tick::new(101)));
}

#[test]
fn ipv6_keys_differ_in_every_part() {
    let bucket = Bucket6::empty(|| AtomicU64::new(0));
    let base = FlowKey6::new([7; 16], [1, 2], 5);
    claim(&bucket, base, value(State::SYN_SENT, 100), Tick::new(0));
    assert!(bucket.find(base).is_some());
    assert_eq!(bucket.key(0), Some(base));
    assert_eq!(
        (base.client(), base.port(), base.service()),
        ([7; 16], [1, 2], 5)
    );
    for byte in 0..16 {
        let mut address = [7; 16];
        address[byte] = 8;
        assert_eq!(bucket.find(FlowKey6::new(address, [1, 2], 5)), None);
    }
    assert_eq!(bucket.find(FlowKey6::new([7; 16], [1, 3], 5)), None);
    assert_eq!(bucket.find(FlowKey6::new([7; 16], [1, 2], 6)), None);
}

/// S-CT-6: what is established, closing or reset can be ended, once; the rest has no end to tell of.
#[test]
fn ending_keeps_everything_but_state_and_expiry() {
    for bits in 0..16 {
        let state = State::from_bits(bits);
        let seen = FlowValue::new(3, 7, state, Tick::new(5));
        let word = AtomicU64::new(seen.bits());
        let endable = State::ESTABLISHED.bits()..=State::RESET.bits();
        let ended = end(&word, seen, Tick::new(20));
        assert_eq!(ended, endable.contains(&bits), "{state:?}");
        let after = FlowValue::from_bits(word.load(Ordering::Relaxed));
        if ended {
            assert_eq!(after, seen.renewed(State::ENDED, Tick::new(20)));
            assert!(!end(&word, after, Tick::new(30)));
        } else {
            assert_eq!(after, seen);
        }
    }
}

proptest! {
    #[test]
    fn values_keep_their_parts(backend: u16, last_hop: u16, bits in 2..=10u8, expires in 0..1u32 << 24, later in 0..1u32 << 24) {
        let state = State::from_bits(bits);
        let value = FlowValue::new(backend, last_hop, state, Tick::new(expires));
        prop_assert_eq!((value.backend(), value.last_hop(), value.state(), value.expires()), (backend, last_hop, state, Tick::new(expires)));
        let value = value.renewed(State::CLOSING, Tick::new(later)).with_last_hop(9);
        prop_assert_eq!((value.backend(), value.last_hop(), value.state(), value.expires()), (backend, 9, State::CLOSING, Tick::new(later)));
    }

    #[test]
    fn ticks_compare_across_the_wrap(start: u32, ahead in 1..1u32 << 23) {
        let (start, end) = (Tick::new(start), Tick::new(start).after(ahead));
        prop_assert!(start.is_before(end));
        prop_assert!(!end.is_before(start));
        prop_assert!(!start.is_before(start));
        prop_assert_eq!(end.since(start), ahead);
    }

    /// S-NAT-8: the key holds client address, client port and service.
    #[test]
    fn ipv4_keys_keep_their_parts(client: [u8; 4], port: [u8; 2], service: u16) {
        let key = FlowKey4::new(client, port, service);
        prop_assert_eq!((key.client(), key.port(), key.service()), (client, port, service));
    }
}

/// How full a table gets before flows find no place, which decides how many records the daemon
/// makes for a flow of `[conntrack] capacity`.
#[test]
fn one_flow_in_a_thousand_finds_no_place_where_three_in_five_records_are_taken() {
    let buckets = 1 << 13;
    let table: Vec<_> = (0..buckets).map(|_| bucket()).collect();
    let secret = HashKey { k0: 1, k1: 2 };
    let flows = buckets * RECORDS as u32 * 3 / 5;
    let turned_away = (0..flows)
        .filter(|n| {
            let key = FlowKey4::new(n.to_be_bytes(), [0, 80], 1);
            let [first, second] = candidates(key.hash(secret), buckets).map(|b| &table[b as usize]);
            !insert(
                first,
                second,
                key,
                value(State::ESTABLISHED, 100),
                Tick::new(0),
            )
        })
        .count();
    assert!(
        turned_away <= flows as usize / 1000,
        "{turned_away} of {flows}"
    );
}
