use std::{thread, time::Duration};

use anyhow::Result;

use super::{CONNECTIONS, exact_share, failed, slots_before_and_after};
use crate::demo::{
    report::Report,
    stage::{Stage, WEIGHTS},
};

const BACKEND: &str = "backend-1";
const NEW_WEIGHT: u64 = 4;

/// A weight is changed, and changed back, under load.
pub(in crate::demo) fn weight(stage: &Stage, report: &mut Report) -> Result<()> {
    report.act("A weight is changed under load");
    report.progress(format!("wrk: {CONNECTIONS} kept-alive connections for 2 s"));
    let load = stage.load(CONNECTIONS, 2)?;
    thread::sleep(Duration::from_millis(700));
    let before = stage.backend_list()?;
    report.paragraph(stage.set_weight(BACKEND, NEW_WEIGHT)?);
    let after = stage.backend_list()?;
    let outcome = load.finish()?;
    report.paragraph(slots_before_and_after(&before, &after));

    let slots = after.iter().map(|backend| backend.slots).sum();
    let off = after
        .iter()
        .map(|b| (b.slots as f64 - exact_share(b.weight, &after, slots)).abs())
        .fold(0.0, f64::max);
    report.claim(
        "new slots are within 1 of their exact share",
        format!("at most {off:.2} off"),
        off < 1.0,
    );
    report.claim(
        "no request fails",
        failed(&outcome),
        outcome.errors.all() == 0,
    );
    report.paragraph(stage.set_weight(BACKEND, WEIGHTS[0])?);
    Ok(())
}
