//! The benchmark: parts that each measure one thing side by side, and what comes of them.
//!
//! A part is a module with a function that gives a [`Section`]; [`Part`] is the list of them.
//! Figures of a part are compared with one figure of the same run, the section's reference, so that
//! what one machine has measured can be held against what another one has.

mod compare;
mod control;
mod end_to_end;
mod machine;
mod paths;
mod program;
mod report;
pub mod section;
mod wire;

use anyhow::Context as _;
use clap::ValueEnum;

pub use self::{compare::Comparison, machine::pin, report::Report};
use self::{machine::Machine, program::size::ProgramSize, section::Section};

/// What is measured, in the order of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// What the XDP program costs per packet.
    Program,
    /// What a packet executes: instructions, map lookups, calls.
    Paths,
    /// What a packet costs from one interface to another.
    Wire,
    /// Whole requests, beside what else they could go through.
    EndToEnd,
    /// What the control plane takes: tables, plans, restarts, a million flows, memory.
    Control,
}

impl Part {
    /// As on the command line.
    fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Measures this part. Each finds the process as it was started: what it needs, such as a CPU of
    /// its own, it takes for itself and gives back. `programs` is for how large those are.
    fn run(self, effort: Effort, programs: &mut Vec<ProgramSize>) -> anyhow::Result<Section> {
        match self {
            Self::Program => {
                let (section, sizes) = program::run(effort)?;
                *programs = sizes;
                Ok(section)
            }
            Self::Paths => paths::run(),
            Self::Wire => wire::run(effort),
            Self::EndToEnd => end_to_end::run(effort),
            Self::Control => control::run(effort),
        }
    }
}

/// How long to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// Whether it works, and roughly how fast: seconds.
    Quick,
    /// Figures to keep: minutes.
    Full,
}

/// Measures these parts, or all if there are none.
///
/// # Errors
///
/// Not root, no BPF file system at `/sys/fs/bpf`, a program that the kernel refuses; or a run that
/// did not do what it was to do, and then there are no figures at all.
pub fn run(parts: &[Part], effort: Effort) -> anyhow::Result<Report> {
    let wanted = |part: &&Part| parts.is_empty() || parts.contains(part);
    let mut programs = Vec::new();
    let mut sections = Vec::new();
    for part in Part::value_variants().iter().filter(wanted) {
        let section = part
            .run(effort, &mut programs)
            .with_context(|| format!("part {}", part.name()))?;
        sections.push(section);
    }
    Ok(Report {
        machine: Machine::of_this()?,
        sections,
        programs,
    })
}
