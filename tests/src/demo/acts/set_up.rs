use std::{env, path::Path};

use anyhow::{Context, Result};

use crate::{
    demo::{
        report::Report,
        stage::{SERVICE, Stage},
        table::count,
        view::{Service, Status},
    },
    lab::{Binaries, Lab},
    web::{haproxy, nginx},
};

/// Network, servers and the balancer.
pub(in crate::demo) fn set_up(report: &mut Report) -> Result<Stage> {
    report.act("The set-up");
    let ours = env::current_exe().context("cannot find the running program")?;
    let binaries = Binaries::inside(ours.parent().unwrap_or(Path::new(".")))?;

    report.progress("making network namespaces: a client, the balancer, four backends");
    let lab = Lab::with("demo", &Stage::topology())?;
    report.progress(format!(
        "starting nginx {} on each backend",
        nginx::version()?
    ));
    let backends = Stage::start_servers(&lab)?;
    report.progress("starting lbd on the balancer");
    let lbd = Stage::start_daemon(&lab, &binaries)?;
    let stage = Stage {
        lbd,
        backends,
        binaries,
        lab,
    };
    stage.await_all_up()?;

    report.paragraph(format!(
        "  client-1 {} -- eth0 lb eth1 -- switch -- backend-1 {}\n\
         {:51}|- backend-2 {}\n\
         {:51}|- backend-3 {}\n\
         {:51}'- backend-4 {}\n\n  \
         Clients ask for http://{}/ and http://{}/.\n  \
         HAProxy {} will stand on lb for comparison.",
        stage.client().ipv4(),
        stage.lab.backends()[0].ipv4(),
        "",
        stage.lab.backends()[1].ipv4(),
        "",
        stage.lab.backends()[2].ipv4(),
        "",
        stage.lab.backends()[3].ipv4(),
        stage.vip(),
        stage.vip6(),
        haproxy::version()?,
    ));
    let status = stage.lbd.lbctl_text(&["status"])?;
    report.paragraph(format!("$ lbctl status\n{status}"));

    let interfaces = Status::now(&stage.lbd)?.interfaces;
    let modes: Vec<_> = interfaces
        .iter()
        .map(|interface| format!("{} {}", interface.name, interface.mode))
        .collect();
    report.claim(
        "XDP is attached in native mode",
        modes.join(", "),
        interfaces.len() == 2 && interfaces.iter().all(|i| i.mode == "native"),
    );
    let table = Service::find(&stage.lbd, SERVICE)?.table;
    report.claim(
        "the slot table has its full size",
        format!("{} slots", count(table.slots)),
        table.slots == 65_537,
    );
    Ok(stage)
}
