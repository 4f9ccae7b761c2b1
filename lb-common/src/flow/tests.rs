#![cfg(not(loom))]

use core::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;

use super::{
    test_table::{Single, Whole},
    *,
};
use crate::{hash::HashKey, tcp::State};

fn bucket() -> Bucket4<AtomicU64> {
    Bucket4::empty(|| AtomicU64::new(0))
}

fn key(n: u8) -> FlowKey4 {
    FlowKey4::new([10, 0, 0, n], [0x80, n], 7)
}

/// Into a table of this one bucket.
fn claim<B: Bucket>(bucket: &B, key: B::Key, value: FlowValue, now: Tick) -> bool {
    insert(&Single(bucket), key, 0, value, now)
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

fn table(buckets: u32) -> Whole<AtomicU64> {
    Whole::new(buckets, || AtomicU64::new(0))
}

/// The buckets of every flow: 0, 1, 2, 3 and from there on again, of four.
const IN_TURN: u64 = 0x4000_0000 << 32;

#[test]
fn the_first_bucket_with_room_is_taken() {
    let table = table(4);
    let candidates = Candidates::of(IN_TURN, 4);
    assert_eq!(
        [0, 1, 2, 3, 4].map(|n| candidates.bucket(n)),
        [0, 1, 2, 3, 0]
    );
    for n in 0..16 {
        let value = value(State::ESTABLISHED, 100);
        assert!(insert(&table, key(n), IN_TURN, value, Tick::new(0)));
        assert!(table.buckets[usize::from(n / 4)].find(key(n)).is_some());
        assert!(find(&table, key(n), IN_TURN).is_some());
    }
    let late = value(State::ESTABLISHED, 100);
    assert!(!insert(&table, key(16), IN_TURN, late, Tick::new(0)));
    assert!(find(&table, key(16), IN_TURN).is_none());
}

/// What stands behind a bucket is found although there is room in that again; and a bucket that
/// never was full is the last that is looked at.
#[test]
fn only_behind_a_bucket_that_has_overflowed_is_anything_looked_for() {
    let table = table(4);
    let value = value(State::ESTABLISHED, 100);
    for n in 0..5 {
        assert!(insert(&table, key(n), IN_TURN, value, Tick::new(0)));
    }
    let second = table.buckets[1].find(key(4)).unwrap();
    for slot in 0..RECORDS {
        let word = table.buckets[0].value(slot).unwrap();
        assert!(expire(word, Tick::new(101)));
    }
    let (word, found) = find(&table, key(4), IN_TURN).unwrap();
    assert_eq!((Word::load(word), found), (found.bits(), second.value));
    // No flow has gone past bucket 1: one in bucket 2 is not there by insertion.
    assert!(insert_vacant(&table.buckets[2], key(9), value, Tick::new(0)).is_some());
    assert!(find(&table, key(9), IN_TURN).is_none());
}

#[test]
fn a_refreshed_table_remembers_the_overflows_of_living_flows_only() {
    let table = table(4);
    let value = value(State::ESTABLISHED, 100);
    for n in 0..9 {
        assert!(insert(&table, key(n), IN_TURN, value, Tick::new(0)));
    }
    let bits = || -> Vec<u64> { table.overflows.iter().map(Word::load).collect() };
    assert_eq!(bits(), [0, 0b11, 0b11]);
    let refreshed = || refresh(&table, |_| IN_TURN, || Ok::<_, ()>(()));
    // Whoever cannot wait changes nothing.
    assert_eq!(refresh(&table, |_| IN_TURN, || Err(())), Err(()));
    assert_eq!(bits(), [0, 0b11, 0b11]);
    // Flow 8 stands in the third bucket, flows 4 to 7 in the second.
    refreshed().unwrap();
    assert_eq!(bits(), [1, 0b11, 0b11]);
    assert!(expire(table.buckets[2].value(0).unwrap(), Tick::new(101)));
    refreshed().unwrap();
    assert_eq!(bits(), [0, 0b01, 0b11]);
    assert!((0..8).all(|n| find(&table, key(n), IN_TURN).is_some()));
    for slot in 0..RECORDS {
        assert!(expire(
            table.buckets[1].value(slot).unwrap(),
            Tick::new(101)
        ));
    }
    refreshed().unwrap();
    assert_eq!(bits(), [1, 0b01, 0]);
    // Nothing to forget, nothing to do.
    refreshed().unwrap();
    assert_eq!(bits(), [1, 0b01, 0]);
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
    fn values_keep_their_parts(backend in 0..1u16 << 14, last_hop in 0..1u16 << 12, bits in 2..=11u8, expires in 0..1u32 << 22, later in 0..1u32 << 22) {
        let state = State::from_bits(bits);
        let value = FlowValue::new(backend, last_hop, state, Tick::new(expires));
        prop_assert_eq!((value.backend(), value.last_hop(), value.state(), value.expires()), (backend, last_hop, state, Tick::new(expires)));
        let value = value.renewed(State::CLOSING, Tick::new(later)).with_last_hop(9);
        prop_assert_eq!((value.backend(), value.last_hop(), value.state(), value.expires()), (backend, 9, State::CLOSING, Tick::new(later)));
        prop_assert_eq!(value.bits() >> 56, 0);
    }

    #[test]
    fn ticks_compare_across_the_wrap(start: u32, ahead in 1..=Tick::MOST_AFTER) {
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
fn one_flow_in_a_thousand_finds_no_place_where_seven_in_ten_records_are_taken() {
    let buckets = 1 << 13;
    let table = table(buckets);
    let secret = HashKey { k0: 1, k1: 2 };
    let flows = buckets * RECORDS as u32 * 7 / 10;
    let key = |n: u32| FlowKey4::new(n.to_be_bytes(), [0, 80], 1);
    let value = value(State::ESTABLISHED, 100);
    let turned_away = (0..flows)
        .filter(|&n| !insert(&table, key(n), key(n).hash(secret), value, Tick::new(0)))
        .count();
    assert!(
        turned_away <= flows as usize / 1000,
        "{turned_away} of {flows}"
    );
    let found = (0..flows).filter(|&n| find(&table, key(n), key(n).hash(secret)).is_some());
    assert_eq!(found.count(), flows as usize - turned_away);
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Open(u8),
    Forget(u8),
    Refresh,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => any::<u8>().prop_map(Event::Open),
        4 => any::<u8>().prop_map(Event::Forget),
        1 => Just(Event::Refresh),
    ]
}

proptest! {
    /// Connections come and go, and the bits are refreshed now and then: whoever has a record is
    /// found, and nobody else.
    #[test]
    fn a_table_finds_what_is_in_it(buckets in 1..70u32, events in prop::collection::vec(event(), 0..600)) {
        let table = table(buckets);
        let hash = |key: FlowKey4| key.hash(HashKey { k0: 3, k1: 4 });
        let value = value(State::ESTABLISHED, 100);
        let mut there = std::collections::BTreeSet::new();
        for event in events {
            match event {
                Event::Open(n) if !there.contains(&n) => {
                    if insert(&table, key(n), hash(key(n)), value, Tick::new(0)) {
                        there.insert(n);
                    }
                }
                Event::Open(_) => {}
                Event::Forget(n) => {
                    let record = find(&table, key(n), hash(key(n)));
                    prop_assert_eq!(record.is_some(), there.remove(&n));
                    if let Some((word, _)) = record {
                        prop_assert!(expire(word, Tick::new(101)));
                    }
                }
                Event::Refresh => refresh(&table, hash, || Ok::<_, ()>(())).unwrap(),
            }
        }
        for n in 0..=u8::MAX {
            prop_assert_eq!(find(&table, key(n), hash(key(n))).is_some(), there.contains(&n));
        }
    }
}
