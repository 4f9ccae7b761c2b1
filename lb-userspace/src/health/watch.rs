//! The life of one target: wait, probe, judge, tell.

use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tracing::{debug, info, warn};

use super::{
    Event, Target,
    judge::Judge,
    probe::Outcome,
    schedule::{first_wait, next_wait, random},
};

/// Probes a target until nobody listens any more.
///
/// A probe that takes longer than the interval delays the next one: a target is never asked twice
/// at a time, and the probes that were missed are not made up for.
pub(super) async fn watch(
    target: Target,
    probe: impl AsyncFn() -> Outcome,
    events: mpsc::Sender<Event>,
) {
    let Target {
        service,
        backend,
        check,
        initial,
        ..
    } = target;
    let mut judge = Judge::new(&check, initial);
    let mut short_of_resources = false;
    let mut start = Instant::now() + first_wait(check.interval, random());
    loop {
        sleep_until(start).await;
        let outcome = probe().await;
        start = (start + next_wait(check.interval, random())).max(Instant::now());

        let local = matches!(&outcome, Err(error) if error.is_local());
        if local != short_of_resources {
            short_of_resources = local;
            match &outcome {
                Err(error) if local => {
                    warn!(%service, %backend, %error, "cannot probe: this host lacks resources");
                }
                _ => info!(%service, %backend, "can probe again"),
            }
        }
        if local {
            continue;
        }

        if let Err(error) = &outcome {
            debug!(%service, %backend, %error, "probe failed");
        }
        let Some(verdict) = judge.record(outcome.map_err(|error| error.to_string())) else {
            continue;
        };
        let event = Event {
            service: service.clone(),
            backend: backend.clone(),
            health: verdict.health,
            reason: verdict.reason,
        };
        if events.send(event).await.is_err() {
            return;
        }
    }
}

/// All with the clock of the runtime paused: waits cost no time, and come out to the millisecond.
#[cfg(test)]
mod tests {
    use std::{
        io, slice,
        sync::{
            Mutex,
            atomic::{AtomicU32, Ordering},
        },
        time::Duration,
    };

    use tokio::time::sleep;

    use super::*;
    use crate::{
        health::probe::ProbeError,
        model::{Check, Health},
    };

    const MS: Duration = Duration::from_millis(1);

    fn target(interval: Duration, initial: Health) -> Target {
        Target {
            service: "web".parse().unwrap(),
            backend: "web-1".parse().unwrap(),
            address: ([192, 0, 2, 1], 80).into(),
            check: Check {
                interval,
                rise: 2,
                fall: 3,
                ..Check::default()
            },
            path: None,
            initial,
        }
    }

