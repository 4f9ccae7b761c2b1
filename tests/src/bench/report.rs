//! What all parts came to, for people and for scripts.

use std::{fmt, fs, path::Path};

use anyhow::Context as _;
use comfy_table::{CellAlignment, Table, TableComponent, presets};
use serde::{Deserialize, Serialize};

use super::{
    machine::Machine,
    program::size::ProgramSize,
    section::{Better, Figure, Goal, Section},
};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    pub machine: Machine,
    pub sections: Vec<Section>,
    /// Empty if they were not measured.
    pub programs: Vec<ProgramSize>,
}

impl Report {
    /// An earlier run's, from what `--json` has printed.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is something else.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let json =
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&json)
            .with_context(|| format!("{} is no run that --json has printed", path.display()))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { cpu, cpus, kernel } = &self.machine;
        writeln!(f, "{cpu}, {cpus} CPUs, Linux {kernel}")?;
        for section in &self.sections {
            write!(f, "\n{section}")?;
        }
        if self.programs.is_empty() {
            return Ok(());
        }
        write!(f, "\nThe programs\n{}", sizes(&self.programs))
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} ({})", self.title, self.name)?;
        writeln!(f, "{}", self.method)?;
        let ratio = match &self.reference {
            Some(reference) => format!("× {reference}"),
            None => String::new(),
        };
        let mut table = table(["", "median", "min – max", &ratio, "goal"]);
        for figure in &self.figures {
            let [least, most] = figure.spread;
            table.add_row([
                figure.name.clone(),
                format!("{} {}", number(figure.value), figure.unit),
                format!("{} – {}", number(least), number(most)),
                figure
                    .ratio
                    .map_or_else(String::new, |ratio| format!("{ratio:.2}")),
                goal(figure),
            ]);
        }
        align_right(&mut table);
        writeln!(f, "{table}")
    }
}

/// The goal, and whether it is met.
fn goal(figure: &Figure) -> String {
    let relation = match figure.better {
        Better::Lower => '≤',
        Better::Higher => '≥',
    };
    let limit = match figure.goal {
        None => return String::new(),
        Some(Goal::Value(limit)) => format!("{relation} {} {}", number(limit), figure.unit),
        Some(Goal::Ratio(limit)) => format!("{relation} {limit:.2} ×"),
    };
    let mark = match figure.meets_goal() {
        Some(true) => "ok",
        Some(false) => "missed",
        None => "?",
    };
    format!("{limit}  {mark}")
}

/// With as many digits as tell something.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        great if great >= 1000.0 => format!("{value:.0}"),
        small if small < 10.0 && small != 0.0 => format!("{value:.2}"),
        _ => format!("{value:.1}"),
    }
}

fn sizes(programs: &[ProgramSize]) -> Table {
    let mut table = table([
        "",
        "instructions",
        "bytes of machine code",
        "instructions that the verifier walked",
    ]);
    let known = |number: Option<u32>| number.map_or_else(|| "?".to_owned(), |n| n.to_string());
    for program in programs {
        table.add_row([
            program.name.clone(),
            known(program.instructions),
            program.jited_bytes.to_string(),
            known(program.verified_instructions),
        ]);
    }
    align_right(&mut table);
    table
}

pub(super) fn table<const COLUMNS: usize>(header: [&str; COLUMNS]) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::UTF8_HORIZONTAL_ONLY)
        .remove_style(TableComponent::HorizontalLines)
        .remove_style(TableComponent::MiddleIntersections)
        .set_header(header);
    table
}

/// All columns but the first.
pub(super) fn align_right(table: &mut Table) {
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A report of one section with these figures.
    pub(in crate::bench) fn report(part: &str, figures: Vec<Figure>) -> Report {
        Report {
            machine: Machine {
                cpu: "Turing machine".to_owned(),
                cpus: 1,
                kernel: "6.1".to_owned(),
            },
            sections: vec![Section {
                name: part.to_owned(),
                title: "Cost".to_owned(),
                method: "by counting".to_owned(),
                reference: Some("floor".to_owned()),
                figures,
            }],
            programs: Vec::new(),
        }
    }

    #[test]
    fn a_table_says_which_goals_are_met() {
        let figure = |name, value| Figure::median(name, "ns", Better::Lower, &[value]);
        let text = report(
            "program",
            vec![
                figure("hit", 30.0).with_goal(Goal::Value(40.0)),
                figure("miss", 50.0).with_goal(Goal::Value(40.0)),
                figure("other", 5.25),
            ],
        )
        .to_string();
        let line = |name: &str| text.lines().find(|line| line.contains(name)).unwrap();
        assert!(line("hit").contains("≤ 40.0 ns  ok"), "{text}");
        assert!(line("miss").contains("≤ 40.0 ns  missed"), "{text}");
        assert!(line("other").contains("5.25 ns") && !line("other").contains('≤'));
    }

    #[test]
    fn json_is_read_as_it_was_written() {
        let figure = Figure {
            ratio: Some(2.5),
            ..Figure::median("hit", "ns", Better::Lower, &[1.0, 3.0])
        };
        let written = report("program", vec![figure.with_goal(Goal::Ratio(2.0))]);
        let json = serde_json::to_string(&written).unwrap();
        let read: Report = serde_json::from_str(&json).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), json);
    }
}
