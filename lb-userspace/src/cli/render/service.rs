use super::{backend::backend_table, stats::verdict};
use crate::{
    api::{CheckInfo, ReasonInfo, ServiceDetail, ServiceInfo, TimeoutsInfo, Traffic, TunnelInfo},
    cli::{
        humane::{bytes, count, plural},
        table::Table,
    },
};

pub(in crate::cli) fn services(list: &[ServiceInfo]) -> String {
    let mut table = Table::new(&[
        "NAME",
        "LISTEN",
        "PROTOCOL",
        "FORWARDING",
        "SCHEDULER",
        ">HEALTHY",
        ">ACTIVE",
        ">CONNECTIONS",
        ">PACKETS",
        ">BYTES",
        ">DROPS",
        "CHECKSUM",
    ]);
    for service in list {
        let traffic = &service.counters.traffic;
        table.row([
            service.name.to_string(),
            service.listen.to_string(),
            service.protocol.to_string(),
            service.forwarding.to_string(),
            service.scheduler.to_string(),
            format!("{}/{}", service.healthy, service.backends),
            count(service.active_connections),
            count(traffic.connections),
            count(traffic.packets),
            bytes(traffic.bytes),
            count(service.counters.drops),
            service.table.checksum.clone(),
        ]);
    }
    table.to_string()
}

pub(in crate::cli) fn service(detail: &ServiceDetail) -> String {
    let service = &detail.service;
    let mut text = String::new();
    let mut line = |key: &str, value: String| text += &format!("{key:<12} {value}\n");
    line("name", service.name.to_string());
    line(
        "listen",
        format!("{} ({})", service.listen, service.protocol),
    );
    line("forwarding", forwarding(service));
    line("scheduler", service.scheduler.to_string());
    line(
        "policy",
        format!(
            "no backend: {}, on expiry: {}, on backend down: {}",
            service.no_backend, service.on_expiry, service.on_backend_down
        ),
    );
    line("check", check(&detail.check));
    line("timeouts", timeouts(&detail.timeouts));
    let table = &service.table;
    let in_use = if table.checksum == table.base_checksum {
        "every backend usable".to_owned()
    } else {
        format!("base {}", table.base_checksum)
    };
    line(
        "table",
        format!(
            "{} slots, checksum {}, {in_use}",
            table.slots, table.checksum
        ),
    );
    line("connections", {
        let removed = &detail.removed;
        let mut text = format!(
            "{} active, {} since the start",
            count(service.active_connections),
            count(service.counters.traffic.connections)
        );
        if removed.backends > 0 {
            text += &format!(
                "; {} of them on {} that {} removed",
                count(removed.active_connections),
                plural(removed.backends as u64, "backend"),
                if removed.backends == 1 { "was" } else { "were" },
            );
        }
        text
    });
    line("traffic", traffic(&service.counters.traffic));
    line("dropped", plural(service.counters.drops, "packet"));
    line(
        "untracked",
        plural(service.counters.untracked, "connection"),
    );
    text += &format!("\n{}", backend_table(&detail.members, false));
    if !detail.reasons.is_empty() {
        text += &format!("\n{}", reason_table(&detail.reasons));
    }
    text
}

/// The mode with what it needs.
fn forwarding(service: &ServiceInfo) -> String {
    let mut text = service.forwarding.to_string();
    if !service.snat.is_empty() {
        let addresses: Vec<String> = service.snat.iter().map(ToString::to_string).collect();
        text += &format!(" from {}", addresses.join(", "));
    }
    if let Some(TunnelInfo { sources, port }) = &service.tunnel {
        let [ipv4, ipv6] = sources;
        text += &format!(" from {ipv4} and {ipv6}");
        if let Some(port) = port {
            text += &format!(" to UDP port {port}");
        }
    }
    text
}

fn reason_table(reasons: &[ReasonInfo]) -> Table {
    let mut table = Table::new(&["REASON", "VERDICT", ">PACKETS", "DESCRIPTION"]);
    for reason in reasons {
        table.row([
            reason.reason.clone(),
            verdict(reason).to_owned(),
            count(reason.packets),
            reason.description.clone(),
        ]);
    }
    table
}

fn check(check: &CheckInfo) -> String {
    if check.kind == "none" {
        return "none".to_owned();
    }
    let mut text = check.kind.clone();
    if let Some(path) = &check.path {
        text += &format!(" GET {path}");
    }
    if let Some(host) = &check.host {
        text += &format!(" of {host}");
    }
    text += &format!(
        " every {}, timeout {}, up after {}, down after {}",
        check.interval, check.timeout, check.rise, check.fall
    );
    text
}

fn timeouts(timeouts: &TimeoutsInfo) -> String {
    format!(
        "half-open {}, established {}, fin-wait {}, closing {}, time-wait {}, reset {} (profile {})",
        timeouts.half_open,
        timeouts.established,
        timeouts.fin_wait,
        timeouts.closing,
        timeouts.time_wait,
        timeouts.reset,
        timeouts.profile
    )
}

fn traffic(traffic: &Traffic) -> String {
    format!(
        "in {}, {}; out {}, {}",
        plural(traffic.packets_in, "packet"),
        bytes(traffic.bytes_in),
        plural(traffic.packets_out, "packet"),
        bytes(traffic.bytes_out)
    )
}
