//! What a packet costs on the wire: in at an interface, through the attached program, and out.
//!
//! ```text
//!   client eth0 ── eth0 lb eth1 ── eth0 backend        three namespaces, two veth pairs
//! ```
//!
//! The generator's frames are made in the client's namespace and sent as XDP frames (live frames of
//! `BPF_PROG_TEST_RUN`), so that the balancer's interface gets what a network driver gives to XDP
//! and not a socket buffer that is first turned into that. The program under test is attached there
//! in native mode. A program that counts and drops is the sink: at the client, where the program
//! answers by `XDP_TX`, or at the backend, where it redirects. All of it happens on one CPU, between
//! one batch of new frames and the next: the time for a frame, less the time for one that is made
//! and dropped before it leaves, is what it costs from the client's interface to the sink.

mod cases;
mod rig;

use anyhow::{Context as _, ensure};

use self::{
    cases::{Case, REFERENCE},
    rig::Rig,
};
use super::{
    Effort, machine,
    section::{Better, Figure, Section, median},
};

/// Packets of one system call: few enough that most calls are not interrupted.
const SLICE: u32 = 50_000;
/// Times that a pass is measured before a lost packet is the end.
const ATTEMPTS: usize = 3;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
struct Amount {
    /// Times that every case is measured.
    passes: usize,
    /// Of [`SLICE`] packets each, in a pass.
    slices: u32,
}

impl Amount {
    fn of(effort: Effort) -> Self {
        match effort {
            Effort::Full => Self {
                passes: 5,
                slices: 20,
            },
            Effort::Quick => Self {
                passes: 3,
                slices: 3,
            },
        }
    }
}

/// Measures all cases in turn, as often as there are passes.
///
/// # Errors
///
/// Not root; a kernel without live frames, or whose veth has no native XDP; or a run that lost
/// packets, or did not do with them what it was to do.
pub(super) fn run(effort: Effort) -> anyhow::Result<Section> {
    let Amount { passes, slices } = Amount::of(effort);
    let (figures, place) = machine::in_a_quiet_place(|place| {
        let figures = figures(Amount { passes, slices })?;
        Ok((figures, place))
    })?;
    Ok(Section {
        name: "wire".to_owned(),
        title: "What a packet costs on the wire".to_owned(),
        method: format!(
            "From one veth pair through the program in native mode, and out of the same pair (two \
             arms: of another one) to a program that\ncounts, {place}: {passes} passes of {} XDP \
             frames of 64 bytes (IPv6: 80), of which none was lost.\nThe generator's cost is \
             subtracted.",
            slices * SLICE
        ),
        reference: Some(REFERENCE.to_owned()),
        figures,
    })
}

fn figures(amount: Amount) -> anyhow::Result<Vec<Figure>> {
    let services = cases::services();
    let cases = cases::all(&services);
    let mut rig = Rig::new(services.into_iter().map(|(_, service)| service).collect())?;
    let mut making = Vec::new();
    let mut samples = vec![Vec::with_capacity(amount.passes); cases.len()];
    for _ in 0..amount.passes {
        for (case, samples) in cases.iter().zip(&mut samples) {
            let sample = measure(&mut rig, case, amount.slices);
            let Sample { made, sent } = sample.with_context(|| case.name.clone())?;
            samples.push(sent - made);
            making.push(made);
        }
    }
    let ns = |name: &str, samples: &[f64]| Figure::median(name, "ns", Better::Lower, samples);
    let figures = cases.iter().zip(&samples).map(|(case, samples)| Figure {
        goal: case.goal,
        ..ns(&case.name, samples)
    });
    let mut figures: Vec<_> = figures.collect();
    let reference = figures.iter().find(|figure| figure.name == REFERENCE);
    let reference = reference.context("no reference")?.value;
    for figure in &mut figures {
        figure.ratio = Some(figure.value / reference);
    }
    figures.push(ns("making a frame (subtracted)", &making));
    Ok(figures)
}

/// Nanoseconds a frame.
struct Sample {
    /// That is made and dropped.
    made: f64,
    /// That is made and sent.
    sent: f64,
}

fn measure(rig: &mut Rig, case: &Case, slices: u32) -> anyhow::Result<Sample> {
    rig.take(case)?;
    let made = rig.make(case, slices)?;
    for attempt in 1.. {
        let before = rig.counts()?;
        let sent = rig.send(case, slices)?;
        let packets = slices * SLICE;
        let after = rig.counts()?;
        let expected = before.after(case, packets);
        if after == expected {
            return Ok(Sample {
                made: typical(made),
                sent: typical(sent),
            });
        }
        ensure!(
            attempt < ATTEMPTS && after.arrived < expected.arrived,
            "{packets} packets were counted as {after:?} instead of {expected:?}"
        );
    }
    unreachable!("every attempt ends or is followed by another one")
}

/// The median slice's: what interrupts some of them does not count.
fn typical(mut slices: Vec<f64>) -> f64 {
    slices.sort_by(f64::total_cmp);
    median(&slices)
}
