//! Who is to be prodded when.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// From the end to the first prod, and from each to the next: the second comes too early for a
/// Linux that has answered the first, and in time where the first was lost.
const PAUSES: [Duration; PRODS] = [
    Duration::ZERO,
    Duration::from_millis(300),
    Duration::from_millis(600),
];

/// How often each end is prodded.
pub(super) const PRODS: usize = 3;

/// What waits for its prods, oldest first.
///
/// All that waits for the same prod waits equally long, so a queue for each is in order.
pub(super) struct Schedule<T> {
    queues: [VecDeque<(Instant, T)>; PRODS],
    capacity: usize,
}

/// Taken from the schedule to be prodded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Due<T> {
    pub(super) item: T,
    /// Which of its prods this is, from 0.
    prod: usize,
}

impl<T> Schedule<T> {
    /// With room for so many at once.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            queues: Default::default(),
            capacity,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.queues.iter().map(VecDeque::len).sum()
    }

    pub(super) fn room(&self) -> usize {
        self.capacity.saturating_sub(self.len())
    }

    /// Schedules the first prod of what has just been ended; without room, none.
    pub(super) fn add(&mut self, item: T, now: Instant) {
        self.push(Due { item, prod: 0 }, now);
    }

    /// Schedules the next prod of what has just been prodded, if there is to be one.
    pub(super) fn again(&mut self, due: Due<T>, now: Instant) {
        let next = Due {
            prod: due.prod + 1,
            ..due
        };
        self.push(next, now);
    }

    fn push(&mut self, Due { item, prod }: Due<T>, now: Instant) {
        if self.room() == 0 {
            return;
        }
        if let (Some(queue), Some(pause)) = (self.queues.get_mut(prod), PAUSES.get(prod)) {
            queue.push_back((now + *pause, item));
        }
    }

    /// What has been due for longest.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Due<T>> {
        let (due, prod) = self.first()?;
        if due > now {
            return None;
        }
        let (_, item) = self.queues.get_mut(prod)?.pop_front()?;
        Some(Due { item, prod })
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.first().map(|(due, _)| due)
    }

    fn first(&self) -> Option<(Instant, usize)> {
        let fronts = self.queues.iter().enumerate();
        let fronts = fronts.filter_map(|(prod, queue)| Some((queue.front()?.0, prod)));
        fronts.min()
    }
}

/// Spreads frames over time: so many a second, and no more than a few at once.
pub(super) struct Pace {
    /// Time that a frame takes.
    each: Duration,
    /// Until when time is spent; in the past while little is sent.
    spent: Instant,
}

impl Pace {
    /// What is saved up while nothing is sent: no more frames than any driver's ring has room for.
    const BURST: Duration = Duration::from_millis(5);

    pub(super) fn new(rate: u32, now: Instant) -> Self {
        Self {
            each: Duration::from_secs(1) / rate,
            spent: Self::earliest(now),
        }
    }

    pub(super) fn is_free(&self, now: Instant) -> bool {
        self.spent <= now
    }

    /// When a frame may leave, and a few behind it, so that a sender sleeps in between.
    pub(super) fn next(&self, now: Instant) -> Instant {
        if self.is_free(now) {
            now
        } else {
            self.spent + Self::BURST / 2
        }
    }

    pub(super) fn spend(&mut self, now: Instant) {
        self.spent = self.spent.max(Self::earliest(now)) + self.each;
    }

    fn earliest(now: Instant) -> Instant {
        now.checked_sub(Self::BURST).unwrap_or(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn each_is_prodded_three_times() {
        let start = Instant::now();
        let mut schedule = Schedule::new(10);
        schedule.add('a', start);
        schedule.add('b', start + 100 * MS);
        let mut prodded = Vec::new();
        for n in 0..1200 {
            let now = start + n * MS;
            while let Some(due) = schedule.pop(now) {
                prodded.push((n, due.item));
                schedule.again(due, now);
            }
            let next = schedule.next_due();
            assert!(next.is_none_or(|next| next > now));
        }
        let expected = [
            (0, 'a'),
            (100, 'b'),
            (300, 'a'),
            (400, 'b'),
            (900, 'a'),
            (1000, 'b'),
        ];
        assert_eq!(prodded, expected);
        assert_eq!((schedule.len(), schedule.next_due()), (0, None));
    }

    /// Whoever has waited longest comes first, so nobody starves behind others' first prods.
    #[test]
    fn the_longest_due_comes_first() {
        let start = Instant::now();
        let mut schedule = Schedule::new(10);
        schedule.add('a', start);
        let due = schedule.pop(start).unwrap();
        schedule.again(due, start);
        schedule.add('b', start + 200 * MS);
        schedule.add('c', start + 400 * MS);
        let late = start + 500 * MS;
        let order = [(); 3].map(|()| schedule.pop(late).unwrap().item);
        assert_eq!(order, ['b', 'a', 'c']);
    }

    #[test]
    fn a_schedule_is_bounded() {
        let now = Instant::now();
        let mut schedule = Schedule::new(3);
        (0..5).for_each(|n| schedule.add(n, now));
        assert_eq!((schedule.len(), schedule.room()), (3, 0));
        let due = schedule.pop(now).unwrap();
        assert_eq!(schedule.room(), 1);
        schedule.again(due, now);
        assert_eq!(schedule.room(), 0);
    }

    #[test]
    fn a_pace_is_kept() {
        let start = Instant::now();
        let mut pace = Pace::new(1_000, start);
        let mut sent = 0;
        for n in 0..2_000 {
            let now = start + n * MS / 2;
            while pace.is_free(now) {
                pace.spend(now);
                sent += 1;
            }
            assert!(pace.next(now) > now);
        }
        // And what was saved up in the beginning.
        assert!((1004..=1006).contains(&sent), "{sent}");
        // A pause saves up no more than a moment's worth.
        let later = start + 10_000 * MS;
        let burst = (0..).take_while(|_| {
            let free = pace.is_free(later);
            pace.spend(later);
            free
        });
        assert_eq!(burst.count(), 6);
    }
}
