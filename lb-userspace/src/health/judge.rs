//! From results to health: consecutive results count, single ones do not.

use crate::model::{Check, Health};

/// The rise/fall state machine of one target.
///
/// | health  | becomes up after   | becomes down after |
/// |---------|--------------------|--------------------|
/// | unknown | the first success  | the first failure  |
/// | up      |                    | `fall` failures    |
/// | down    | `rise` successes   |                    |
///
/// From unknown the first result decides, as with HAProxy's default `init-state up` (a server that
/// has just appeared is used, but one failed check takes it out): a backend that has never
/// answered has earned no patience, and it is given traffic meanwhile. A daemon that restarts hands
/// in the health of before instead, so that a single lost probe at that moment takes nothing down.
#[derive(Debug)]
pub(super) struct Judge {
    rise: u16,
    fall: u16,
    health: Health,
    /// Consecutive results that speak against `health`.
    contrary: u16,
    announced: bool,
    last_failure: Option<String>,
}

/// A decision that others should hear of.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) health: Health,
    pub(super) reason: String,
}

impl Judge {
    pub(super) fn new(check: &Check, initial: Health) -> Self {
        Self {
            rise: check.rise,
            fall: check.fall,
            health: initial,
            contrary: 0,
            announced: false,
            last_failure: None,
        }
    }

    /// Takes the result of one probe, with what was seen in either case.
    ///
    /// There is a verdict when the health changes, and once when a result confirms the initial
    /// health. A first result that speaks against it waits for the threshold like any other:
    /// announced at once, its reason would stand there as the newest word long after probes had
    /// succeeded again.
    pub(super) fn record(&mut self, result: Result<String, String>) -> Option<Verdict> {
        let (observed, threshold) = match result {
            Ok(_) => (Health::Up, self.rise),
            Err(_) => (Health::Down, self.fall),
        };
        let (news, count) = if self.health == observed {
            self.contrary = 0;
            (!self.announced, 1)
        } else if self.health == Health::Unknown {
            (true, 1)
        } else {
            self.contrary = self.contrary.saturating_add(1);
            (self.contrary >= threshold, self.contrary)
        };
        let reason = news.then(|| self.reason(&result, count));
        if let Err(failure) = result {
            self.last_failure = Some(failure);
        }
        let reason = reason?;
        self.health = observed;
        self.contrary = 0;
        self.announced = true;
        Some(Verdict {
            health: observed,
            reason,
        })
    }

    fn reason(&self, result: &Result<String, String>, count: u16) -> String {
        let probes = match count {
            1 => "probe".to_owned(),
            n => format!("{n} of {n} probes"),
        };
        match (result, &self.last_failure) {
            (Err(failure), _) => format!("{probes} failed: {failure}"),
            (Ok(seen), None) => format!("{probes} succeeded: {seen}"),
            (Ok(seen), Some(failure)) => {
                format!("{probes} succeeded: {seen} (last failure: {failure})")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn judge(rise: u16, fall: u16, initial: Health) -> Judge {
        let check = Check {
            rise,
            fall,
            ..Check::default()
        };
        Judge::new(&check, initial)
    }

    fn success() -> Result<String, String> {
        Ok("HTTP 200 from GET /".to_owned())
    }

    fn failure() -> Result<String, String> {
        Err("connection refused".to_owned())
    }

    #[track_caller]
    fn assert_verdict(verdict: Option<Verdict>, health: Health, reason: &str) {
        let reason = reason.to_owned();
        assert_eq!(verdict, Some(Verdict { health, reason }));
    }

    #[test]
    fn from_unknown_the_first_result_decides() {
        assert_verdict(
            judge(2, 3, Health::Unknown).record(success()),
            Health::Up,
            "probe succeeded: HTTP 200 from GET /",
        );
        assert_verdict(
            judge(2, 3, Health::Unknown).record(failure()),
            Health::Down,
            "probe failed: connection refused",
        );
    }

    #[test]
    fn up_goes_down_after_fall_failures_in_a_row() {
        let mut judge = judge(2, 3, Health::Up);
        assert!(judge.record(success()).is_some());
        for result in [failure(), failure(), success(), failure(), failure()] {
            assert_eq!(judge.record(result), None);
        }
        assert_verdict(
            judge.record(Err("no answer within 1s".to_owned())),
            Health::Down,
            "3 of 3 probes failed: no answer within 1s",
        );
        assert_eq!(judge.record(failure()), None);
    }

    #[test]
    fn down_goes_up_after_rise_successes_in_a_row_and_remembers_why_it_was_down() {
        let mut judge = judge(2, 3, Health::Unknown);
        assert!(judge.record(failure()).is_some());
        for result in [success(), Err("HTTP 503 from GET /".to_owned()), success()] {
            assert_eq!(judge.record(result), None);
        }
        assert_verdict(
            judge.record(success()),
            Health::Up,
            "2 of 2 probes succeeded: HTTP 200 from GET / (last failure: HTTP 503 from GET /)",
        );
    }

    #[test]
    fn an_inherited_health_is_confirmed_once() {
        let mut up = judge(2, 3, Health::Up);
        assert_eq!(up.record(failure()), None);
        assert_verdict(
            up.record(success()),
            Health::Up,
            "probe succeeded: HTTP 200 from GET / (last failure: connection refused)",
        );
        assert_eq!(up.record(success()), None);

        let mut down = judge(2, 3, Health::Down);
        assert_verdict(
            down.record(failure()),
            Health::Down,
            "probe failed: connection refused",
        );
        assert_eq!(down.record(failure()), None);
    }

    #[test]
    fn a_threshold_of_one_is_not_counted_aloud() {
        let mut judge = judge(1, 1, Health::Up);
        assert_verdict(
            judge.record(failure()),
            Health::Down,
            "probe failed: connection refused",
        );
    }

    fn any_health() -> impl Strategy<Value = Health> {
        prop_oneof![Just(Health::Unknown), Just(Health::Up), Just(Health::Down)]
    }

    proptest! {
        /// The judge against the rule as an operator would state it, on whole histories instead of
        /// a counter: up goes down exactly when the last `fall` results are failures, down goes up
        /// exactly when the last `rise` are successes.
        #[test]
        fn health_follows_the_last_results(
            rise in 1_u16..6,
            fall in 1_u16..6,
            initial in any_health(),
            history in prop::collection::vec(any::<bool>(), 0..120),
        ) {
            let mut judge = judge(rise, fall, initial);
            let mut health = initial;
            let mut announced = false;
            for (index, &succeeded) in history.iter().enumerate() {
                let seen = &history[..=index];
                let last = |count: u16, value: bool| {
                    let count = usize::from(count);
                    seen.len() >= count && seen[seen.len() - count..].iter().all(|&r| r == value)
                };
                let expected = match health {
                    Health::Unknown if succeeded => Health::Up,
                    Health::Unknown => Health::Down,
                    Health::Up if last(fall, false) => Health::Down,
                    Health::Down if last(rise, true) => Health::Up,
                    unchanged => unchanged,
                };
                let confirms = (expected == Health::Up) == succeeded;
                let news = expected != health || (!announced && confirms);
                let verdict = judge.record(if succeeded { success() } else { failure() });
                prop_assert_eq!(verdict.map(|v| v.health), news.then_some(expected));
                announced |= news;
                health = expected;
            }
        }
    }
}
