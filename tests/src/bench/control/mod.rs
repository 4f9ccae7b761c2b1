//! What the control plane takes: slot tables, plans, a restart, a million flows, memory.
//!
//! All of it is measured as it is used: the engine's own functions, a data plane of the kernel's,
//! and `lbd` itself, in a namespace of its own. Nothing is sent to anybody.

mod daemon;
mod figures;
mod flows;
mod memory;
mod plans;
mod restart;
mod tables;

use anyhow::Context as _;

use self::figures::Figures;
use super::{Effort, section::Section};
use crate::lab::{Lab, Topology};

/// Measures the control plane.
///
/// # Errors
///
/// Not root, no BPF file system at `/sys/fs/bpf`, a program that the kernel refuses, a daemon that
/// does not start; or a run that did not do what it was to do.
pub(super) fn run(effort: Effort) -> anyhow::Result<Section> {
    let topology = Topology {
        clients: 1,
        backends: 1,
        ..Topology::default()
    };
    let lab = Lab::with("control", &topology).context("make a namespace")?;
    let mut figures = Figures::begin(match effort {
        Effort::Quick => 3,
        Effort::Full => 5,
    });
    tables::measure(&mut figures, &lab)?;
    plans::measure(&mut figures, &lab)?;
    restart::measure(&mut figures, &lab)?;
    flows::measure(&mut figures, &lab)?;
    memory::measure_records(&mut figures);
    Ok(Section {
        name: "control".to_owned(),
        title: "What the control plane takes".to_owned(),
        method: "The engine's functions, the kernel's maps and lbd itself, with default settings \
                 unless a name says otherwise. Times are by the clock on the wall; ratios are to a \
                 million SipHashes on the same CPU. MB are 10^6 bytes."
            .to_owned(),
        reference: Some(figures::REFERENCE.to_owned()),
        figures: figures.into_vec(),
    })
}
