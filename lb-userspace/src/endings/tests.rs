//! The reaper over a table and a wire of the test's own.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
};

use lb_common::records::{Hop, Mac};

use super::*;
use crate::model::BackendIndex;

const MS: Duration = Duration::from_millis(1);

/// Connections by number, with backends; negative once they are ended.
#[derive(Default)]
struct Table {
    tick: Cell<u32>,
    sweeps: Cell<u32>,
    backends: RefCell<BTreeMap<u32, i32>>,
    kept: RefCell<BTreeSet<ServiceId>>,
    patience: RefCell<Vec<u32>>,
}

impl Records for Rc<Table> {
    type Ended = u32;

    fn now(&self) -> Tick {
        Tick::new(self.tick.get())
    }

    fn keep_expired(&self, services: &BTreeSet<ServiceId>) {
        self.kept.replace(services.clone());
    }

    fn end(
        &self,
        endings: &Endings,
        room: usize,
        patience: &dyn Fn(u64) -> u32,
        ended: &mut dyn FnMut(u32),
    ) -> EndedCounts {
        self.sweeps.set(self.sweeps.get() + 1);
        let mut counts = EndedCounts::default();
        for (number, backend) in self.backends.borrow_mut().iter_mut() {
            let wanted = |b: &BackendIndex| i32::from(b.0) == *backend;
            if counts.of_backends < room as u64 && endings.backends.iter().any(wanted) {
                self.patience
                    .borrow_mut()
                    .push(patience(counts.of_backends));
                *backend = -*backend;
                counts.of_backends += 1;
                ended(*number);
            }
        }
        counts
    }

    fn ended(&self, each: &mut dyn FnMut(u32)) {
        let backends = self.backends.borrow();
        let ended = backends.iter().filter(|(_, backend)| **backend < 0);
        ended.for_each(|(number, _)| each(*number));
    }

    /// Only the client of an odd connection can be prodded.
    fn prods(&self, number: u32) -> [Option<Prod>; 2] {
        if self.backends.borrow().get(&number).is_none_or(|b| *b > 0) {
            return [None; 2];
        }
        let prod = |ifindex| Prod {
            hop: Hop::new(Mac::new([0; 6]), Mac::new([0; 6]), ifindex),
            from: "192.0.2.10:80".parse().unwrap(),
            to: ([10, 0, 0, 1], number as u16).into(),
        };
        [Some(prod(1)), number.is_multiple_of(2).then(|| prod(2))]
    }
}

/// Interface and destination port of each frame, which tells the connection.
type Sent = Rc<RefCell<Vec<(u32, u32)>>>;

impl Wire for Sent {
    fn send(&mut self, ifindex: u32, frame: &[u8]) -> io::Result<()> {
        let port = u32::from(u16::from_be_bytes([frame[36], frame[37]]));
        self.borrow_mut().push((ifindex, port));
        // The reaper does not mind.
        Err(io::ErrorKind::WouldBlock.into())
    }
}

struct Scene {
    table: Rc<Table>,
    sent: Sent,
    reaper: Reaper<Rc<Table>, Sent>,
    start: Instant,
}

impl Scene {
    /// With these connections: number and backend.
    fn new(connections: impl IntoIterator<Item = (u32, i32)>) -> Self {
        let table = Rc::new(Table::default());
        table.backends.borrow_mut().extend(connections);
        let sent = Sent::default();
        let start = Instant::now();
        Self {
            reaper: Reaper::new(table.clone(), Some(sent.clone()), start),
            table,
            sent,
            start,
        }
    }

    /// What is sent at that time, and when the next turn is due.
    fn at(&mut self, ms: u32) -> (Vec<(u32, u32)>, Option<Duration>) {
        let pause = self.reaper.turn(self.start + ms * MS);
        (self.sent.take(), pause)
    }
}

fn down(backends: impl IntoIterator<Item = u16>) -> Endings {
    Endings {
        backends: backends.into_iter().map(BackendIndex).collect(),
        ..Endings::default()
    }
}

