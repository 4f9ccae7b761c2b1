//! Notifications come in bursts; this says when to act on them.

use std::time::Duration;

use tokio::time::Instant;

use super::notice::Outdated;

/// Notifications this close together are one burst.
const QUIET: Duration = Duration::from_millis(20);
/// Acted on after this time though the burst goes on.
const LIMIT: Duration = Duration::from_millis(200);

/// What is outdated and has not been asked for yet.
#[derive(Debug, Default)]
pub(super) struct Pending(Option<Burst>);

#[derive(Debug)]
struct Burst {
    outdated: Outdated,
    first: Instant,
    last: Instant,
}

impl Pending {
    pub(super) fn add(&mut self, now: Instant, more: Outdated) {
        let Some(burst) = &mut self.0 else {
            self.0 = Some(Burst {
                outdated: more,
                first: now,
                last: now,
            });
            return;
        };
        burst.last = now;
        match (&mut burst.outdated, more) {
            (Outdated::Neighbours(keys), Outdated::Neighbours(more)) => keys.extend(more),
            (outdated, _) => *outdated = Outdated::Everything,
        }
    }

    /// When to act; `None` while there is nothing to do.
    pub(super) fn due(&self) -> Option<Instant> {
        let burst = self.0.as_ref()?;
        Some((burst.last + QUIET).min(burst.first + LIMIT))
    }

    pub(super) fn take(&mut self) -> Option<Outdated> {
        self.0.take().map(|burst| burst.outdated)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, net::Ipv4Addr};

    use super::{super::resolve::NeighbourKey, *};

    fn neighbour(interface: u32) -> BTreeSet<NeighbourKey> {
        BTreeSet::from([NeighbourKey {
            interface,
            address: Ipv4Addr::LOCALHOST.into(),
        }])
    }

    #[test]
    fn waits_for_quiet_but_not_for_ever() {
        let start = Instant::now();
        let mut pending = Pending::default();
        assert_eq!(pending.due(), None);
        pending.add(start, Outdated::Everything);
        assert_eq!(pending.due(), Some(start + QUIET));

        let step = QUIET / 2;
        let mut now = start;
        while now < start + LIMIT {
            now += step;
            pending.add(now, Outdated::Everything);
            assert_eq!(pending.due(), Some((now + QUIET).min(start + LIMIT)));
        }
        assert_eq!(pending.due(), Some(start + LIMIT));
        assert_eq!(pending.take(), Some(Outdated::Everything));
        assert_eq!(pending.due(), None);
    }

    #[test]
    fn neighbours_add_up_and_everything_is_more() {
        let now = Instant::now();
        let mut pending = Pending::default();
        pending.add(now, Outdated::Neighbours(neighbour(1)));
        pending.add(now, Outdated::Neighbours(neighbour(2)));
        let both = &neighbour(1) | &neighbour(2);
        assert_eq!(pending.take(), Some(Outdated::Neighbours(both)));

        pending.add(now, Outdated::Neighbours(neighbour(1)));
        pending.add(now, Outdated::Everything);
        pending.add(now, Outdated::Neighbours(neighbour(1)));
        assert_eq!(pending.take(), Some(Outdated::Everything));
    }
}
