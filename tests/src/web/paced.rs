//! Requests at a fixed rate, one at a time, and how long each takes.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::http::Connection;
use crate::lab::Host;

/// A load that leaves the machine time: it has to be well below what the slowest way can take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// From one request to the next.
    pub(crate) interval: Duration,
    pub(crate) requests: u32,
    /// Kept-alive connections, asked in turn.
    pub(crate) connections: usize,
}

/// How long the requests of a load took, in ascending order.
pub(crate) struct Latencies(Vec<Duration>);

impl Pace {
    /// Asks from a host. What is late because the answer before it was late counts from the moment
    /// that it was due.
    pub(crate) fn run(&self, host: &Host, to: SocketAddr) -> Result<Latencies> {
        host.netns().run(|| {
            let open = |_| Connection::open(to);
            let connections = (0..self.connections).map(open);
            let mut connections = connections.collect::<Result<Vec<_>, _>>()?;
            // The first request on each is what makes the servers ready for more.
            for connection in &mut connections {
                connection.ask()?;
            }
            let mut latencies = Vec::with_capacity(self.requests as usize);
            let begun = Instant::now();
            let mut free = begun;
            for n in 0..self.requests {
                let due = begun + self.interval * n;
                thread::sleep(due.saturating_duration_since(Instant::now()));
                let asked = if free > due { due } else { Instant::now() };
                let next = n as usize % connections.len();
                connections[next].ask()?;
                free = Instant::now();
                latencies.push(free - asked);
            }
            let took = begun.elapsed();
            let planned = self.interval * self.requests;
            ensure!(
                took < planned * 5 / 4,
                "{} requests took {took:?} instead of {planned:?}",
                self.requests
            );
            latencies.sort_unstable();
            Ok(Latencies(latencies))
        })
    }
}

impl Latencies {
    /// So many in a hundred took no longer.
    pub(crate) fn percentile(&self, percent: usize) -> Result<Duration> {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0.get(rank - 1).copied().context("nothing was asked")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_nearest_rank() {
        let latencies = Latencies((1..=200).map(Duration::from_micros).collect());
        let percentile = |percent| latencies.percentile(percent).unwrap().as_micros();
        assert_eq!(
            [percentile(50), percentile(99), percentile(100)],
            [100, 198, 200]
        );
        assert!(Latencies(Vec::new()).percentile(50).is_err());
    }
}
