use lb_common::flow::{Bucket4, FlowKey4, insert_vacant};

use super::*;
use crate::dataplane::clock::Moment;

const NOW: Tick = Tick::new(100);
/// Not expired.
const LATER: u32 = 150;

/// A table, and what a sweep of it ends: client's last byte, and whether it is worth a prod.
struct Scene(Table<Bucket4<AtomicU64>>);

impl Scene {
    fn new() -> Self {
        Self(Table::in_memory(64))
    }

    /// A connection of this service and backend.
    fn add(&self, client: u8, service: u16, backend: u16, state: State, expires: u32) {
        let bucket = &self.0.buckets.as_slice()[usize::from(client) / 2];
        let value = FlowValue::new(backend, 9, state, Tick::new(expires));
        let place = insert_vacant(bucket, key(client, service), value, Tick::new(0));
        assert!(place.is_some());
    }

    fn state(&self, client: u8, service: u16) -> (State, u32) {
        let bucket = &self.0.buckets.as_slice()[usize::from(client) / 2];
        let value = bucket.find(key(client, service)).unwrap().value;
        assert_eq!(value.last_hop(), 9);
        (value.state(), value.expires().get())
    }

    fn end(&self, endings: &Endings, room: u64) -> (EndedCounts, usize) {
        let mut sweep = Sweep {
            now: NOW,
            endings,
            room,
            expires: &mut |service, count| NOW.after(u32::from(service.0) * 10 + count as u32),
            counts: EndedCounts::default(),
        };
        let mut shown = 0;
        sweep.table(&self.0, TableId::V4, &mut |ended| {
            assert!(still_marked(&self.0, ended).is_some());
            shown += 1;
        });
        (sweep.counts, shown)
    }
}

fn key(client: u8, service: u16) -> FlowKey4 {
    FlowKey4::new([10, 0, 0, client], [0x12, client], service)
}

fn of_backend(index: u16) -> Endings {
    Endings {
        backends: [BackendIndex(index)].into(),
        ..Endings::default()
    }
}

fn expired_of(service: u16) -> Endings {
    Endings {
        expiring: [ServiceId(service)].into(),
        ..Endings::default()
    }
}

/// S-CT-6, S-CT-3: what is not half-open, of this backend and of no other.
#[test]
fn the_connections_of_a_backend_are_ended() {
    let scene = Scene::new();
    let states = [
        State::SYN_SENT,
        State::SYN_RECEIVED,
        State::REFUSED,
        State::ESTABLISHED,
        State::FIN_WAIT_CLIENT,
        State::FIN_WAIT_BACKEND,
        State::CLOSING,
        State::TIME_WAIT,
        State::RESET,
        State::ENDED,
    ];
    for (client, state) in (0..).zip(states) {
        scene.add(client, 1, 7, state, LATER);
        scene.add(client + 40, 1, 8, state, LATER);
    }
    // Expired: forgotten, as this service wants it.
    scene.add(30, 1, 7, State::ESTABLISHED, 90);
    let (counts, shown) = scene.end(&of_backend(7), 100);
    assert_eq!((counts.of_backends, counts.expired), (6, 0));
    assert_eq!(shown, 4, "established, FIN_WAIT twice and reset");
    for (client, state) in (0..).zip(states) {
        assert_eq!(scene.state(client + 40, 1), (state, LATER));
        let (after, expires) = scene.state(client, 1);
        if (3..=8).contains(&client) {
            assert_eq!(after, State::ENDED, "{state:?}");
            assert!((110..116).contains(&expires), "{state:?}: {expires}");
        } else {
            assert_eq!((after, expires), (state, LATER));
        }
    }
    assert_eq!(scene.state(30, 1), (State::ESTABLISHED, 90));
    assert_eq!(scene.end(&of_backend(7), 100), Default::default());
}

/// S-CT-6: established connections that have expired, of this service and of no other.
#[test]
fn expired_connections_are_ended() {
    let scene = Scene::new();
    scene.add(1, 1, 7, State::ESTABLISHED, 99);
    scene.add(2, 1, 7, State::FIN_WAIT_CLIENT, 99);
    scene.add(3, 1, 7, State::FIN_WAIT_BACKEND, 99);
    let kept = [
        (4, 1, State::ESTABLISHED, 100),
        (5, 1, State::TIME_WAIT, 99),
        (6, 1, State::SYN_SENT, 99),
        (7, 1, State::RESET, 99),
        (8, 1, State::ENDED, 99),
        (9, 2, State::ESTABLISHED, 99),
    ];
    for (client, service, state, expires) in kept {
        scene.add(client, service, 7, state, expires);
    }
    let (counts, shown) = scene.end(&expired_of(1), 100);
    assert_eq!((counts.expired, counts.of_backends, shown), (3, 0, 3));
    for client in 1..=3 {
        assert_eq!(scene.state(client, 1).0, State::ENDED);
    }
    for (client, service, state, expires) in kept {
        assert_eq!(scene.state(client, service), (state, expires));
    }
}

#[test]
fn a_sweep_ends_no_more_than_there_is_room_for() {
    let scene = Scene::new();
    (0..10).for_each(|client| scene.add(client, 1, 7, State::ESTABLISHED, LATER));
    for (room, ended) in [(4, 4), (4, 4), (4, 2), (4, 0)] {
        assert_eq!(scene.end(&of_backend(7), room).0.of_backends, ended);
    }
}

/// The sweep that forgets leaves them, and counts them as ended.
#[test]
fn what_is_to_be_ended_is_not_forgotten() {
    let scene = Scene::new();
    for service in [1, 2] {
        scene.add(service as u8, service, 7, State::ESTABLISHED, 99);
        scene.add(10 + service as u8, service, 7, State::TIME_WAIT, 99);
    }
    scene.add(20, 1, 7, State::ENDED, LATER);
    let ending = crate::dataplane::flows::ServiceSet::default();
    ending.set(&[ServiceId(1)].into());
    let mut totals = super::super::ConnectionTotals::default();
    scene.0.sweep(Moment::of(NOW), &ending, &mut totals);
    assert_eq!((totals.used, totals.ended, totals.established), (2, 2, 0));
    assert_eq!(scene.end(&expired_of(1), 100).0.expired, 1);
    assert_eq!(scene.end(&expired_of(2), 100).0.expired, 0);
}

/// Whose place was given away, or who was not ended at all, is not prodded.
#[test]
fn another_s_record_is_not_taken_for_an_ended_one() {
    let scene = Scene::new();
    scene.add(1, 1, 7, State::ESTABLISHED, LATER);
    let mut ended = None;
    let endings = of_backend(7);
    let mut sweep = Sweep {
        now: NOW,
        endings: &endings,
        room: 1,
        expires: &mut |_, _| NOW.after(1),
        counts: EndedCounts::default(),
    };
    sweep.table(&scene.0, TableId::V4, &mut |one| ended = Some(one));
    let ended = ended.unwrap();
    let client: SocketAddr = "10.0.0.1:4609".parse().unwrap();
    assert_eq!(still_marked(&scene.0, ended), Some((client, ServiceId(1))));
    let bucket = &scene.0.buckets.as_slice()[0];
    let value = FlowValue::new(7, 9, State::SYN_SENT, Tick::new(200));
    let later = NOW.after(2);
    // Four places, of which the expired one goes last.
    (2..6).for_each(|client| {
        assert!(insert_vacant(bucket, key(client, 1), value, later).is_some());
    });
    assert_eq!(still_marked(&scene.0, ended), None);
}
