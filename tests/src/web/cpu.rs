//! What the whole machine has worked.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

/// A moment, and how long the CPUs have been idle by then.
///
/// The time that they were not idle is what they have worked, in user space, in the kernel, in
/// interrupts and soft interrupts, whatever runs on the machine. The kernel knows the length of
/// every idle period; what it says of busy time are samples, four milliseconds apart or ten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Busy {
    at: Instant,
    rest: Rest,
}

/// How busy the CPUs are with whatever runs here at present, in percent of all of them.
pub(crate) fn load() -> Result<f64> {
    const LOOK: Duration = Duration::from_secs(1);
    let before = Busy::now()?;
    thread::sleep(LOOK);
    let after = Busy::now()?;
    let all = (after.at - before.at) * after.rest.cpus;
    Ok(100.0 * after.since(before).as_secs_f64() / all.as_secs_f64())
}

/// Time that the CPUs together did not work for this machine, since it was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rest {
    time: Duration,
    cpus: u32,
}

impl Busy {
    pub(crate) fn now() -> Result<Self> {
        let text = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
        let rest = Rest::parse(&text);
        Ok(Self {
            at: Instant::now(),
            rest: rest.with_context(|| format!("/proc/stat begins with {:?}", text.get(..99)))?,
        })
    }

    /// What all CPUs together have worked since then.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        let all = (self.at - earlier.at) * self.rest.cpus;
        all.saturating_sub(self.rest.time.saturating_sub(earlier.rest.time))
    }
}

impl Rest {
    /// proc_stat(5): user, nice, system, idle, iowait, irq, softirq, steal. Stolen time was another
    /// machine's.
    fn parse(text: &str) -> Option<Self> {
        /// USER_HZ, which is 100 on every architecture that Linux runs Rust on.
        const TICK: Duration = Duration::from_millis(10);
        let mut lines = text.lines();
        let mut fields = lines.next()?.split_whitespace();
        if fields.next() != Some("cpu") {
            return None;
        }
        let ticks: Vec<u32> = fields.map_while(|field| field.parse().ok()).collect();
        let [
            _user,
            _nice,
            _system,
            idle,
            iowait,
            _irq,
            _softirq,
            steal,
            ..,
        ] = ticks[..]
        else {
            return None;
        };
        Some(Self {
            time: TICK * (idle + iowait + steal),
            cpus: lines.take_while(|line| line.starts_with("cpu")).count() as u32,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_not_idle_waiting_or_stolen_is_work() {
        let text = "cpu  100 20 3 100000 5000 1 4 700 50 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n\
                    cpu1 1 1 1 1 1 1 1 1 1 1\nintr 1\n";
        let rest = Rest::parse(text).unwrap();
        assert_eq!(rest.time, Duration::from_millis(1_057_000));
        assert_eq!(rest.cpus, 2);
        assert_eq!(Rest::parse("cpu0 1 2 3 4 5 6 7 8"), None);
        assert_eq!(Rest::parse("cpu 1 2 3"), None);

        let at = Instant::now();
        let earlier = Busy { at, rest };
        let later = Busy {
            at: at + Duration::from_secs(3),
            rest: Rest {
                time: rest.time + Duration::from_secs(2),
                ..rest
            },
        };
        assert_eq!(later.since(earlier), Duration::from_secs(4));
    }
}