    /// Watches with probes that take `duration(n)` each, `n` from 0; tells when each of them
    /// starts, from now.
    fn starts(
        interval: Duration,
        duration: impl Fn(u32) -> Duration + Send + Sync + 'static,
    ) -> mpsc::UnboundedReceiver<Duration> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let begin = Instant::now();
        let probes = AtomicU32::new(0);
        let (events, mut ignored) = mpsc::channel(1);
        tokio::spawn(async move { while ignored.recv().await.is_some() {} });
        tokio::spawn(watch(
            target(interval, Health::Unknown),
            async move || {
                sender.send(begin.elapsed()).unwrap();
                sleep(duration(probes.fetch_add(1, Ordering::Relaxed))).await;
                Ok("fine".to_owned())
            },
            events,
        ));
        receiver
    }

    #[tokio::test(start_paused = true)]
    async fn the_interval_counts_from_start_to_start_and_is_spread() {
        let mut starts = starts(2000 * MS, |_| 700 * MS);
        let mut last = starts.recv().await.unwrap();
        assert!(last <= 1000 * MS, "{last:?}");
        let mut waits = Vec::new();
        for _ in 0..100 {
            let start = starts.recv().await.unwrap();
            waits.push(start - last);
            last = start;
        }
        // The runtime's timer rounds up to whole milliseconds.
        let bounds = 1799 * MS..=2201 * MS;
        assert!(waits.iter().all(|w| bounds.contains(w)), "{waits:?}");
        assert!(waits.iter().any(|&w| w < 1950 * MS), "{waits:?}");
        assert!(waits.iter().any(|&w| w > 2050 * MS), "{waits:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_longer_than_the_interval_delays_the_next_without_a_debt() {
        let mut starts = starts(100 * MS, |n| if n == 0 { 950 * MS } else { MS });
        let first = starts.recv().await.unwrap();
        let mut last = starts.recv().await.unwrap();
        assert!(
            (950 * MS..=952 * MS).contains(&(last - first)),
            "{first:?} {last:?}"
        );
        for _ in 0..20 {
            let start = starts.recv().await.unwrap();
            let wait = start - last;
            assert!((89 * MS..=111 * MS).contains(&wait), "{wait:?}");
            last = start;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn targets_that_begin_together_are_probed_apart() {
        let mut tenths = [0; 10];
        let mut watched: Vec<_> = (0..500).map(|_| starts(200 * MS, |_| MS)).collect();
        for starts in &mut watched {
            let first = starts.recv().await.unwrap();
            assert!(first <= 201 * MS, "{first:?}");
            tenths[(first.as_millis() / 20).min(9) as usize] += 1;
        }
        assert!(tenths.iter().all(|&probes| probes > 0), "{tenths:?}");
    }

    /// Watches with probes that have these outcomes and then end the watching; all events of it.
    async fn events_of(initial: Health, outcomes: Vec<Outcome>) -> Vec<(Health, String)> {
        let (sender, mut receiver) = mpsc::channel(64);
        let outcomes = Mutex::new(outcomes.into_iter());
        let task = tokio::spawn(watch(
            target(100 * MS, initial),
            async move || {
                let next = outcomes.lock().unwrap().next();
                match next {
                    Some(outcome) => outcome,
                    None => std::future::pending().await,
                }
            },
            sender,
        ));
        sleep(Duration::from_secs(60)).await;
        task.abort();
        let mut events = Vec::new();
        while let Some(event) = receiver.recv().await {
            assert_eq!(
                (event.service.as_str(), event.backend.as_str()),
                ("web", "web-1")
            );
            events.push((event.health, event.reason));
        }
        events
    }

    fn success() -> Outcome {
        Ok("connection accepted".to_owned())
    }

    fn failure(errno: i32) -> Outcome {
        Err(ProbeError::Connect(io::Error::from_raw_os_error(errno)))
    }

    #[tokio::test(start_paused = true)]
    async fn verdicts_become_events() {
        let refused = || failure(libc::ECONNREFUSED);
        let outcomes = vec![
            success(),
            refused(),
            refused(),
            refused(),
            refused(),
            success(),
            success(),
            success(),
        ];
        let expected = [
            (Health::Up, "probe succeeded: connection accepted"),
            (Health::Down, "3 of 3 probes failed: connection refused"),
            (
                Health::Up,
                "2 of 2 probes succeeded: connection accepted (last failure: connection refused)",
            ),
        ];
        assert_eq!(
            events_of(Health::Unknown, outcomes).await,
            expected.map(|(health, reason)| (health, reason.to_owned()))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_lack_of_resources_counts_neither_way() {
        let ours = || failure(libc::EMFILE);
        let theirs = || failure(libc::ECONNREFUSED);
        let up = (
            Health::Up,
            "probe succeeded: connection accepted".to_owned(),
        );
        let down = (
            Health::Down,
            "3 of 3 probes failed: connection refused".to_owned(),
        );

        let never_asked = vec![ours(), ours(), ours(), ours()];
        assert_eq!(events_of(Health::Unknown, never_asked).await, []);

        let no_failure = vec![
            ours(),
            success(),
            ours(),
            ours(),
            ours(),
            theirs(),
            theirs(),
        ];
        assert_eq!(
            events_of(Health::Unknown, no_failure).await,
            slice::from_ref(&up)
        );

        let no_success = vec![success(), theirs(), theirs(), ours(), theirs()];
        assert_eq!(events_of(Health::Unknown, no_success).await, [up, down]);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_to_tell_ends_the_watching() {
        let (sender, receiver) = mpsc::channel(1);
        drop(receiver);
        watch(
            target(100 * MS, Health::Unknown),
            async || success(),
            sender,
        )
        .await;
    }
}
