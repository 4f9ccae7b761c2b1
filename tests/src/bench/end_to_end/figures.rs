//! From samples to figures.

use lb_userspace::model::Forwarding;

use super::{contender::Contender, measure::Sample};
use crate::bench::section::{Better, Figure, Goal};

/// All samples of a run: of each contender in the order of [`Contender::ALL`], round by round.
pub(super) type Samples = [Vec<Sample>; Contender::ALL.len()];

/// What is measured in a turn.
struct Quantity {
    name: &'static str,
    unit: &'static str,
    better: Better,
    of: fn(&Sample) -> f64,
}

const REQUEST_CPU: Quantity = Quantity {
    name: "CPU a request",
    unit: "µs",
    better: Better::Lower,
    of: |sample| sample.request_cpu,
};
const CONNECTION_CPU: Quantity = Quantity {
    name: "CPU a connection",
    unit: "µs",
    better: Better::Lower,
    of: |sample| sample.connection_cpu,
};
const P50: Quantity = Quantity {
    name: "latency p50",
    unit: "µs",
    better: Better::Lower,
    of: |sample| sample.p50,
};
const P99: Quantity = Quantity {
    name: "latency p99",
    unit: "µs",
    better: Better::Lower,
    of: |sample| sample.p99,
};

const QUANTITIES: [Quantity; 8] = [
    Quantity {
        name: "requests, kept alive",
        unit: "req/s",
        better: Better::Higher,
        of: |sample| sample.requests,
    },
    REQUEST_CPU,
    Quantity {
        name: "new connections",
        unit: "conn/s",
        better: Better::Higher,
        of: |sample| sample.connections,
    },
    CONNECTION_CPU,
    P50,
    P99,
    Quantity {
        name: "transfer, 1 connection",
        unit: "Gbit/s",
        better: Better::Higher,
        of: |sample| sample.one_transfer,
    },
    Quantity {
        name: "transfer, 8 connections",
        unit: "Gbit/s",
        better: Better::Higher,
        of: |sample| sample.transfers,
    },
];

const NAT: Contender = Contender::Lb(Forwarding::Nat);

/// Every quantity of every contender, with its ratio to the direct way's.
pub(super) fn measured(samples: &Samples) -> Vec<Figure> {
    let mut figures = Vec::new();
    for quantity in &QUANTITIES {
        let rounds = |contender: Contender| of(samples, contender, quantity.of);
        let median = |contender| {
            let name = format!("{}: {contender}", quantity.name);
            Figure::median(name, quantity.unit, quantity.better, &rounds(contender))
        };
        let direct = median(Contender::Direct).value;
        figures.extend(Contender::ALL.into_iter().map(|contender| {
            let figure = median(contender);
            Figure {
                ratio: Some(figure.value / direct),
                ..figure
            }
        }));
    }
    figures
}

/// What was promised of `nat`, round by round beside what was measured next to it.
pub(super) fn promised(samples: &Samples) -> Vec<Figure> {
    let mut figures = Vec::new();
    // Beyond the direct way, an extra host and its links count against everybody; beyond the routed
    // one, what the kernel would have done with each packet does not count.
    for (quantity, base, goals) in [
        (
            CONNECTION_CPU,
            Contender::Direct,
            [Some(1.0 / 6.0), Some(0.5)],
        ),
        (CONNECTION_CPU, Contender::Routed, [None, None]),
        (REQUEST_CPU, Contender::Direct, [None, None]),
        (REQUEST_CPU, Contender::Routed, [None, None]),
    ] {
        let added = |contender| -> Vec<f64> {
            let without = of(samples, base, quantity.of);
            let with = of(samples, contender, quantity.of);
            let pairs = with.iter().zip(without);
            pairs.map(|(with, without)| with - without).collect()
        };
        for (other, goal) in [Contender::Haproxy, Contender::Nftables]
            .into_iter()
            .zip(goals)
        {
            let ratios = quotients(&added(NAT), &added(other));
            let name = format!("{} beyond {base}: {NAT} of {other}'s", quantity.name);
            figures.push(Figure {
                goal: goal.map(Goal::Value),
                ..Figure::median(name, "×", Better::Lower, &ratios)
            });
        }
    }
    for quantity in [P50, P99] {
        let ours = of(samples, NAT, quantity.of);
        for (other, goal) in [
            // A host in between is a host in between: the goal is to be none the slower for it.
            (Contender::Routed, Some(Goal::Value(1.05))),
            (Contender::Direct, None),
        ] {
            let ratios = quotients(&ours, &of(samples, other, quantity.of));
            let name = format!("{}: {NAT} of {other}", quantity.name);
            figures.push(Figure {
                goal,
                ..Figure::median(name, "×", Better::Lower, &ratios)
            });
        }
    }
    figures
}

fn of(samples: &Samples, contender: Contender, pick: fn(&Sample) -> f64) -> Vec<f64> {
    samples[contender.index()].iter().map(pick).collect()
}

/// Round by round.
fn quotients(dividends: &[f64], divisors: &[f64]) -> Vec<f64> {
    let pairs = dividends.iter().zip(divisors);
    pairs
        .map(|(dividend, divisor)| dividend / divisor)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_balancer_adds_is_compared_round_by_round() {
        let sample = |cpu| Sample {
            requests: 1.0,
            request_cpu: cpu,
            connections: 1.0,
            connection_cpu: cpu,
            p50: cpu,
            p99: cpu,
            one_transfer: 1.0,
            transfers: 1.0,
        };
        let samples: Samples = std::array::from_fn(|n| {
            let beyond = match Contender::ALL[n] {
                Contender::Direct => 0.0,
                Contender::Haproxy => 80.0,
                NAT => 8.0,
                Contender::Routed => 0.0,
                _ => 20.0,
            };
            vec![
                sample(50.0 + beyond),
                sample(70.0 + beyond),
                sample(60.0 + beyond),
            ]
        });
        let figures = promised(&samples);
        let value = |name: &str| {
            let found = figures.iter().find(|figure| figure.name == name);
            found
                .map(|figure| (figure.value, figure.meets_goal()))
                .unwrap()
        };
        assert_eq!(
            value("CPU a connection beyond direct: lb nat of HAProxy's"),
            (0.1, Some(true))
        );
        assert_eq!(
            value("CPU a connection beyond direct: lb nat of nftables's"),
            (0.4, Some(true))
        );
        let (p50, meets_goal) = value("latency p50: lb nat of routed");
        assert!(p50 > 1.1 && meets_goal == Some(false));
        assert_eq!(measured(&samples).len(), 80);
    }
}
