//! What a packet executes on its way, counted.
//!
//! An interpreter runs the instructions of the object on one packet, over copies of the maps of a
//! loaded balancer; then the kernel runs the loaded program on the same packet. Verdict, packet and
//! all map values that the program has asked for must be the same in the end, or there are no
//! figures. Of several packets of a path the one counts that takes the fewest instructions.
//!
//! Instructions are those of the object, as the compiler left them. The verifier makes more of some:
//! an inline lookup is six to eight of them instead of one call, a tail call some ten; and it removes
//! jumps whose conditions are constants of the loader's.

mod arithmetic;
mod cases;
mod host;
mod instruction;
mod interpreter;
mod kernel;
mod maps;
mod memory;
mod object;

use self::host::Counts;
use super::{
    machine,
    section::{Better, Figure, Section},
};

/// Counts every path.
///
/// # Errors
///
/// As [`super::run`]; or the kernel does something else than the interpreter.
pub(super) fn run() -> anyhow::Result<Section> {
    let counted = machine::on_one_cpu(cases::count_all)?;
    Ok(Section {
        name: "paths".to_owned(),
        title: "What a packet executes".to_owned(),
        method:
            "The object's instructions, interpreted; verdict, packet and map values are what the \
                 kernel comes to.\n\
                 Inline are lookups that the verifier makes instructions of; calls are of helpers and of functions. What is not \
                 listed is zero."
                .to_owned(),
        reference: None,
        figures: counted
            .iter()
            .flat_map(|(path, counts)| figures(path, counts))
            .collect(),
    })
}

/// One for each count that is not zero.
fn figures(path: &str, counts: &Counts) -> Vec<Figure> {
    let figure = |name: String, unit: &str, value: u64| {
        let value = (value != 0).then_some(value as f64)?;
        Some(Figure::median(name, unit, Better::Lower, &[value]))
    };
    let lookups = counts.inline_lookups.values().sum();
    let calls = counts
        .calls
        .iter()
        .map(|(helper, &calls)| figure(format!("{path}: bpf_{helper}"), "calls", calls));
    [
        figure(path.to_owned(), "instructions", counts.instructions),
        figure(format!("{path}: inline lookups"), "lookups", lookups),
        figure(format!("{path}: functions"), "calls", counts.functions),
        figure(format!("{path}: tail calls"), "calls", counts.tail_calls),
    ]
    .into_iter()
    .chain(calls)
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_a_figure_of_each_count_that_is_not_zero() {
        let counts = Counts {
            instructions: 100,
            inline_lookups: [("A".to_owned(), 1), ("B".to_owned(), 2)].into(),
            calls: [("map_lookup_elem".to_owned(), 4)].into(),
            functions: 5,
            tail_calls: 0,
        };
        let figures = figures("hit", &counts);
        let figures: Vec<_> = figures.iter().map(|it| (&*it.name, it.value)).collect();
        let expected = [
            ("hit", 100.0),
            ("hit: inline lookups", 3.0),
            ("hit: functions", 5.0),
            ("hit: bpf_map_lookup_elem", 4.0),
        ];
        assert_eq!(figures, expected);
    }
}
