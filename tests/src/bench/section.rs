//! Figures as every part of the benchmark gives them.

use serde::{Deserialize, Serialize};

/// One part of a run: figures that were measured side by side.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Section {
    /// As on the command line, such as `wire`.
    pub name: String,
    /// For people.
    pub title: String,
    /// How it was measured, for people, in a line or two.
    pub method: String,
    /// Name of the figure that ratios refer to, if there is one.
    pub reference: Option<String>,
    pub figures: Vec<Figure>,
}

/// A median over the passes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figure {
    pub name: String,
    pub value: f64,
    /// Such as `ns`, `req/s`, `MB`.
    pub unit: String,
    /// Least and greatest of the passes.
    pub spread: [f64; 2],
    /// As a multiple of the reference's of the same run: what can be compared between machines.
    pub ratio: Option<f64>,
    pub better: Better,
    /// What it is meant to be.
    pub goal: Option<Goal>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    Lower,
    Higher,
}

/// A limit for a figure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// For its value.
    Value(f64),
    /// For its ratio.
    Ratio(f64),
}

impl Figure {
    /// The median of some passes, of which there is at least one.
    pub fn median(name: impl Into<String>, unit: &str, better: Better, passes: &[f64]) -> Self {
        let mut sorted = passes.to_vec();
        sorted.sort_by(f64::total_cmp);
        let edge = |value: Option<&f64>| value.copied().unwrap_or(f64::NAN);
        Self {
            name: name.into(),
            value: median(&sorted),
            unit: unit.to_owned(),
            spread: [edge(sorted.first()), edge(sorted.last())],
            ratio: None,
            better,
            goal: None,
        }
    }

    #[must_use]
    pub fn with_goal(self, goal: Goal) -> Self {
        Self {
            goal: Some(goal),
            ..self
        }
    }

    /// Whether the goal is met; `None` without one, or without the ratio that it is for.
    pub fn meets_goal(&self) -> Option<bool> {
        let (figure, limit) = match self.goal? {
            Goal::Value(limit) => (self.value, limit),
            Goal::Ratio(limit) => (self.ratio?, limit),
        };
        Some(match self.better {
            Better::Lower => figure <= limit,
            Better::Higher => figure >= limit,
        })
    }
}

pub(super) fn median(sorted: &[f64]) -> f64 {
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
    fn a_figure_is_the_median_of_its_passes() {
        let figure = Figure::median("case", "ns", Better::Lower, &[100.0, 5.0, 25.0]);
        assert_eq!(figure.value, 25.0);
        assert_eq!(figure.spread, [5.0, 100.0]);
        assert_eq!(median(&[1.0, 2.0]), 1.5);
    }

    #[test]
    fn a_goal_is_for_the_value_or_for_the_ratio() {
        let figure = |better| Figure::median("case", "ns", better, &[10.0]);
        let slow = figure(Better::Lower).with_goal(Goal::Value(9.0));
        assert_eq!(slow.meets_goal(), Some(false));
        let much = figure(Better::Higher).with_goal(Goal::Value(9.0));
        assert_eq!(much.meets_goal(), Some(true));
        let alone = figure(Better::Lower).with_goal(Goal::Ratio(2.0));
        assert_eq!(alone.meets_goal(), None);
        assert_eq!(figure(Better::Lower).meets_goal(), None);
    }
}
