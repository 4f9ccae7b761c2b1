//! Which targets are watched.

use std::{collections::HashMap, net::SocketAddr};

use tokio::{
    sync::{mpsc, watch as channel},
    task::AbortHandle,
};

use super::{
    Event, Path, Target, Way,
    path::{PathProbe, SharedKnocker},
    probe::Probe,
    watch::watch,
};
use crate::model::{Check, Name, NextHop, Unresolved};

/// Watches a changing set of targets, each by a task of its own. Dropped, it watches none.
#[derive(Debug)]
pub struct Checker {
    events: mpsc::Sender<Event>,
    watched: HashMap<(Name, Name), Watched>,
    knocker: SharedKnocker,
}

impl Checker {
    /// A checker without targets, which sends what it finds out to `events`.
    ///
    /// While the channel is full, the targets that have something to tell are not probed.
    pub fn new(events: mpsc::Sender<Event>) -> Self {
        Self {
            events,
            watched: HashMap::new(),
            knocker: SharedKnocker::default(),
        }
    }

    /// Makes `targets` the ones that are watched: starts the new ones, stops those that are not
    /// among them, and starts afresh, from [`Target::initial`], those whose address, check or
    /// [`Way`] has changed. The others go on as they are, whatever their `initial` says now, by
    /// their new next hop if that has changed.
    ///
    /// An event that a target had sent before it was stopped may still be in the channel. Where
    /// the target was started afresh, a newer one follows it, because each start ends in an event.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with time and I/O.
    pub fn update(&mut self, targets: Vec<Target>) {
        let mut before = std::mem::take(&mut self.watched);
        for target in targets {
            let key = (target.service.clone(), target.backend.clone());
            let watched = match before.remove(&key) {
                Some(running) if running.still_fits(&target) => {
                    running.follow(target.path);
                    Some(running)
                }
                _ => Watched::start(target, &self.knocker, self.events.clone()),
            };
            let Some(watched) = watched else {
                continue;
            };
            self.watched.insert(key, watched);
        }
    }
}

/// A running task, which ends with this.
#[derive(Debug)]
struct Watched {
    address: SocketAddr,
    check: Check,
    path: Option<Followed>,
    task: AbortHandle,
}

/// A way, and the next hop that its probe is told of.
#[derive(Debug)]
struct Followed {
    way: Way,
    next_hop: channel::Sender<Result<NextHop, Unresolved>>,
}

impl Watched {
    /// `None` for a check that asks nothing.
    fn start(target: Target, knocker: &SharedKnocker, events: mpsc::Sender<Event>) -> Option<Self> {
        let (path, path_probe) = match &target.path {
            None => (None, None),
            Some(Path { way, next_hop }) => {
                let (sender, receiver) = channel::channel(next_hop.clone());
                let probe = PathProbe::new(
                    target.address.ip(),
                    *way,
                    receiver,
                    target.check.timeout,
                    knocker.clone(),
                );
                let followed = Followed {
                    way: *way,
                    next_hop: sender,
                };
                (Some(followed), Some(probe))
            }
        };
        let probe = Probe::new(target.address, &target.check, path_probe)?;
        Some(Self {
            address: target.address,
            check: target.check.clone(),
            path,
            task: tokio::spawn(watch(target, async move || probe.run().await, events))
                .abort_handle(),
        })
    }

    fn still_fits(&self, target: &Target) -> bool {
        self.address == target.address
            && self.check == target.check
            && self.path.as_ref().map(|path| path.way) == target.path.as_ref().map(|path| path.way)
    }

