//! One contender's turn.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};

use super::{
    Plan,
    contender::Contender,
    stage::{BULK, Stage},
    witness::Witness,
};
use crate::web::{
    cpu::Busy,
    paced::Pace,
    wrk::{Load, Outcome, Reuse},
};

/// Of wrk, where throughput is measured.
const CONNECTIONS: u32 = 64;
/// Where several connections transfer at the same time.
const TRANSFERS: u32 = 8;
/// Requests at a fixed rate: a fifth of what the slowest way takes on two CPUs, or less.
const INTERVAL: Duration = Duration::from_micros(500);
const PACED_CONNECTIONS: usize = 8;

/// What a contender did in one turn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// A second, on kept-alive connections.
    pub(super) requests: f64,
    /// CPU time of the whole machine for each, in microseconds.
    pub(super) request_cpu: f64,
    /// A second, with a request each.
    pub(super) connections: f64,
    pub(super) connection_cpu: f64,
    /// Of requests at a fixed rate, in microseconds.
    pub(super) p50: f64,
    pub(super) p99: f64,
    /// Gbit/s of payload and headers, of one connection and of several.
    pub(super) one_transfer: f64,
    pub(super) transfers: f64,
}

pub(super) fn measure(stage: &mut Stage, contender: Contender, plan: Plan) -> Result<Sample> {
    let target = stage.take_turn(contender)?;
    let before = Witness::now(stage, contender)?;

    let (kept_alive, request_cpu) = loaded(stage, target, plan, Reuse::KeepAlive)?;
    let (closed, connection_cpu) = loaded(stage, target, plan, Reuse::Close)?;
    let pace = Pace {
        interval: INTERVAL,
        requests: plan.paced_requests,
        connections: PACED_CONNECTIONS,
    };
    let latencies = pace
        .run(stage.client(), target)
        .context("requests at a fixed rate")?;
    let micros =
        |percent| -> Result<f64> { Ok(latencies.percentile(percent)?.as_secs_f64() * 1e6) };
    let sample = Sample {
        requests: kept_alive.per_second(),
        request_cpu,
        connections: closed.per_second(),
        connection_cpu,
        p50: micros(50)?,
        p99: micros(99)?,
        one_transfer: transfer(stage, target, plan, 1)?,
        transfers: transfer(stage, target, plan, TRANSFERS)?,
    };

    let connections = closed.requests + u64::from(CONNECTIONS);
    Witness::now(stage, contender)?.testify(&before, contender, connections)?;
    Ok(sample)
}

/// As many requests as possible; also, CPU time for each in microseconds.
fn loaded(stage: &Stage, target: SocketAddr, plan: Plan, reuse: Reuse) -> Result<(Outcome, f64)> {
    let load = Load {
        targets: &[target],
        path: "/",
        connections: CONNECTIONS,
        threads: 2,
        seconds: plan.seconds,
        reuse,
    };
    let busy = Busy::now()?;
    let outcome = run(stage, &load)?;
    let cpu = Busy::now()?.since(busy);
    Ok((outcome, cpu.as_secs_f64() * 1e6 / outcome.requests as f64))
}

fn transfer(stage: &Stage, target: SocketAddr, plan: Plan, connections: u32) -> Result<f64> {
    let load = Load {
        targets: &[target],
        path: BULK,
        connections,
        threads: connections.min(2),
        seconds: plan.transfer_seconds,
        reuse: Reuse::KeepAlive,
    };
    let outcome = run(stage, &load).context("a transfer")?;
    Ok(outcome.bytes as f64 * 8.0 / outcome.duration.as_secs_f64() / 1e9)
}

/// Runs wrk; every request has to succeed.
fn run(stage: &Stage, load: &Load<'_>) -> Result<Outcome> {
    let outcome = load.run(stage.client(), stage.directory())?;
    ensure!(
        outcome.requests > 0 && outcome.errors.all() == 0,
        "not every request succeeded: {outcome:?}"
    );
    Ok(outcome)
}
