//! The figures, for people and for scripts.

use std::fmt;

use aya::programs::ProgramInfo;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::{Effort, Machine, Sample, cases::REFERENCE};

#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub machine: Machine,
    pub passes: usize,
    pub packets_a_pass: u32,
    pub program: Program,
    pub figures: Vec<Figure>,
}

/// The program's size.
#[derive(Clone, Debug, Serialize)]
pub struct Program {
    /// After the verifier, in bytes; an instruction takes eight.
    pub translated_bytes: Option<u32>,
    /// Machine code.
    pub jited_bytes: u32,
    /// Instructions that the verifier has walked, each as often as it came by.
    pub verified_instructions: Option<u32>,
}

impl Program {
    pub(super) fn of(info: &ProgramInfo) -> Self {
        Self {
            translated_bytes: info.size_translated(),
            jited_bytes: info.size_jitted(),
            verified_instructions: info.verified_instruction_count(),
        }
    }
}

/// Cost of one case in nanoseconds a packet, median over the passes.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    pub name: String,
    /// Net of the generator.
    pub ns: f64,
    /// Least and greatest of the passes.
    pub spread_ns: [f64; 2],
    /// With the generator.
    pub gross_ns: f64,
    /// `gross_ns` as a multiple of the reference floor's: of all figures, the one that can be
    /// compared between machines.
    pub of_floor: f64,
}

impl Figure {
    pub(super) fn new(name: &str, samples: &[Sample]) -> Self {
        let net = sorted(samples, |sample| sample.both - sample.generator);
        let gross = sorted(samples, |sample| sample.both);
        Self {
            name: name.to_owned(),
            ns: median(&net),
            spread_ns: [
                net.first().copied().unwrap_or(f64::NAN),
                net.last().copied().unwrap_or(f64::NAN),
            ],
            gross_ns: median(&gross),
            of_floor: f64::NAN,
        }
    }
}

impl Report {
    pub(super) fn new(
        machine: Machine,
        effort: Effort,
        program: Program,
        mut figures: Vec<Figure>,
    ) -> Self {
        let floor = figures
            .iter()
            .find(|figure| figure.name == REFERENCE)
            .map_or(f64::NAN, |figure| figure.gross_ns);
        for figure in &mut figures {
            figure.of_floor = figure.gross_ns / floor;
        }
        Self {
            machine,
            passes: effort.passes,
            packets_a_pass: effort.packets,
            program,
            figures,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine {
            cpu,
            cpus,
            kernel,
            pinned_to,
            realtime,
        } = &self.machine;
        writeln!(f, "{cpu}, {cpus} CPUs, Linux {kernel}")?;
        let priority = if *realtime { "real-time" } else { "ordinary" };
        writeln!(
            f,
            "on CPU {pinned_to} at {priority} priority; {} passes of {} packets; medians; the \
             generator's cost is subtracted",
            self.passes, self.packets_a_pass
        )?;
        let mut table = Table::new();
        table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
        table.set_header(["", "ns", "min – max", "with generator", "× floor"]);
        for figure in &self.figures {
            let [least, most] = figure.spread_ns;
            table.add_row([
                figure.name.clone(),
                format!("{:.1}", figure.ns),
                format!("{least:.1} – {most:.1}"),
                format!("{:.1}", figure.gross_ns),
                format!("{:.2}", figure.of_floor),
            ]);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        writeln!(f, "{table}")?;
        let Program {
            translated_bytes,
            jited_bytes,
            verified_instructions,
        } = self.program;
        let number = |number: Option<u32>| number.map_or("?".to_owned(), |n| n.to_string());
        write!(
            f,
            "program: {} instructions, {jited_bytes} bytes of machine code; the verifier walked \
             {} instructions",
            number(translated_bytes.map(|bytes| bytes / 8)),
            number(verified_instructions),
        )
    }
}

fn sorted(samples: &[Sample], figure: impl Fn(&Sample) -> f64) -> Vec<f64> {
    let mut figures: Vec<_> = samples.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    figures
}

fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    match sorted {
        [] => f64::NAN,
        _ if sorted.len() % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_the_median_net_of_the_generator() {
        let samples = [(10.0, 110.0), (20.0, 25.0), (10.0, 20.0)];
        let samples = samples.map(|(generator, both)| Sample { generator, both });
        let figure = Figure::new("case", &samples);
        assert_eq!(figure.ns, 10.0);
        assert_eq!(figure.spread_ns, [5.0, 100.0]);
        assert_eq!(figure.gross_ns, 25.0);
        assert_eq!(median(&[1.0, 2.0]), 1.5);
    }
}
