//! What the program costs per packet, by the prelude method.
//!
//! `BPF_PROG_TEST_RUN` gives a small program a packet, a million times over. That program (the
//! [`generator`]) writes the packet anew each time, makes it one of many flows', and tail-calls
//! the program under test. The same with a program that does nothing is what the generator
//! costs, and is subtracted. Every run checks itself: verdict, checksums of the last packet, and
//! that the balancer's own counters have moved by exactly the packets of the run.

pub(super) mod balancer;
pub(super) mod cases;
mod dispatcher;
pub(super) mod frame;
pub(super) mod generator;
pub(super) mod handshake;
mod measure;
mod memory;
mod phases;
pub(super) mod service;
pub(super) mod size;

use self::{
    cases::{Case, REFERENCE},
    generator::Generator,
    measure::Sample,
    memory::Chain,
    phases::Measured,
    size::ProgramSize,
};
use super::{
    Effort, machine,
    section::{Better, Figure, Section},
};

/// How much is measured.
#[derive(Clone, Copy, Debug)]
struct Amount {
    /// Times that every case is measured.
    passes: usize,
    /// Packets of a pass.
    packets: u32,
    /// Connections that are opened in a pass of each case that opens any.
    new_flows: u32,
    /// Numbers of services that connections are spread over, from few to many.
    services: &'static [u16],
}

impl Amount {
    fn of(effort: Effort) -> Self {
        match effort {
            Effort::Full => Self {
                passes: 5,
                packets: 2_000_000,
                new_flows: 50_000,
                services: &[1, 100, 1_000],
            },
            Effort::Quick => Self {
                passes: 3,
                packets: 100_000,
                new_flows: 10_000,
                services: &[1, 100],
            },
        }
    }
}

/// Measures every case; and says how large the programs are.
///
/// # Errors
///
/// As [`super::run`].
pub(super) fn run(effort: Effort) -> anyhow::Result<(Section, Vec<ProgramSize>)> {
    let amount = Amount::of(effort);
    machine::in_a_quiet_place(|place| {
        let Amount {
            passes, packets, ..
        } = amount;
        let (figures, sizes) = figures(amount)?;
        let section = Section {
            name: "program".to_owned(),
            title: "What the XDP program costs per packet".to_owned(),
            method: format!(
                "BPF_PROG_TEST_RUN {place}: {passes} passes of {packets} packets of 64 bytes \
                 (IPv6: 80).\n\
                 The generator's cost is subtracted; the ratio is that of the costs with it."
            ),
            reference: Some(REFERENCE.to_owned()),
            figures,
        };
        Ok((section, sizes))
    })
}

fn figures(amount: Amount) -> anyhow::Result<(Vec<Figure>, Vec<ProgramSize>)> {
    let mut generator = Generator::load()?;
    let chain = Chain::new();
    let mut memory = vec![chain.cost()?];
    let (mut measured, sizes) = phases::ordinary(&mut generator, amount)?;
    for phase in PHASES {
        memory.push(chain.cost()?);
        measured.extend(phase(&mut generator, amount)?);
    }
    memory.push(chain.cost()?);
    let memory = Figure::median(memory::name(), "ns", Better::Lower, &memory);
    let figures = with_ratios(&measured).into_iter().chain([memory]);
    Ok((figures.collect(), sizes))
}

/// What comes behind the ordinary phase.
const PHASES: [fn(&mut Generator, Amount) -> anyhow::Result<Measured>; 4] = [
    phases::opening,
    phases::opening_few,
    phases::flood,
    phases::many_services,
];

/// The medians, each with its ratio to the reference's.
fn with_ratios(measured: &[(Case, Vec<Sample>)]) -> Vec<Figure> {
    let gross = |samples: &[Sample]| {
        let passes: Vec<_> = samples.iter().map(|sample| sample.both).collect();
        Figure::median("", "ns", Better::Lower, &passes).value
    };
    let reference = measured
        .iter()
        .find(|(case, _)| case.name == REFERENCE)
        .map(|(_, samples)| gross(samples));
    let figure = |(case, samples): &(Case, Vec<Sample>)| {
        let passes: Vec<_> = samples
            .iter()
            .map(|sample| sample.both - sample.generator)
            .collect();
        Figure {
            ratio: reference.map(|reference| gross(samples) / reference),
            goal: case.goal,
            ..Figure::median(&case.name, "ns", Better::Lower, &passes)
        }
    };
    measured.iter().map(figure).collect()
}
