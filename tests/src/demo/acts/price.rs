use std::{net::SocketAddr, thread, time::Duration};

use anyhow::Result;

use crate::{
    demo::{
        report::Report,
        stage::{Stage, WEIGHTS},
        table::{Table, count},
    },
    web::{
        cpu::{self, Busy},
        haproxy::Haproxy,
        wrk::{Load, Reuse},
    },
};

const ROUNDS: u32 = 3;
/// Of each measurement.
const SECONDS: u32 = 2;
/// As many as backends: each thread has one of its own where there is no balancer.
const THREADS: u32 = 4;
const CONNECTIONS: u32 = 64;

/// What balancing costs, beside no balancing and beside HAProxy.
pub(in crate::demo) fn price(stage: &mut Stage, report: &mut Report) -> Result<()> {
    report.act("The price, beside the same backends without balancer and through HAProxy");
    report.progress(format!(
        "{ROUNDS} rounds of {SECONDS} s for each way: wrk, {CONNECTIONS} connections, {THREADS} threads"
    ));
    let backends: Vec<_> = stage.backends.iter().map(|nginx| nginx.address()).collect();
    report.progress(format!(
        "the machine's {} CPUs are {:.0} % busy before",
        thread::available_parallelism()?,
        cpu::load()?
    ));
    let mut paths = [
        Path::new("direct", "direct, routed by lb"),
        Path::new("HAProxy", "HAProxy, TCP mode"),
        Path::new("lb", "lb"),
    ];
    // HAProxy's servers have equal weights, and wrk's threads equal shares.
    set_weights(stage, [1; 4])?;
    for round in 1..=ROUNDS {
        let [direct, haproxy, balanced] = &mut paths;
        // Alone on the wire: the others do not pay for a program that they do not need.
        stage.stop_balancing()?;
        report.begin_line(format!("round {round} of {ROUNDS}:"));
        direct.measure(stage, report, &backends)?;
        {
            let proxy = Haproxy::start(stage.lab.lb(), stage.directory(), &backends, 4_000)?;
            haproxy.measure(stage, report, &[proxy.address()])?;
        }
        stage.start_balancing()?;
        balanced.measure(stage, report, &[stage.vip()])?;
        report.end_line();
    }
    set_weights(stage, WEIGHTS)?;

    let [direct, haproxy, balanced] = &paths;
    for (title, pick) in KINDS {
        let mut table = Table::new(&[
            title,
            ">PER SECOND",
            ">ROUNDS",
            ">CPU EACH",
            ">BEYOND DIRECT",
            ">P99",
            ">FAILED",
        ]);
        let floor = pick(direct).cpu_each();
        for path in &paths {
            table.row(pick(path).row(path.name, floor));
        }
        report.paragraph(table);
    }
    report.paragraph(
        "  CPU is the busy time of the whole machine, clients and servers included, by the number of\n  \
         requests; BEYOND DIRECT is what a way adds to that. All backends have the same weight. The\n  \
         program of lb is on the interfaces only while lb is measured.",
    );
    for (title, pick) in KINDS {
        let (ours, theirs) = (pick(balanced), pick(haproxy));
        report.claim(
            format!("{title}: faster than HAProxy, for less CPU"),
            format!(
                "{:.1} x as many, {:.2} x the CPU",
                ours.per_second() / theirs.per_second(),
                ours.cpu_each() / theirs.cpu_each()
            ),
            ours.per_second() > theirs.per_second() && ours.cpu_each() < theirs.cpu_each(),
        );
    }
    let failed = KINDS
        .map(|(_, pick)| pick(balanced).failed)
        .iter()
        .sum::<u64>();
    report.claim(
        "no request through lb fails",
        format!("{failed} failed"),
        failed == 0,
    );
    Ok(())
}

fn set_weights(stage: &Stage, weights: [u64; 4]) -> Result<()> {
    for (host, weight) in stage.lab.backends().iter().zip(weights) {
        stage.set_weight(host.name(), weight)?;
    }
    Ok(())
}

/// What is measured of each way, and how to find it.
type Kind = (&'static str, fn(&Path) -> &Sum);
const KINDS: [Kind; 2] = [
    ("requests, kept alive", |path| &path.kept_alive),
    ("new connections", |path| &path.closed),
];

/// A way from the client to the servers.
struct Path {
    name: &'static str,
    short: &'static str,
    kept_alive: Sum,
    closed: Sum,
}

/// Over all rounds.
#[derive(Default)]
struct Sum {
    requests: u64,
    time: Duration,
    cpu: Duration,
    failed: u64,
    /// Requests per second, of each round.
    rounds: Vec<f64>,
    /// The worst round's.
    percentile_99: Duration,
}

impl Path {
    fn new(short: &'static str, name: &'static str) -> Self {
        Self {
            name,
            short,
            kept_alive: Sum::default(),
            closed: Sum::default(),
        }
    }

    fn measure(
        &mut self,
        stage: &Stage,
        report: &mut Report,
        targets: &[SocketAddr],
    ) -> Result<()> {
        report.continue_line(format!(" {} …", self.short));

        for (sum, reuse) in [
            (&mut self.kept_alive, Reuse::KeepAlive),
            (&mut self.closed, Reuse::Close),
        ] {
            let load = Load {
                targets,
                path: "/",
                connections: CONNECTIONS,
                threads: THREADS,
                seconds: SECONDS,
                reuse,
            };
            let busy = Busy::now()?;
            let outcome = load.run(stage.client(), stage.directory())?;
            sum.cpu += Busy::now()?.since(busy);
            sum.requests += outcome.requests;
            sum.time += outcome.duration;
            sum.failed += outcome.errors.all();
            sum.rounds.push(outcome.per_second());
            sum.percentile_99 = sum.percentile_99.max(outcome.percentile_99);
        }
        Ok(())
    }
}

impl Sum {
    fn per_second(&self) -> f64 {
        self.requests as f64 / self.time.as_secs_f64()
    }

    /// Microseconds for each request.
    fn cpu_each(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.requests as f64
    }

    fn row(&self, name: &str, floor: f64) -> [String; 7] {
        let thousands = |per_second: f64| format!("{:.1}", per_second / 1e3);
        let least = self.rounds.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.rounds.iter().copied().fold(0.0, f64::max);
        [
            name.to_owned(),
            count(self.per_second() as u64),
            format!("{} - {} k", thousands(least), thousands(most)),
            format!("{:.1} us", self.cpu_each()),
            format!("{:+.1} us", self.cpu_each() - floor),
            format!("{:.1} ms", self.percentile_99.as_secs_f64() * 1e3),
            count(self.failed),
        ]
    }
}
