//! Every interleaving of readers and writers of one record (run with `--cfg loom`).

use loom::{
    sync::{
        Arc, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use super::{
    test_table::{Single, Whole},
    *,
};

impl Word for AtomicU64 {
    fn load(&self) -> u64 {
        self.load(Ordering::Acquire)
    }

    fn store(&self, value: u64) {
        self.store(value, Ordering::Release);
    }

    fn replace(&self, current: u64, new: u64) -> bool {
        self.compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    fn set(&self, bits: u64) {
        self.fetch_or(bits, Ordering::AcqRel);
    }
}

const NOW: Tick = Tick::new(10);

/// A flow's backend tells which flow it belongs to, so that a foreign record shows.
fn flow(n: u16) -> (FlowKey4, FlowValue) {
    let key = FlowKey4::new([10, 0, 0, n as u8], [0, 1], 1);
    (key, FlowValue::new(n, 0, State::SYN_SENT, Tick::new(5)))
}

/// Gives the first record to this flow, as an insertion into full buckets would.
fn displace<B: Bucket>(bucket: &B, key: B::Key, value: FlowValue) -> bool {
    let old = FlowValue::from_bits(bucket.value(0).unwrap().load());
    old.state().is_half_open() && bucket.take(0, old, key, value)
}

fn explore(test: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(test);
}

#[test]
fn loom_a_racing_reader_never_follows_a_foreign_record() {
    explore(|| {
        let bucket = Arc::new(Bucket4::empty(|| AtomicU64::new(0)));
        let (key_a, value_a) = flow(1);
        assert!(insert(&Single(&*bucket), key_a, 0, value_a, NOW));
        // Two take-overs of the same record: by another flow, and back again.
        let writer = {
            let bucket = bucket.clone();
            thread::spawn(move || {
                for n in [2, 1] {
                    let (key, value) = flow(n);
                    displace(&*bucket, key, value);
                }
            })
        };
        for n in [1, 2] {
            if let Some(found) = bucket.find(flow(n).0) {
                assert_eq!(found.value.backend(), n);
            }
        }
        writer.join().unwrap();
        assert_eq!(bucket.find(key_a).unwrap().value.backend(), 1);
    });
}

#[test]
fn loom_ipv6_keys_are_never_seen_half_written() {
    explore(|| {
        let bucket = Arc::new(Bucket6::empty(|| AtomicU64::new(0)));
        let key = |a: u8, b: u8| {
            let mut address = [a; 16];
            address[8..].fill(b);
            FlowKey6::new(address, [0, 1], 1)
        };
        let value = |n| FlowValue::new(n, 0, State::SYN_SENT, Tick::new(5));
        assert!(insert(&Single(&*bucket), key(1, 1), 0, value(11), NOW));
        let writer = {
            let bucket = bucket.clone();
            thread::spawn(move || displace(&*bucket, key(2, 2), value(22)))
        };
        // A mixture of the two keys belongs to neither.
        assert_eq!(bucket.find(key(1, 2)), None);
        assert_eq!(bucket.find(key(2, 1)), None);
        writer.join().unwrap();
    });
}

#[test]
fn loom_two_writers_never_share_a_record() {
    explore(|| {
        let bucket = Arc::new(Bucket4::empty(|| AtomicU64::new(0)));
        let writers: Vec<_> = [1, 2]
            .into_iter()
            .map(|n| {
                let bucket = bucket.clone();
                thread::spawn(move || {
                    let (key, value) = flow(n);
                    insert(&Single(&*bucket), key, 0, value, Tick::new(1))
                })
            })
            .collect();
        for writer in writers {
            assert!(writer.join().unwrap());
        }
        for n in [1, 2] {
            assert_eq!(bucket.find(flow(n).0).unwrap().value.backend(), n);
        }
    });
}

#[test]
fn loom_a_record_that_becomes_established_is_not_displaced() {
    explore(|| {
        let bucket = Arc::new(Bucket4::empty(|| AtomicU64::new(0)));
        let (key, value) = flow(1);
        insert(&Single(&*bucket), key, 0, value, Tick::new(1));
        let flood = {
            let bucket = bucket.clone();
            thread::spawn(move || {
                let (key, value) = flow(2);
                displace(&*bucket, key, value)
            })
        };
        let established = bucket.find(key).is_some_and(|found| {
            let new = found.value.renewed(State::ESTABLISHED, Tick::new(99));
            let word = bucket.value(found.slot).unwrap();
            word.replace(found.value.bits(), new.bits())
        });
        flood.join().unwrap();
        assert_eq!(bucket.find(key).is_some(), established);
    });
}

/// S-CT-6: whom the daemon ends while the record changes hands is whom it has judged, or nobody.
#[test]
fn loom_ending_never_ends_a_foreign_record() {
    explore(|| {
        let bucket = Arc::new(Bucket4::empty(|| AtomicU64::new(0)));
        let (key_a, value_a) = flow(1);
        let (key_b, value_b) = flow(2);
        // Expired, so that another flow may take its place.
        let value_a = value_a.renewed(State::ESTABLISHED, Tick::new(5));
        let value_b = value_b.renewed(State::ESTABLISHED, Tick::new(99));
        assert!(insert(&Single(&*bucket), key_a, 0, value_a, NOW));
        let successor = {
            let bucket = bucket.clone();
            thread::spawn(move || {
                let word = bucket.value(0).unwrap();
                let old = FlowValue::from_bits(Word::load(word));
                old.state() == State::ESTABLISHED && bucket.take(0, old, key_b, value_b)
            })
        };
        let word = bucket.value(0).unwrap();
        let seen = FlowValue::from_bits(Word::load(word));
        // The daemon is after the first flow only.
        let ended = bucket.key_is(0, key_a) && end(word, seen, Tick::new(20));
        let succeeded = successor.join().unwrap();
        assert!(ended != succeeded);
        let state = |key| bucket.find(key).map(|found| found.value.state());
        let (a, b) = if ended {
            (Some(State::ENDED), None)
        } else {
            (None, Some(State::ESTABLISHED))
        };
        assert_eq!((state(key_a), state(key_b)), (a, b));
    });
}

#[test]
fn loom_a_record_that_a_packet_refreshes_is_not_ended() {
    explore(|| {
        let bucket = Arc::new(Bucket4::empty(|| AtomicU64::new(0)));
        let (key, value) = flow(1);
        let value = value.renewed(State::ESTABLISHED, Tick::new(5));
        assert!(insert(&Single(&*bucket), key, 0, value, NOW));
        let packet = {
            let bucket = bucket.clone();
            thread::spawn(move || {
                let Some(found) = bucket.find(key) else {
                    return false;
                };
                let word = bucket.value(found.slot).unwrap();
                let renewed = found.value.renewed(State::ESTABLISHED, Tick::new(99));
                found.value.state() == State::ESTABLISHED
                    && word.replace(found.value.bits(), renewed.bits())
            })
        };
        let word = bucket.value(0).unwrap();
        let seen = FlowValue::from_bits(Word::load(word));
        // As the daemon judges an expiry.
        let ended = seen.is_expired(NOW) && end(word, seen, Tick::new(20));
        let refreshed = packet.join().unwrap();
        assert!(ended != refreshed);
        let state = bucket.find(key).unwrap().value.state();
        assert_eq!(state == State::ENDED, ended);
    });
}

/// The buckets of every flow: 0, 1, 0 and so on, of two.
const IN_TURN: u64 = 0x8000_0000 << 32;

/// A flow whose first bucket is full, while the daemon makes the bits anew.
#[test]
fn loom_a_flow_is_found_behind_a_bucket_whose_bit_is_being_refreshed() {
    explore(|| {
        let table = Arc::new(Whole::new(2, || AtomicU64::new(0)));
        for n in 1..=4 {
            let (key, value) = flow(n);
            let value = value.renewed(State::ESTABLISHED, Tick::new(99));
            assert!(insert(&*table, key, IN_TURN, value, NOW));
        }
        // Of a flow that is gone: there is something to forget.
        Word::set(&table.overflows[1], 0b10);
        // Packets hold it for as long as they are on their way.
        let on_the_way = Arc::new(RwLock::new(()));
        let (key, value) = flow(5);
        let packet = {
            let (table, on_the_way) = (table.clone(), on_the_way.clone());
            thread::spawn(move || {
                let _passing = on_the_way.read().unwrap();
                assert!(insert(&*table, key, IN_TURN, value, NOW));
                assert!(find(&*table, key, IN_TURN).is_some());
            })
        };
        let wait = || on_the_way.write().map(drop).map_err(drop);
        refresh(&*table, |_| IN_TURN, wait).unwrap();
        packet.join().unwrap();
        assert!(find(&*table, key, IN_TURN).is_some());
    });
}
