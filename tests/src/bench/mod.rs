//! What the program costs per packet, by the prelude method.
//!
//! `BPF_PROG_TEST_RUN` gives a small program a packet, a million times over. That program (the
//! [`generator`]) writes the packet anew each time, makes it one of many flows', and tail-calls
//! the program under test. The same with a program that does nothing is what the generator
//! costs, and is subtracted. Every run checks itself: verdict, checksums of the last packet, and
//! that the balancer's own counters have moved by exactly the packets of the run.

mod balancer;
mod cases;
pub mod control;
mod frame;
mod generator;
mod machine;
mod report;
pub mod section;

use anyhow::{Context as _, ensure};

use self::{
    balancer::{Balancer, Counts},
    cases::{CLIENTS4, CLIENTS6, CONNECTIONS, Case, Packets, REPLIED_TO, Subject},
    frame::checksums_hold,
    generator::{Flows, Generator, NOTHING, Run, TX},
    machine::Machine,
    report::Program,
};
pub use self::{
    machine::pin,
    report::{Figure, Report},
};

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Times that every case is measured.
    pub passes: usize,
    /// Packets of a pass.
    pub packets: u32,
    /// Connections that are opened in a pass of each address family.
    pub new_flows: u32,
}

impl Effort {
    /// Figures to keep: about half a minute.
    pub const FULL: Self = Self {
        passes: 5,
        packets: 2_000_000,
        new_flows: 200_000,
    };
    /// Whether it works, and roughly how fast: a few seconds.
    pub const QUICK: Self = Self {
        passes: 3,
        packets: 300_000,
        new_flows: 50_000,
    };
}

/// Measures everything.
///
/// # Errors
///
/// Not root, no BPF file system at `/sys/fs/bpf`, a program that the kernel refuses; or a run that
/// did not do what it was to do, and then there are no figures at all.
pub fn run(effort: Effort) -> anyhow::Result<Report> {
    let machine = Machine::settle().context("pin the benchmark to a CPU")?;
    let mut balancer = Balancer::load()?;
    let mut generator = Generator::load()?;
    for clients in [CLIENTS4, CLIENTS6] {
        let ipv4 = clients.established.is_ipv4();
        let first = balancer
            .service(ipv4)
            .backends
            .first()
            .map(|&(index, _)| index);
        balancer.establish(&mut generator, clients.established, CONNECTIONS, None)?;
        balancer.establish(&mut generator, clients.replied_to, REPLIED_TO, first)?;
    }
    balancer.forget_half_open_soon()?;
    let cases = cases::all(&balancer);
    let mut samples = vec![Vec::with_capacity(effort.passes); cases.len()];
    for pass in 0..effort.passes {
        for (case, samples) in cases.iter().zip(&mut samples) {
            let sample = measure(case, &mut balancer, &mut generator, effort, pass)
                .with_context(|| case.name.clone())?;
            samples.push(sample);
            balancer.sweep_half_open()?;
        }
    }
    let figures = cases
        .iter()
        .zip(&samples)
        .map(|(case, samples)| Figure::new(&case.name, samples))
        .collect();
    let program = Program::of(&balancer.program_info()?);
    Ok(Report::new(machine, effort, program, figures))
}

/// One in so many new flows may go untracked.
const MOST_UNTRACKED: u64 = 10_000;

/// Nanoseconds a packet.
#[derive(Clone, Copy, Debug)]
struct Sample {
    generator: f64,
    /// Generator and program.
    both: f64,
}

fn measure(
    case: &Case,
    balancer: &mut Balancer,
    generator: &mut Generator,
    effort: Effort,
    pass: usize,
) -> anyhow::Result<Sample> {
    let (flows, packets) = match case.flows {
        Packets::Established(flows) => (flows, effort.packets),
        Packets::New => (
            Flows::From(pass as u32 * effort.new_flows),
            effort.new_flows,
        ),
    };
    generator.test_floor(NOTHING)?;
    let alone = generator.run(&case.template, flows, packets)?;
    match case.subject {
        Subject::Floor(name) => generator.test_floor(name)?,
        Subject::Balancer => generator.test(&balancer.program()?)?,
    }
    if let Packets::Established(flows) = case.flows {
        // Fills the caches.
        generator.run(&case.template, flows, packets / 10)?;
    }
    let before = balancer.counts()?;
    let both = generator.run(&case.template, flows, packets)?;
    check(case, packets, before, balancer.counts()?, &both)?;
    let each = |run: &Run| run.time.as_secs_f64() * 1e9 / f64::from(packets);
    Ok(Sample {
        generator: each(&alone),
        both: each(&both),
    })
}

/// Whether the program did with every packet what it was to do.
fn check(
    case: &Case,
    packets: u32,
    before: Counts,
    after: Counts,
    run: &Run,
) -> anyhow::Result<()> {
    ensure!(
        run.verdict == case.verdict,
        "the last packet's verdict was {}, not {}",
        run.verdict,
        case.verdict
    );
    let expected = before.after(packets, case.counts);
    let after = match case.flows {
        Packets::Established(_) => after,
        // New records give way to newer ones, and expire while they are counted. A few of
        // millions find eight established ones in their place.
        Packets::New => {
            let untracked = after.untracked - before.untracked;
            ensure!(
                untracked * MOST_UNTRACKED <= u64::from(packets),
                "{untracked} of {packets} new flows found no place"
            );
            Counts {
                untracked: before.untracked,
                records: before.records,
                ..after
            }
        }
    };
    ensure!(
        after == expected,
        "{packets} packets were counted as {after:?} instead of {expected:?}"
    );
    ensure!(
        checksums_hold(&run.frame),
        "the last packet has a wrong checksum: {:02x?}",
        run.frame
    );
    if case.subject == Subject::Balancer && case.verdict == TX {
        ensure!(
            !run.frame.starts_with(&[2, 0, 0, 0, 0, 1]),
            "the last packet has its old Ethernet address"
        );
    }
    Ok(())
}
