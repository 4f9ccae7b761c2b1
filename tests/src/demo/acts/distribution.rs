use anyhow::{Context, Result};

use super::exact_share;
use crate::{
    demo::{
        report::Report,
        stage::Stage,
        table::{Table, count},
    },
    lab::output,
    web::http,
};

const CONNECTIONS: u32 = 10_000;
/// A backend's connections may be so far from its exact share, in percent. For the smallest share,
/// an eighth, the standard deviation of a fair draw is 2.6 %.
const TOLERANCE: f64 = 12.0;

/// Where slots and connections are, beside where they should be.
pub(in crate::demo) fn distribution(stage: &Stage, report: &mut Report) -> Result<()> {
    report.act("Distribution by weight, 1:1:2:4");
    let mut curls = Vec::new();
    for vip in [stage.vip(), stage.vip6()] {
        let url = format!("http://{vip}/");
        let mut curl = stage.client().netns().command("curl");
        let answer = output(curl.args(["-sSf", "--max-time", "5", &url]))
            .context("a request through the balancer fails")?;
        curls.push(format!("$ curl -sSf {url}\n{}", answer.trim_end()));
    }
    report.paragraph(curls.join("\n"));
    report.progress(format!(
        "opening {} connections to {}, one request each",
        count(CONNECTIONS.into()),
        stage.vip()
    ));
    let spread = http::spread(stage.client(), stage.vip(), CONNECTIONS);

    let backends = stage.backend_list()?;
    let slots = backends.iter().map(|backend| backend.slots).sum();
    let mut table = Table::new(&[
        "BACKEND",
        ">WEIGHT",
        ">SLOTS",
        ">EXACT SHARE",
        ">CONNECTIONS",
        ">EXACT SHARE",
        ">DEVIATION",
    ]);
    let (mut off_by_slots, mut off_by_percent) = (0.0_f64, 0.0_f64);
    for backend in &backends {
        let connections = spread.by_server.get(&backend.name).copied().unwrap_or(0);
        let exact_slots = exact_share(backend.weight, &backends, slots);
        let exact_connections = exact_share(backend.weight, &backends, CONNECTIONS.into());
        let deviation = (connections as f64 / exact_connections - 1.0) * 100.0;
        off_by_slots = off_by_slots.max((backend.slots as f64 - exact_slots).abs());
        off_by_percent = off_by_percent.max(deviation.abs());
        table.row([
            backend.name.clone(),
            backend.weight.to_string(),
            count(backend.slots),
            format!("{exact_slots:.2}"),
            count(connections),
            format!("{exact_connections:.0}"),
            format!("{deviation:+.1} %"),
        ]);
    }
    report.paragraph(table);
    if let Some(first) = spread.failures.first() {
        report.paragraph(format!("The first failure: {first}"));
    }
    report.claim(
        "slots are within 1 of their exact share",
        format!("at most {off_by_slots:.2} off"),
        off_by_slots < 1.0,
    );
    report.claim(
        format!("connections are within {TOLERANCE:.0} % of their share"),
        format!("at most {off_by_percent:.1} % off"),
        off_by_percent <= TOLERANCE,
    );
    report.claim(
        format!("{} connections, none fails", count(CONNECTIONS.into())),
        format!("{} failed", spread.failures.len()),
        spread.failures.is_empty(),
    );
    Ok(())
}
