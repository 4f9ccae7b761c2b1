//! What a packet executes on its way, counted.
//!
//! An interpreter runs the instructions of the object on one packet, over copies of the maps of a
//! loaded balancer; then the kernel runs the loaded program on the same packet. Verdict, packet and
//! all map values that the program has asked for must be the same in the end, or there are no
//! figures.
//!
//! Instructions are those of the object, as the compiler left them. The verifier makes more of some:
//! an inline lookup is some six of them instead of one call, a tail call some ten; and it removes
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
                 Inline are lookups that the verifier makes instructions of; calls are of helpers."
                .to_owned(),
        reference: None,
        figures: counted
            .iter()
            .flat_map(|(path, counts)| figures(path, counts))
            .collect(),
    })
}

fn figures(path: &str, counts: &Counts) -> Vec<Figure> {
    let figure = |name: String, unit: &str, value: u64| {
        Figure::median(name, unit, Better::Lower, &[value as f64])
    };
    let lookups = counts.inline_lookups.values().sum();
    let mut figures = vec![
        figure(path.to_owned(), "instructions", counts.instructions),
        figure(format!("{path}: inline lookups"), "lookups", lookups),
        figure(
            format!("{path}: calls"),
            "calls",
            counts.calls.values().sum(),
        ),
    ];
    for (helper, &calls) in &counts.calls {
        figures.push(figure(format!("{path}: bpf_{helper}"), "calls", calls));
    }
    let tail_calls = format!("{path}: tail calls");
    figures.push(figure(tail_calls, "tail calls", counts.tail_calls));
    figures
}
