use std::{thread, time::Duration};

use anyhow::{Context, Result};

use super::{CONNECTIONS, failed};
use crate::{
    demo::{
        report::Report,
        stage::Stage,
        table::{Table, count},
        view::Connections,
    },
    web::http,
};

/// Connections that stay open over the daemon's death, beside those of wrk.
const IDLE: usize = 1_000;
/// Connections that are opened while there is no daemon.
const ORPHANS: u32 = 1_000;

/// The daemon is killed under load and started again.
pub(in crate::demo) fn restart(stage: &mut Stage, report: &mut Report) -> Result<()> {
    report.act("The daemon is killed under load, and started again");
    report.progress(format!(
        "opening {} connections that stay, and wrk: {CONNECTIONS} kept-alive for 8 s",
        count(IDLE as u64)
    ));
    let mut held = http::hold(stage.client(), stage.vip(), IDLE)
        .context("cannot open the connections that are to stay")?;
    let checksum_before = stage.checksum()?;
    let load = stage.load(CONNECTIONS, 8)?;
    thread::sleep(Duration::from_secs(1));
    let before = Connections::count(&stage.lbd)?;
    report.progress("kill -9 of lbd");
    stage.lbd.kill9()?;
    report.progress(format!("opening {ORPHANS} connections without a daemon"));
    let orphans = http::spread(stage.client(), stage.vip(), ORPHANS);
    report.progress("starting lbd again");
    stage.lbd.start_again()?;
    let after = Connections::count(&stage.lbd)?;
    let checksum_after = stage.checksum()?;
    let outcome = load.finish()?;
    report.progress("asking again on the connections that stayed");
    let same: usize = held.ask_again().values().map(|asked| asked.same).sum();

    let same_table = checksum_before == checksum_after;
    let mut table = Table::new(&["", ">ESTABLISHED CONNECTIONS", "CHECKSUM OF THE SLOT TABLE"]);
    for (when, connections, checksum) in [
        ("before", before, &checksum_before),
        ("after", after, &checksum_after),
    ] {
        table.row([
            when.to_owned(),
            count(connections.established),
            checksum.clone(),
        ]);
    }
    report.paragraph(table);

    report.claim(
        "no request fails",
        failed(&outcome),
        outcome.errors.all() == 0,
    );
    report.claim(
        "the open connections stay, each at its backend",
        format!("{} of {}", count(same as u64), count(IDLE as u64)),
        same == IDLE,
    );
    report.claim(
        "new connections go on without a daemon",
        format!(
            "{} of {} failed",
            orphans.failures.len(),
            count(ORPHANS.into())
        ),
        orphans.failures.is_empty(),
    );
    report.claim(
        "the daemon finds its connections again",
        format!(
            "{} before, {} after",
            count(before.established),
            count(after.established)
        ),
        before.established >= IDLE as u64 + u64::from(CONNECTIONS)
            && after.established >= before.established,
    );
    report.claim(
        "the slot table is the same as before",
        if same_table {
            "the same checksum"
        } else {
            "another checksum"
        },
        same_table,
    );
    Ok(())
}