/// S-CT-6: at once, and again.
#[test]
fn both_ends_are_prodded_three_times() {
    let mut scene = Scene::new([(2, 7), (3, 7), (4, 8)]);
    assert_eq!(scene.at(0), (vec![], None));
    scene.reaper.obey(down([7]));
    let all = vec![(1, 2), (2, 2), (1, 3)];
    assert_eq!(scene.at(10), (all.clone(), Some(INTERVAL)));
    assert_eq!(scene.at(260), (vec![], Some(50 * MS)));
    assert_eq!(scene.at(310).0, all);
    assert_eq!(scene.at(909).0, []);
    assert_eq!(scene.at(910), (all, Some(INTERVAL)));
    assert_eq!(scene.at(9999), (vec![], Some(INTERVAL)));
    scene.reaper.obey(Endings::default());
    assert_eq!(scene.at(10_000), (vec![], None));
}

/// A backend that goes down is not kept waiting for the next tick; nothing else needs more sweeps.
#[test]
fn the_table_is_swept_once_a_tick_and_when_a_backend_goes_down() {
    let mut scene = Scene::new([(1, 7), (2, 8)]);
    let sweeps = |scene: &Scene| scene.table.sweeps.take();
    scene.at(0);
    assert_eq!(sweeps(&scene), 0);
    scene.reaper.obey(down([7]));
    (1..10).for_each(|n| drop(scene.at(n)));
    assert_eq!(sweeps(&scene), 1);
    scene.reaper.obey(down([7, 8]));
    (10..20).for_each(|n| drop(scene.at(n)));
    assert_eq!(sweeps(&scene), 1);
    // One is up again.
    scene.reaper.obey(down([8]));
    scene.at(20);
    assert_eq!(sweeps(&scene), 0);
    scene.table.tick.set(1);
    (30..40).for_each(|n| drop(scene.at(n)));
    assert_eq!(sweeps(&scene), 1);
}

/// Who becomes established at a backend that is down is ended with the next tick.
#[test]
fn late_connections_are_ended_too() {
    let mut scene = Scene::new([]);
    scene.reaper.obey(down([7]));
    assert_eq!(scene.at(0).0, []);
    scene.table.backends.borrow_mut().insert(5, 7);
    scene.table.tick.set(1);
    assert_eq!(scene.at(1000).0, [(1, 5)]);
}

/// Whose record has gone to another is left in peace.
#[test]
fn who_is_no_longer_ended_is_not_prodded() {
    let mut scene = Scene::new([(1, 7), (3, 7)]);
    scene.reaper.obey(down([7]));
    assert_eq!(scene.at(0).0.len(), 2);
    scene.table.backends.borrow_mut().insert(3, 9);
    assert_eq!(scene.at(300).0, [(1, 1)]);
}

/// S-CT-4: killed between marking and prodding.
#[test]
fn what_an_earlier_life_has_marked_is_prodded() {
    let mut scene = Scene::new([(1, -7), (3, 7)]);
    let (sent, pause) = scene.at(0);
    assert_eq!((sent, pause), (vec![(1, 1)], Some(300 * MS)));
}

/// Ending many at once does not flood the network, and those at the end of the queue are
/// remembered for longer.
#[test]
fn many_are_prodded_one_after_the_other() {
    const COUNT: u32 = 60_000;
    let mut scene = Scene::new((0..COUNT).map(|n| (n * 2, 7)));
    scene.reaper.obey(down([7]));
    let mut sent = 0;
    for ms in (0..1000).step_by(5) {
        let (frames, pause) = scene.at(ms);
        assert!(frames.len() <= 252, "{} at once", frames.len());
        assert!(pause.is_some_and(|pause| pause <= 10 * MS + MS));
        sent += frames.len();
    }
    assert!((49_000..=51_500).contains(&sent), "{sent}");
    let patience = scene.table.patience.take();
    assert_eq!((patience[0], patience[59_999]), (0, 7));
    assert!(patience.is_sorted());
}

#[test]
fn services_whose_expired_connections_are_to_be_ended_are_made_known() {
    let mut scene = Scene::new([]);
    let expiring: BTreeSet<_> = [ServiceId(3)].into();
    scene.reaper.obey(Endings {
        expiring: expiring.clone(),
        ..Endings::default()
    });
    assert_eq!(*scene.table.kept.borrow(), expiring);
    scene.reaper.obey(Endings::default());
    assert!(scene.table.kept.borrow().is_empty());
}
