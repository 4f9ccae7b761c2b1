//! Whole requests, through everything that a client could ask through instead.
//!
//! ```text
//!            ┌──────────── bypass ────────────┐
//!   client ──┴── eth0  balancer  eth1 ────────┴── servers: nginx at 10.2.0.11 and 10.2.0.12
//! ```
//!
//! `direct` is the wire past the balancer: nothing that somebody who asks without a balancer would
//! not have. So whatever an extra host and its two links cost counts against each balancer, ours
//! included. `routed` is the way that all balancers take, with nothing but the kernel's routing in
//! the middle. Every interface has GRO, as network cards have; client and servers send without
//! offloads, as frames come from cards with complete checksums and of the link's size. The balancer's
//! own interfaces keep their offloads, by which proxies send in large pieces. Everybody balances two
//! addresses of the servers. In `dsr`, `ipip` and `gue` the servers answer by the bypass, and the
//! program `lb-decap` takes what is tunnelled out.
//!
//! A contender has the balancer to itself during its turn. Contenders take turns, round by round, at
//! ordinary priority on all CPUs, each turn with a client's address of its own.

mod contender;
mod figures;
mod measure;
mod memory;
mod stage;
mod witness;

use anyhow::Context as _;

use self::{contender::Contender, figures::Samples, stage::Stage};
use super::{
    Effort,
    section::{Better, Figure, Section},
};
use crate::web::cpu;

/// How much of it.
#[derive(Clone, Copy, Debug)]
struct Plan {
    rounds: u8,
    /// Of each load.
    seconds: u32,
    transfer_seconds: u32,
    paced_requests: u32,
    idle_connections: usize,
}

impl Plan {
    fn of(effort: Effort) -> Self {
        match effort {
            Effort::Full => Self {
                rounds: 3,
                seconds: 2,
                transfer_seconds: 1,
                paced_requests: 4_000,
                idle_connections: 9_000,
            },
            Effort::Quick => Self {
                rounds: 1,
                seconds: 1,
                transfer_seconds: 1,
                paced_requests: 1_000,
                idle_connections: 2_000,
            },
        }
    }
}

/// Measures all contenders in turn, as often as there are rounds.
///
/// # Errors
///
/// Not root; a contender that cannot be started, such as one that is not installed; a request that
/// failed; or packets that took another way than they were to take.
pub(super) fn run(effort: Effort) -> anyhow::Result<Section> {
    let plan = Plan::of(effort);
    let load = cpu::load()?;
    let mut stage = Stage::new()?;

    let mut idle = Vec::new();
    for contender in memory::CONTENDERS {
        eprintln!("end-to-end: memory of idle connections: {contender}");
        let bytes = memory::per_connection(&mut stage, contender, plan.idle_connections);
        idle.push((contender, bytes.with_context(|| contender.to_string())?));
    }
    stage.clear()?;
    let mut samples: Samples = Default::default();
    for round in 1..=plan.rounds {
        for contender in Contender::ALL {
            eprintln!("end-to-end: round {round} of {}: {contender}", plan.rounds);
            let sample = measure::measure(&mut stage, contender, plan);
            samples[contender.index()].push(sample.with_context(|| contender.to_string())?);
        }
    }

    let mut figures = figures::promised(&samples);
    figures.extend(figures::measured(&samples));
    figures.extend(memory_figures(&idle));
    Ok(Section {
        name: "end-to-end".to_owned(),
        title: "What whole requests cost".to_owned(),
        method: format!(
            "Client, balancer and servers in namespaces joined by veth pairs, all CPUs, {} rounds. \
             direct: a pair past the balancer;\nrouted: through its kernel. Throughput, and CPU of \
             the whole machine: wrk, 64 connections. Latency: 2 000 requests a\nsecond on 8 \
             connections. Memory: {} idle connections, beyond direct's. No request failed. Other \
             work kept the CPUs\n{load:.0} % busy before it began.",
            plan.rounds, plan.idle_connections
        ),
        reference: Some(Contender::Direct.to_string()),
        figures,
    })
}

/// What each idle connection adds to what both ends of it take.
fn memory_figures(idle: &[(Contender, f64)]) -> Vec<Figure> {
    let direct = idle
        .iter()
        .find(|(contender, _)| *contender == Contender::Direct);
    let direct = direct.map_or(f64::NAN, |(_, bytes)| *bytes);
    let others = idle
        .iter()
        .filter(|(contender, _)| *contender != Contender::Direct);
    let figures = others.map(|&(contender, bytes)| {
        let record = match contender {
            Contender::Lb(_) => memory::RECORD,
            _ => 0.0,
        };
        let name = format!("memory of an idle connection: {contender}");
        Figure::median(name, "B", Better::Lower, &[bytes - direct + record])
    });
    figures.collect()
}
