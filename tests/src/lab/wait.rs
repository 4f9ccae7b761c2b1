use std::{
    fmt, thread,
    time::{Duration, Instant},
};

const INTERVAL: Duration = Duration::from_millis(20);

/// A condition did not come true in time.
#[derive(Debug)]
pub struct TimedOut {
    what: String,
    after: Duration,
}

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "waited {:?} in vain until {}", self.after, self.what)
    }
}

impl std::error::Error for TimedOut {}

/// Asks every 20 ms until `poll` has an answer, for at most `patience`.
///
/// `what` completes the sentence "waited 5s in vain until …".
pub fn wait_for<T>(
    patience: Duration,
    what: impl fmt::Display,
    mut poll: impl FnMut() -> Option<T>,
) -> Result<T, TimedOut> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(answer) = poll() {
            return Ok(answer);
        }
        if Instant::now() >= deadline {
            return Err(TimedOut {
                what: what.to_string(),
                after: patience,
            });
        }
        thread::sleep(INTERVAL);
    }
}

/// [`wait_for`] a condition.
///
/// # Panics
/// When it is still false after `patience`; the message says what was waited for, and where.
#[track_caller]
pub fn wait_until(
    patience: Duration,
    what: impl fmt::Display,
    mut condition: impl FnMut() -> bool,
) {
    if let Err(timed_out) = wait_for(patience, what, || condition().then_some(())) {
        panic!("{timed_out}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_until_there_is_an_answer() {
        let mut asked = 0;
        let answer = wait_for(Duration::from_secs(5), "the third question", || {
            asked += 1;
            (asked == 3).then_some(asked)
        });
        assert_eq!(answer.unwrap(), 3);
    }

    #[test]
    #[should_panic(expected = "waited 30ms in vain until pigs fly")]
    fn says_what_it_waited_for() {
        wait_until(Duration::from_millis(30), "pigs fly", || false);
    }
}
