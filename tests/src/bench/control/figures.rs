//! Collects figures: times with their ratio to a loop that depends on nothing but the CPU.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use lb_common::hash::{HashKey, sip13};

use crate::bench::section::{Better, Figure, Goal};

/// What ratios refer to.
pub(super) const REFERENCE: &str = "reference: a million hashes";

/// What a time is given in.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unit {
    Microseconds,
    Milliseconds,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Microseconds => "us",
            Self::Milliseconds => "ms",
        }
    }

    fn of(self, time: Duration) -> f64 {
        let seconds = time.as_secs_f64();
        match self {
            Self::Microseconds => seconds * 1e6,
            Self::Milliseconds => seconds * 1e3,
        }
    }
}

pub(super) struct Figures {
    /// How often everything is measured.
    pub(super) passes: usize,
    reference: Duration,
    figures: Vec<Figure>,
}

impl Figures {
    pub(super) fn begin(passes: usize) -> Self {
        let samples: Vec<_> = (0..passes).map(|_| million_hashes()).collect();
        let mut sorted = samples.clone();
        sorted.sort_unstable();
        let mut figures = Self {
            passes,
            reference: sorted.get(passes / 2).copied().unwrap_or_default(),
            figures: Vec::new(),
        };
        figures.time(REFERENCE, Unit::Milliseconds, &samples);
        figures
    }

    /// The time of one thing, done once in each pass.
    pub(super) fn time(&mut self, name: &str, unit: Unit, samples: &[Duration]) {
        let values: Vec<_> = samples.iter().map(|&sample| unit.of(sample)).collect();
        let mut figure = Figure::median(name, unit.name(), Better::Lower, &values);
        figure.ratio = Some(figure.value / unit.of(self.reference));
        self.figures.push(figure);
    }

    /// Memory in megabytes (10^6 bytes), with the most that it may be.
    pub(super) fn megabytes(&mut self, name: &str, samples: &[u64], goal: Option<f64>) {
        let values: Vec<_> = samples.iter().map(|&bytes| bytes as f64 / 1e6).collect();
        let figure = Figure::median(name, "MB", Better::Lower, &values);
        self.figures.push(match goal {
            Some(most) => figure.with_goal(Goal::Value(most)),
            None => figure,
        });
    }

    /// Memory in bytes, that needs no measuring.
    pub(super) fn bytes(&mut self, name: &str, bytes: f64, goal: Option<f64>) {
        let figure = Figure::median(name, "B", Better::Lower, &[bytes]);
        self.figures.push(match goal {
            Some(most) => figure.with_goal(Goal::Value(most)),
            None => figure,
        });
    }

    pub(super) fn into_vec(self) -> Vec<Figure> {
        self.figures
    }
}

/// How long `work` takes, and what it came to.
pub(super) fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let result = work();
    (start.elapsed(), result)
}

/// Each depends on the one before.
fn million_hashes() -> Duration {
    let key = HashKey { k0: 1, k1: 2 };
    let (time, hash) = timed(|| (0..1_000_000).fold(0, |last, n| sip13::<12, 2>(key, [last, n])));
    black_box(hash);
    time
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_given_as_a_multiple_of_the_reference() {
        let mut figures = Figures {
            passes: 2,
            reference: Duration::from_millis(10),
            figures: Vec::new(),
        };
        let samples = [Duration::from_millis(20), Duration::from_millis(40)];
        figures.time("case", Unit::Microseconds, &samples);
        let figure = &figures.into_vec()[0];
        assert_eq!(figure.value, 30_000.0);
        assert_eq!(figure.ratio, Some(3.0));
    }
}
