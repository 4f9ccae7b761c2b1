use std::path::Path;

use crate::{
    api::{Changed, Detached, Reloaded, Saved},
    cli::humane::plural,
};

pub(in crate::cli) fn changed(changed: &Changed) -> String {
    change_lines(&changed.changes, true)
}

pub(in crate::cli) fn reloaded(reloaded: &Reloaded) -> String {
    let mut text = change_lines(&reloaded.changes, reloaded.restart.is_empty());
    for line in &reloaded.restart {
        text += &format!("needs a restart of lbd: {line}\n");
    }
    text
}

pub(in crate::cli) fn saved(saved: &Saved) -> String {
    format!("{}\n", saved.file.display())
}

/// `pins`: where `lbctl` itself has looked for them.
pub(in crate::cli) fn detached(detached: &Detached, pins: Option<&Path>) -> String {
    if detached.interfaces.is_empty() && detached.maps == 0 {
        return match pins {
            Some(pins) => format!("nothing is attached: no pins below {}\n", pins.display()),
            None => "nothing was attached\n".to_owned(),
        };
    }
    let mut text: String = detached
        .interfaces
        .iter()
        .map(|name| format!("program of interface {name} detached\n"))
        .collect();
    text += &format!("{} removed\n", plural(detached.maps as u64, "map"));
    text
}

fn change_lines(changes: &[String], say_when_none: bool) -> String {
    if changes.is_empty() && say_when_none {
        return "nothing changed\n".to_owned();
    }
    lines(changes)
}

fn lines(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}
