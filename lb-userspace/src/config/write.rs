#[cfg(test)]
mod tests;

use std::fmt::{Display, Write as _};

use ipnet::IpNet;

use super::{Config, ConntrackSettings, IcmpSettings, InterfaceSettings};
use crate::model::{
    Admin, Backend, Check, CheckKind, NoBackend, OnBackendDown, OnExpiry, Service, TableSize,
    TimeoutOverrides, Tunnel, format_duration,
};

/// The file of [`Config::to_toml`].
pub(super) fn to_toml(config: &Config) -> String {
    let mut out = Writer::default();
    out.section("[daemon]");
    out.text("socket", config.daemon.socket.to_string_lossy());
    out.text("state_dir", config.daemon.state_dir.to_string_lossy());
    out.text("bpffs", config.daemon.bpffs.to_string_lossy());
    for interface in &config.interfaces {
        write_interface(interface, &mut out);
    }
    write_conntrack(&config.conntrack, &mut out);
    write_icmp(config.icmp, &mut out);
    for service in &config.desired.services {
        write_service(service, &mut out);
    }
    out.text
}

fn write_interface(interface: &InterfaceSettings, out: &mut Writer) {
    out.section("[[interface]]");
    out.text("name", &interface.name);
    out.text("mode", interface.mode);
}

fn write_conntrack(conntrack: &ConntrackSettings, out: &mut Writer) {
    out.section("[conntrack]");
    out.bare("capacity", grouped(conntrack.capacity));
    out.bare("capacity_ipv6", grouped(conntrack.capacity_ipv6));
    out.text("profile", conntrack.profile);
    if conntrack.flood_limit != ConntrackSettings::DEFAULT_FLOOD_LIMIT {
        out.bare("flood_limit", grouped(conntrack.flood_limit));
    }
}

fn write_icmp(icmp: IcmpSettings, out: &mut Writer) {
    if icmp != IcmpSettings::default() {
        out.section("[icmp]");
        out.text("echo", icmp.echo);
    }
}

fn write_service(service: &Service, out: &mut Writer) {
    out.section("[[service]]");
    out.text("name", &service.name);
    out.text("listen", service.listen);
    out.text("protocol", service.protocol);
    out.text("forwarding", service.forwarding);
    if !service.snat.is_empty() {
        out.list("snat", &service.snat);
    }
    write_tunnel(&service.tunnel, out);
    out.text("scheduler", service.scheduler);
    if service.table_size != TableSize::default() {
        out.bare("table_size", service.table_size.slots());
    }
    if service.no_backend != NoBackend::default() {
        out.text("no_backend", service.no_backend);
    }
    if service.on_expiry != OnExpiry::default() {
        out.text("on_expiry", service.on_expiry);
    }
    if service.on_backend_down != OnBackendDown::default() {
        out.text("on_backend_down", service.on_backend_down);
    }
    if let Some(profile) = service.timeouts.profile {
        out.text("profile", profile);
    }
    write_timeouts(&service.timeouts, out);
    write_check(&service.check, out);
    for backend in &service.backends {
        write_backend(backend, out);
    }
}

fn write_tunnel(tunnel: &Tunnel, out: &mut Writer) {
    let default = Tunnel::default();
    let mut sources: Vec<IpNet> = Vec::new();
    if tunnel.source_ipv4 != default.source_ipv4 {
        sources.push(tunnel.source_ipv4.into());
    }
    if tunnel.source_ipv6 != default.source_ipv6 {
        sources.push(tunnel.source_ipv6.into());
    }
    match sources.as_slice() {
        [] => {}
        [only] => out.text("tunnel_source", only),
        both => out.list("tunnel_source", both),
    }
    if tunnel.port != default.port {
        out.bare("tunnel_port", tunnel.port);
    }
}

fn write_timeouts(timeouts: &TimeoutOverrides, out: &mut Writer) {
    let set: Vec<_> = timeouts
        .by_key()
        .into_iter()
        .filter_map(|(key, timeout)| Some((key, timeout?)))
        .collect();
    if !set.is_empty() {
        out.section("[service.timeouts]");
    }
    for (key, timeout) in set {
        out.text(key, format_duration(timeout));
    }
}

fn write_check(check: &Check, out: &mut Writer) {
    out.section("[service.check]");
    match &check.kind {
        CheckKind::None => out.text("type", "none"),
        CheckKind::Tcp => out.text("type", "tcp"),
        CheckKind::Http { path, host } => {
            out.text("type", "http");
            out.text("path", path);
            if let Some(host) = host {
                out.text("host", host);
            }
        }
    }
    let silent = Check {
        kind: CheckKind::None,
        ..Check::default()
    };
    // Where no probe is made, a reader need not see when.
    if *check != silent {
        out.text("interval", format_duration(check.interval));
        out.text("timeout", format_duration(check.timeout));
        out.bare("rise", check.rise);
        out.bare("fall", check.fall);
    }
}

fn write_backend(backend: &Backend, out: &mut Writer) {
    out.section("[[service.backend]]");
    out.text("name", &backend.name);
    out.text("address", backend.address);
    out.bare("weight", backend.weight);
    if backend.admin != Admin::Enabled {
        out.text("admin", backend.admin);
    }
}

#[derive(Default)]
struct Writer {
    text: String,
}

impl Writer {
    fn section(&mut self, title: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.text.push_str(title);
        self.text.push('\n');
    }

    /// A value that stands in quotes.
    fn text(&mut self, key: &str, value: impl Display) {
        // The crate knows what TOML wants escaped.
        self.bare(key, toml::Value::String(value.to_string()));
    }

    /// A list of values that stand in quotes.
    fn list(&mut self, key: &str, values: &[impl Display]) {
        let values = values
            .iter()
            .map(|value| toml::Value::String(value.to_string()));
        self.bare(key, toml::Value::Array(values.collect()));
    }

    fn bare(&mut self, key: &str, value: impl Display) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "{key} = {value}");
    }
}

/// `1000000` → `1_000_000`.
fn grouped(number: u32) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push('_');
        }
        grouped.push(digit);
    }
    grouped
}
