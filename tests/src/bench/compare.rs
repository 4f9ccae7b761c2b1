//! Holds a run against an earlier one.

use std::{collections::BTreeSet, fmt};

use super::{
    report::{Report, align_right, number, table},
    section::{Better, Figure, Section},
};

/// What has become of the figures of an earlier run.
#[derive(Debug)]
pub struct Comparison {
    /// Percent.
    tolerance: f64,
    changes: Vec<Change>,
    /// Figures that only the earlier run has, in parts that both have.
    lost: Vec<String>,
    /// Figures that only this run has, in parts that both have.
    new: Vec<String>,
    /// Parts that only one run has.
    other_parts: Vec<String>,
}

/// A figure that both runs have.
#[derive(Debug)]
struct Change {
    /// With its part.
    name: String,
    old: Measure,
    new: Measure,
    better: Better,
}

/// What is compared of a figure.
#[derive(Clone, Debug, PartialEq)]
enum Measure {
    /// As a multiple of the reference of the same run.
    Ratio(f64),
    /// A figure without ratio, and its unit: another machine's says nothing about this one's.
    Value(f64, String),
}

impl Comparison {
    /// `tolerance` says by how many percent a ratio may be worse.
    pub fn new(old: &Report, new: &Report, tolerance: f64) -> Self {
        let mut comparison = Self {
            tolerance,
            changes: Vec::new(),
            lost: Vec::new(),
            new: Vec::new(),
            other_parts: Vec::new(),
        };
        for section in &new.sections {
            match named(&old.sections, &section.name) {
                Some(earlier) => comparison.compare(earlier, section),
                None => comparison.other_parts.push(section.name.clone()),
            }
        }
        let gone = old
            .sections
            .iter()
            .filter(|section| named(&new.sections, &section.name).is_none());
        comparison
            .other_parts
            .extend(gone.map(|section| section.name.clone()));
        comparison
    }

    fn compare(&mut self, old: &Section, new: &Section) {
        let full_name = |figure: &Figure| format!("{}: {}", new.name, figure.name);
        let names = |section: &Section| -> BTreeSet<_> {
            section.figures.iter().map(|it| it.name.clone()).collect()
        };
        let (old_names, new_names) = (names(old), names(new));
        for figure in &new.figures {
            if let Some(earlier) = old.figures.iter().find(|it| it.name == figure.name) {
                self.changes.push(Change {
                    name: full_name(figure),
                    old: Measure::of(earlier),
                    new: Measure::of(figure),
                    better: figure.better,
                });
            }
        }
        let alone = |figures: &[Figure], others: &BTreeSet<String>| -> Vec<_> {
            figures
                .iter()
                .filter(|figure| !others.contains(&figure.name))
                .map(full_name)
                .collect()
        };
        self.lost.extend(alone(&old.figures, &new_names));
        self.new.extend(alone(&new.figures, &old_names));
    }

    /// Whether the runs have no figure in common whose ratio both know.
    pub fn is_empty(&self) -> bool {
        !self.changes.iter().any(Change::is_of_ratios)
    }

    /// What has got worse by more than the tolerance, for people; empty if nothing has.
    pub fn regressions(&self) -> Vec<String> {
        let worse = self
            .changes
            .iter()
            .filter(|change| change.is_worse_than(self.tolerance));
        worse
            .map(|change| format!("{} ({})", change.name, change.percentage()))
            .collect()
    }
}

fn named<'s>(sections: &'s [Section], name: &str) -> Option<&'s Section> {
    sections.iter().find(|section| section.name == name)
}

impl Measure {
    fn of(figure: &Figure) -> Self {
        match figure.ratio {
            Some(ratio) => Self::Ratio(ratio),
            None => Self::Value(figure.value, figure.unit.clone()),
        }
    }
}

impl Change {
    /// How much more the figure is than it was, in percent; `None` if it has lost its ratio, or was
    /// given one, or was zero.
    fn percent(&self) -> Option<f64> {
        let (old, new) = match (&self.old, &self.new) {
            (Measure::Ratio(old), Measure::Ratio(new)) => (*old, *new),
            (Measure::Value(old, unit), Measure::Value(new, same)) if unit == same => (*old, *new),
            _ => return None,
        };
        (old > 0.0).then(|| (new / old - 1.0) * 100.0)
    }

    fn is_of_ratios(&self) -> bool {
        matches!(
            (&self.old, &self.new),
            (Measure::Ratio(_), Measure::Ratio(_))
        )
    }

