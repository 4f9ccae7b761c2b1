use std::{collections::BTreeMap, thread, time::Duration};

use anyhow::{Context, Result};

use super::{CONNECTIONS, failed, slots_before_and_after};
use crate::{
    demo::{
        report::Report,
        stage::{PROBE_INTERVAL, SERVICE, Stage},
        table::{Table, count},
        view::{self, Backend},
    },
    web::{
        http::{self, Asked},
        wrk::Outcome,
    },
};

/// The backend that is killed: `backend-3`, a quarter of the weight.
const VICTIM: usize = 2;
/// `fall` probes an interval apart, each interval a tenth longer at most; then the same again for
/// a machine that is at its limit.
const FOUND_WITHIN: Duration = Duration::from_millis(1_500);
/// Connections that wait without a word meanwhile.
const IDLE: usize = 400;

/// A backend is killed under load and found down; it comes back.
pub(in crate::demo) fn failure(stage: &mut Stage, report: &mut Report) -> Result<()> {
    let name = stage.lab.backends()[VICTIM].name().to_owned();
    report.act(&format!("{name} is killed under load, and comes back"));
    let checksum_before = stage.checksum()?;

    report.progress(format!(
        "opening {IDLE} connections that wait, and wrk: {CONNECTIONS} kept-alive for 4 s"
    ));
    let mut held = http::hold(stage.client(), stage.vip(), IDLE)
        .context("cannot open the connections that are to wait")?;
    let waiting = view::established(&stage.lbd, SERVICE, &name)?;
    let load = stage.load(CONNECTIONS, 4)?;
    thread::sleep(Duration::from_secs(1));
    let before = stage.backend_list()?;
    let busy = view::established(&stage.lbd, SERVICE, &name)?.saturating_sub(waiting);
    report.progress(format!(
        "kill -9 of nginx on {name}, which has {busy} connections of wrk and {waiting} that wait"
    ));
    stage.backends[VICTIM].kill9()?;
    let found = stage.await_health(&name, "down")?;
    let after = stage.backend_list()?;
    report.progress(format!("found down: {}", after[VICTIM].reason));
    let during = load.finish()?;
    let held = held.ask_again();

    report.progress(format!(
        "wrk again for 3 s; nginx on {name} is started after 1 s"
    ));
    let load = stage.load(CONNECTIONS, 3)?;
    thread::sleep(Duration::from_secs(1));
    stage.backends[VICTIM].start_again()?;
    let returned = stage.await_health(&name, "up")?;
    report.progress("found up");
    let afterwards = load.finish()?;
    let checksum_after = stage.checksum()?;

    report.paragraph(slots_before_and_after(&before, &after));
    report.paragraph(noticed(&during, &afterwards));
    report.paragraph(format!(
        "  wrk counts an error for each connection that breaks, and one for each attempt to open\n  \
         another that meets {name} before it is found down, and is refused there."
    ));
    report.paragraph(waited(&held));
    let same = checksum_before == checksum_after;
    let mut table = Table::new(&["", "CHECKSUM OF THE SLOT TABLE"]);
    table.row(["before".to_owned(), checksum_before]);
    table.row([format!("{name} is back"), checksum_after]);
    report.paragraph(table);

    report.claim(
        format!("found down (3 probes, {PROBE_INTERVAL} apart)"),
        format!("after {} ms", found.as_millis()),
        found <= FOUND_WITHIN,
    );
    let taken = gained(&before, &after);
    report.claim(
        "its slots went to the others",
        format!("{} of {}", count(taken), count(before[VICTIM].slots)),
        after[VICTIM].slots == 0 && taken == before[VICTIM].slots,
    );
    let (others, go_on) = held
        .iter()
        .filter(|(server, _)| **server != name)
        .fold((0, 0), |(all, same), (_, asked)| {
            (all + asked.connections, same + asked.same)
        });
    report.claim(
        "waiting connections to the others go on",
        format!("{go_on} of {others}"),
        go_on == others,
    );
    let errors = during.errors.all();
    let refused = errors.saturating_sub(busy);
    report.claim(
        "only its own and refused connections fail",
        format!("{busy} broken, {refused} refused"),
        // Of n attempts to come back a quarter is refused, of those a quarter again: a third of n
        // in all, give or take the luck of small numbers.
        errors >= busy && refused <= busy + 8,
    );
    report.claim(
        "once it is found down, and when it returns, none fails",
        failed(&afterwards),
        afterwards.errors.all() == 0,
    );
    report.claim(
        "found up again (2 probes)",
        format!("after {} ms", returned.as_millis()),
        returned <= FOUND_WITHIN,
    );
    report.claim(
        "the slot table is the same as before",
        if same {
            "the same checksum"
        } else {
            "another checksum"
        },
        same,
    );
    Ok(())
}

/// What wrk counted.
fn noticed(during: &Outcome, afterwards: &Outcome) -> Table {
    let mut table = Table::new(&[
        "WRK",
        ">REQUESTS",
        ">CONNECT ERRORS",
        ">READ",
        ">WRITE",
        ">TIMEOUT",
        ">STATUS >= 400",
    ]);
    for (when, outcome) in [("killed", during), ("found down, and back", afterwards)] {
        let errors = outcome.errors;
        table.row([
            when.to_owned(),
            count(outcome.requests),
            errors.connect.to_string(),
            errors.read.to_string(),
            errors.write.to_string(),
            errors.timeout.to_string(),
            errors.status.to_string(),
        ]);
    }
    table
}

/// What became of the connections that waited.
fn waited(held: &BTreeMap<String, Asked>) -> Table {
    let mut table = Table::new(&["CONNECTIONS THAT WAITED", ">OPENED", ">STILL WORK"]);
    for (server, asked) in held {
        table.row([
            server.clone(),
            asked.connections.to_string(),
            asked.same.to_string(),
        ]);
    }
    table
}

/// Slots that backends have won.
fn gained(before: &[Backend], after: &[Backend]) -> u64 {
    before
        .iter()
        .zip(after)
        .map(|(before, after)| after.slots.saturating_sub(before.slots))
        .sum()
}
