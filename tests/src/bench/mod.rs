//! The benchmark: parts that each measure one thing side by side, and what comes of them.
//!
//! A part is a module with a function that gives a [`Section`]; [`Part`] is the list of them.
//! Figures of a part are compared with one figure of the same run, the section's reference, so that
//! what one machine has measured can be held against what another one has.

mod machine;
mod program;
mod report;
pub mod section;

use anyhow::Context as _;
use clap::ValueEnum;

use self::{machine::Machine, section::Section};
pub use self::{machine::pin, report::Report};

/// What is measured, in the order of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// What the XDP program costs per packet.
    Program,
}

impl Part {
    /// Measures this part. Each finds the process as it was started: what it needs, such as a CPU of
    /// its own, it takes for itself and gives back.
    fn run(self, effort: Effort) -> anyhow::Result<Section> {
        let run = match self {
            Self::Program => program::run,
        };
        run(effort).with_context(|| format!("part {self:?}").to_lowercase())
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
    let parts = if parts.is_empty() {
        Part::value_variants()
    } else {
        parts
    };
    let sections = parts.iter().map(|part| part.run(effort));
    Ok(Report {
        machine: Machine::of_this()?,
        sections: sections.collect::<Result<_, _>>()?,
        programs: program::sizes()?,
    })
}
