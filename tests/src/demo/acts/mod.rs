//! One file for each act.

mod distribution;
mod failure;
mod price;
mod restart;
mod set_up;
mod weight;

pub(super) use distribution::distribution;
pub(super) use failure::failure;
pub(super) use price::price;
pub(super) use restart::restart;
pub(super) use set_up::set_up;
pub(super) use weight::weight;

use super::{
    table::{Table, count},
    view::Backend,
};
use crate::web::wrk::Outcome;

/// wrk's connections in the acts that want to see errors rather than speed.
const CONNECTIONS: u32 = 64;

/// The slots that a backend of some weight should have, to the fraction.
fn exact_share(weight: u64, backends: &[Backend], slots: u64) -> f64 {
    let weights: u64 = backends.iter().map(|backend| backend.weight).sum();
    slots as f64 * weight as f64 / weights as f64
}

/// Slots at two times, side by side.
fn slots_before_and_after(before: &[Backend], after: &[Backend]) -> Table {
    let mut table = Table::new(&[
        "BACKEND",
        ">WEIGHT",
        ">SLOTS BEFORE",
        "",
        ">WEIGHT",
        ">AFTER",
        "HEALTH",
    ]);
    for (before, after) in before.iter().zip(after) {
        table.row([
            after.name.clone(),
            before.weight.to_string(),
            count(before.slots),
            "->".to_owned(),
            after.weight.to_string(),
            count(after.slots),
            after.health.clone(),
        ]);
    }
    table
}

/// What went wrong in a load, in words.
fn failed(outcome: &Outcome) -> String {
    format!(
        "{} of {} requests failed",
        count(outcome.errors.all()),
        count(outcome.requests + outcome.errors.all() - outcome.errors.status),
    )
}