    /// Whether the ratio is worse by more than so many percent of what it was: twice as slow is
    /// 100 % worse, and so is half as many.
    fn is_worse_than(&self, tolerance: f64) -> bool {
        let (Measure::Ratio(old), Measure::Ratio(new)) = (&self.old, &self.new) else {
            return false;
        };
        let factor = match self.better {
            Better::Lower => new / old,
            Better::Higher => old / new,
        };
        // A ratio that is no number is worse than any.
        factor.is_nan() || factor > 1.0 + tolerance / 100.0
    }

    fn percentage(&self) -> String {
        self.percent()
            .map_or_else(|| "?".to_owned(), |percent| format!("{percent:+.1} %"))
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ratio(ratio) => write!(f, "{ratio:.2} ×"),
            Self::Value(value, unit) => write!(f, "{} {unit}", number(*value)),
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = table(["", "earlier", "now", "change", ""]);
        for change in &self.changes {
            let mark = if !change.is_of_ratios() {
                "not compared"
            } else if change.is_worse_than(self.tolerance) {
                "worse"
            } else {
                ""
            };
            table.add_row([
                change.name.clone(),
                change.old.to_string(),
                change.new.to_string(),
                change.percentage(),
                mark.to_owned(),
            ]);
        }
        align_right(&mut table);
        writeln!(f, "{table}")?;
        for (what, names) in [
            ("only in the earlier run", &self.lost),
            ("only in this run", &self.new),
            ("parts that only one run has", &self.other_parts),
        ] {
            if !names.is_empty() {
                writeln!(f, "{what}: {}", names.join(", "))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::tests::report;

    fn figure(name: &str, value: f64, ratio: Option<f64>, better: Better) -> Figure {
        Figure {
            ratio,
            ..Figure::median(name, "ns", better, &[value])
        }
    }

    fn lower(name: &str, ratio: f64) -> Figure {
        figure(name, 1.0, Some(ratio), Better::Lower)
    }

    #[test]
    fn worse_by_more_than_the_tolerance_is_named() {
        let old = report("program", vec![lower("hit", 2.0), lower("miss", 4.0)]);
        let new = report("program", vec![lower("hit", 2.2), lower("miss", 5.0)]);
        let regressions = Comparison::new(&old, &new, 15.0).regressions();
        assert_eq!(regressions, ["program: miss (+25.0 %)"]);
        assert!(Comparison::new(&old, &new, 30.0).regressions().is_empty());
        assert!(Comparison::new(&new, &old, 15.0).regressions().is_empty());
    }

    #[test]
    fn ratios_count_and_not_values() {
        let slow = figure("hit", 300.0, Some(2.0), Better::Lower);
        let fast = figure("hit", 30.0, Some(2.0), Better::Lower);
        let comparison = Comparison::new(
            &report("program", vec![fast]),
            &report("program", vec![slow]),
            15.0,
        );
        assert!(comparison.regressions().is_empty());
    }

    #[test]
    fn what_has_no_ratio_is_listed_only() {
        let memory = |value| {
            report(
                "program",
                vec![figure("memory", value, None, Better::Lower)],
            )
        };
        let comparison = Comparison::new(&memory(1.0), &memory(9.0), 15.0);
        assert!(comparison.regressions().is_empty() && comparison.is_empty());
        let text = comparison.to_string();
        assert!(
            text.contains("+800.0 %") && text.contains("not compared"),
            "{text}"
        );
    }

    #[test]
    fn more_is_better_where_the_figure_says_so() {
        let rate = |ratio| {
            let rate = figure("rate", 1.0, Some(ratio), Better::Higher);
            report("wire", vec![rate])
        };
        let regressions = |old, new| Comparison::new(&rate(old), &rate(new), 50.0).regressions();
        assert_eq!(regressions(2.0, 1.0), ["wire: rate (-50.0 %)"]);
        assert!(regressions(2.0, 1.5).is_empty());
        assert!(regressions(1.0, 9.0).is_empty());
        assert_eq!(regressions(1.0, f64::NAN).len(), 1);
    }

    #[test]
    fn what_one_run_lacks_is_named() {
        let old = report("program", vec![lower("hit", 2.0), lower("gone", 2.0)]);
        let new = report("program", vec![lower("hit", 2.0), lower("fresh", 2.0)]);
        let text = Comparison::new(&old, &new, 15.0).to_string();
        assert!(
            text.contains("only in the earlier run: program: gone\n"),
            "{text}"
        );
        assert!(
            text.contains("only in this run: program: fresh\n"),
            "{text}"
        );
        let other = report("wire", vec![lower("hit", 2.0)]);
        let text = Comparison::new(&old, &other, 15.0).to_string();
        assert!(
            text.contains("parts that only one run has: wire, program\n"),
            "{text}"
        );
    }
}
