//! Which neighbours the kernel is to resolve or confirm, and when.
//!
//! The kernel resolves a neighbour when its own stack sends to it. What XDP forwards does not pass
//! through that stack: nothing would start a resolution, and an entry would grow stale and keep an
//! address that has moved. So each neighbour in use is asked for, as `ip neighbour use` does.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::resolve::NeighbourKey;
use crate::model::MacAddr;

/// Between two confirmations of a neighbour that is known.
const CONFIRM: Duration = Duration::from_secs(30);
/// Between the first two attempts to find one that is not; each wait after it is twice as long.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// The longest wait between two attempts.
const LAST_RETRY: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(super) struct Asks(BTreeMap<NeighbourKey, Ask>);

#[derive(Debug)]
struct Ask {
    known: bool,
    at: Instant,
    /// From `at` to the attempt after it, while the neighbour is not known.
    retry: Duration,
}

impl Asks {
    /// Learns what the neighbours in use are now. One that is new, or is no longer known, is due at
    /// once.
    pub(super) fn observe(
        &mut self,
        now: Instant,
        neighbours: &BTreeMap<NeighbourKey, Option<MacAddr>>,
    ) {
        self.0.retain(|key, _| neighbours.contains_key(key));
        for (&key, mac) in neighbours {
            let known = mac.is_some();
            let ask = self.0.entry(key).or_insert(Ask {
                known,
                at: now,
                retry: FIRST_RETRY,
            });
            if ask.known != known {
                *ask = Ask {
                    known,
                    at: if known { now + CONFIRM } else { now },
                    retry: FIRST_RETRY,
                };
            }
        }
    }

    /// When the next neighbour is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.values().map(|ask| ask.at).min()
    }

    /// Those that are due, each of which is then due again later.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<NeighbourKey> {
        let mut due = Vec::new();
        for (&key, ask) in &mut self.0 {
            if ask.at > now {
                continue;
            }
            due.push(key);
            if ask.known {
                ask.at = now + CONFIRM;
            } else {
                ask.at = now + ask.retry;
                ask.retry = (ask.retry * 2).min(LAST_RETRY);
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const KEY: NeighbourKey = NeighbourKey {
        interface: 3,
        address: std::net::IpAddr::V4(Ipv4Addr::LOCALHOST),
    };
    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

    fn observe(asks: &mut Asks, now: Instant, mac: Option<MacAddr>) {
        asks.observe(now, &BTreeMap::from([(KEY, mac)]));
    }

    #[test]
    fn a_missing_neighbour_is_asked_for_at_once_and_then_ever_more_slowly() {
        let mut now = Instant::now();
        let mut asks = Asks::default();
        observe(&mut asks, now, None);
        for seconds in [1, 2, 4, 8, 10, 10] {
            assert_eq!(asks.next(), Some(now));
            assert_eq!(asks.take_due(now), [KEY]);
            assert_eq!(asks.take_due(now), []);
            // Being told once more that it is missing changes nothing.
            observe(&mut asks, now, None);
            now += Duration::from_secs(seconds);
        }
        observe(&mut asks, now, Some(MAC));
        assert_eq!(asks.next(), Some(now + CONFIRM));
        observe(&mut asks, now, None);
        assert_eq!(asks.take_due(now), [KEY]);
        assert_eq!(asks.next(), Some(now + FIRST_RETRY));
    }

    #[test]
    fn a_known_neighbour_is_confirmed_from_the_start() {
        let now = Instant::now();
        let mut asks = Asks::default();
        observe(&mut asks, now, Some(MAC));
        assert_eq!(asks.take_due(now), [KEY]);
        assert_eq!(asks.next(), Some(now + CONFIRM));
        assert_eq!(asks.take_due(now + CONFIRM), [KEY]);
        assert_eq!(asks.next(), Some(now + 2 * CONFIRM));
    }

    #[test]
    fn a_neighbour_no_longer_in_use_is_forgotten() {
        let now = Instant::now();
        let mut asks = Asks::default();
        observe(&mut asks, now, None);
        asks.observe(now, &BTreeMap::new());
        assert_eq!(asks.next(), None);
    }
}
