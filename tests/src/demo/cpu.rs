//! What the whole machine has worked, from `/proc/stat`.

use std::{fs, time::Duration};

use anyhow::{Context, Result};

/// Time that all CPUs together have been busy since the machine was started: in user space, in the
/// kernel, in interrupts and soft interrupts. Whatever runs on the machine is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Busy(Duration);

impl Busy {
    pub(super) fn now() -> Result<Self> {
        let text = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
        Self::parse(&text).with_context(|| format!("/proc/stat begins with {:?}", text.get(..99)))
    }

    pub(super) fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// proc_stat(5): user, nice, system, idle, iowait, irq, softirq, steal, and guests, who are
    /// in user and nice already. Stolen time was another machine's.
    fn parse(text: &str) -> Option<Self> {
        /// USER_HZ, which is 100 on every architecture that Linux runs Rust on.
        const TICK: Duration = Duration::from_millis(10);
        let mut fields = text.lines().next()?.split_whitespace();
        if fields.next() != Some("cpu") {
            return None;
        }
        let ticks: Vec<u32> = fields.map_while(|field| field.parse().ok()).collect();
        let [user, nice, system, _idle, _iowait, irq, softirq, ..] = ticks[..] else {
            return None;
        };
        Some(Self(TICK * (user + nice + system + irq + softirq)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_waiting_and_stolen_time_is_not_work() {
        let text = "cpu  100 20 3 100000 5000 1 4 700 50 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        let busy = Busy::parse(text).unwrap();
        assert_eq!(busy.0, Duration::from_millis(1280));
        assert_eq!(Busy::parse("cpu0 1 2 3 4 5 6 7"), None);
        assert_eq!(Busy::parse("cpu 1 2 3"), None);
    }
}