    fn follow(&self, path: Option<Path>) {
        if let (Some(followed), Some(path)) = (&self.path, path) {
            drop(followed.next_hop.send_replace(path.next_hop));
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::{
        health::testing::{DEADLINE, Server, refusing},
        model::{CheckKind, Health},
    };

    const FINE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    const SORRY: &str = "HTTP/1.1 503 Sorry\r\nContent-Length: 0\r\n\r\n";

    fn target(backend: &str, address: SocketAddr) -> Target {
        Target {
            service: "web".parse().unwrap(),
            backend: backend.parse().unwrap(),
            address,
            check: Check {
                kind: CheckKind::Http {
                    path: "/".to_owned(),
                    host: None,
                },
                interval: Duration::from_millis(20),
                timeout: DEADLINE,
                rise: 2,
                fall: 3,
            },
            path: None,
            initial: Health::Unknown,
        }
    }

    struct Fixture {
        checker: Checker,
        events: mpsc::Receiver<Event>,
    }

    impl Fixture {
        fn new() -> Self {
            let (sender, events) = mpsc::channel(16);
            let checker = Checker::new(sender);
            Self { checker, events }
        }

        /// The next event, as "backend health: reason".
        async fn event(&mut self) -> String {
            let event = timeout(DEADLINE, self.events.recv())
                .await
                .expect("an event in time")
                .expect("a checker");
            format!("{} {}: {}", event.backend, event.health, event.reason)
        }

        fn assert_no_event(&mut self) {
            assert_eq!(
                self.events.try_recv(),
                Err(mpsc::error::TryRecvError::Empty)
            );
        }

        /// Tasks that could still send an event.
        fn tasks(&self) -> usize {
            self.events.sender_strong_count() - 1
        }

        async fn tasks_become(&self, count: usize) {
            let reached = async {
                while self.tasks() != count {
                    tokio::task::yield_now().await;
                }
            };
            timeout(DEADLINE, reached)
                .await
                .unwrap_or_else(|_| panic!("{} tasks instead of {count}", self.tasks()));
        }
    }

    #[tokio::test]
    async fn each_target_is_watched_and_reported_once() {
        let mut server = Server::answering(FINE).await;
        let (_socket, refusing) = refusing();
        let mut f = Fixture::new();
        f.checker
            .update(vec![target("a", server.address), target("b", refusing)]);
        let mut events = [f.event().await, f.event().await];
        events.sort();
        assert_eq!(
            events,
            [
                "a up: probe succeeded: HTTP 200 from GET /",
                "b down: probe failed: connection refused"
            ]
        );
        for _ in 0..5 {
            server.request().await;
        }
        f.assert_no_event();
    }

    #[tokio::test]
    async fn an_unchanged_target_goes_on_with_its_state() {
        let mut server = Server::answering(FINE).await;
        let other = Server::answering(SORRY).await;
        let mut f = Fixture::new();
        f.checker.update(vec![target("a", server.address)]);
        assert!(f.event().await.starts_with("a up"));
        server.request().await;

        let unchanged = Target {
            initial: Health::Down,
            ..target("a", server.address)
        };
        f.checker
            .update(vec![target("b", other.address), unchanged]);
        assert_eq!(f.event().await, "b down: probe failed: HTTP 503 from GET /");
        // Started afresh, it would have told of its first result by its next probe but one.
        for _ in 0..5 {
            server.request().await;
        }
        f.assert_no_event();
        assert_eq!(f.tasks(), 2);
    }

    #[tokio::test]
    async fn a_changed_address_or_check_starts_afresh_from_initial() {
        let (fine, sorry) = (
            Server::answering(FINE).await,
            Server::answering(SORRY).await,
        );
        let mut f = Fixture::new();
        f.checker.update(vec![target("a", fine.address)]);
        assert!(f.event().await.starts_with("a up: probe succeeded"));

        let mut moved = target("a", sorry.address);
        moved.initial = Health::Up;
        f.checker.update(vec![moved.clone()]);
        assert!(f.event().await.starts_with("a down: 3 of 3 probes failed"));

        moved.check.fall = 5;
        f.checker.update(vec![moved.clone()]);
        assert!(f.event().await.starts_with("a down: 5 of 5 probes failed"));

        moved.initial = Health::Down;
        moved.check.fall = 6;
        f.checker.update(vec![moved]);
        assert!(f.event().await.starts_with("a down: probe failed"));
        f.tasks_become(1).await;
    }

    /// S-DSR-3: without a next hop there is nothing to send, and the path's failure is all there is.
    #[tokio::test]
    async fn a_changed_next_hop_is_no_new_start_and_a_changed_way_is() {
        let mut server = Server::answering(FINE).await;
        let mut f = Fixture::new();
        let mut target = target("a", server.address);
        let path = |port, interface: &str| {
            let next_hop = Err(Unresolved::InterfaceDown(interface.to_owned()));
            let service = ([192, 0, 2, 10], port).into();
            let tunnel = None;
            let way = Way { service, tunnel };
            Some(Path { way, next_hop })
        };
        target.check.timeout = Duration::from_millis(20);
        target.path = path(80, "eth7");
        f.checker.update(vec![target.clone()]);
        let said = f.event().await;
        assert!(said.starts_with("a down: probe failed: "), "{said}");
        assert!(said.contains("192.0.2.10:80 through dsr"), "{said}");
        assert!(said.contains("eth7 is down"), "{said}");

        target.path = path(80, "eth8");
        f.checker.update(vec![target.clone()]);
        for _ in 0..5 {
            server.request().await;
        }
        f.assert_no_event();

        target.path = path(81, "eth9");
        f.checker.update(vec![target.clone()]);
        let said = f.event().await;
        assert!(said.contains("192.0.2.10:81 through dsr"), "{said}");
        assert!(said.contains("eth9 is down"), "{said}");
        target.path = None;
        f.checker.update(vec![target]);
        assert!(f.event().await.starts_with("a up: "));
    }

    #[tokio::test]
    async fn the_same_backend_in_two_services_is_two_targets() {
        let server = Server::answering(FINE).await;
        let first = target("a", server.address);
        let mut second = first.clone();
        second.service = "api".parse().unwrap();
        let mut f = Fixture::new();
        f.checker.update(vec![first, second]);
        assert_eq!(f.event().await, f.event().await);
        assert_eq!(f.tasks(), 2);
    }

    #[tokio::test]
    async fn a_target_that_is_gone_is_not_watched() {
        let server = Server::answering(FINE).await;
        let mut f = Fixture::new();
        let (a, b) = (target("a", server.address), target("b", server.address));
        f.checker.update(vec![a, b.clone()]);
        f.tasks_become(2).await;
        f.checker.update(vec![b]);
        f.tasks_become(1).await;
        drop(f.checker);
        let all = async { while f.events.recv().await.is_some() {} };
        timeout(DEADLINE, all).await.expect("the last task to end");
    }

    #[tokio::test]
    async fn no_check_no_task() {
        let server = Server::answering(FINE).await;
        let mut f = Fixture::new();
        let checked = target("a", server.address);
        let mut unchecked = checked.clone();
        unchecked.check.kind = CheckKind::None;
        f.checker.update(vec![unchecked.clone()]);
        assert_eq!(f.tasks(), 0);
        f.checker.update(vec![checked]);
        assert_eq!(f.tasks(), 1);
        f.checker.update(vec![unchecked]);
        f.tasks_become(0).await;
    }
}
