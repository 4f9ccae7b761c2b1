//! The settings of a service as the configuration file calls them: what a change of one is told by.

use std::fmt::Display;

use crate::model::{CheckKind, Service, format_duration};

/// Every setting of a service but its name, its address and its backends: key and value.
pub(super) fn settings(service: &Service) -> Vec<(&'static str, String)> {
    // Destructured, so that a setting added later cannot be forgotten here.
    let Service {
        name: _,
        listen: _,
        protocol,
        forwarding,
        scheduler,
        table_size,
        check,
        timeouts,
        snat,
        tunnel,
        no_backend,
        on_expiry,
        on_backend_down,
        backends: _,
    } = service;
    let profile = timeouts.profile;
    let mut settings = vec![
        ("protocol", protocol.to_string()),
        ("forwarding", forwarding.to_string()),
        ("snat", list(snat)),
        (
            "tunnel_source",
            format!("{}, {}", tunnel.source_ipv4, tunnel.source_ipv6),
        ),
        ("tunnel_port", tunnel.port.to_string()),
        ("scheduler", scheduler.to_string()),
        ("table_size", table_size.slots().to_string()),
        ("no_backend", no_backend.to_string()),
        ("on_expiry", on_expiry.to_string()),
        ("on_backend_down", on_backend_down.to_string()),
        ("profile", or(profile, "that of [conntrack]")),
    ];
    let keys = [
        "timeouts.half_open",
        "timeouts.established",
        "timeouts.fin_wait",
        "timeouts.closing",
        "timeouts.time_wait",
        "timeouts.reset",
    ];
    for (key, (_, timeout)) in keys.into_iter().zip(timeouts.by_key()) {
        let timeout = timeout.map(format_duration);
        settings.push((key, or(timeout, "that of the profile")));
    }
    let (kind, path, host) = match &check.kind {
        CheckKind::None => ("none", None, None),
        CheckKind::Tcp => ("tcp", None, None),
        CheckKind::Http { path, host } => ("http", Some(path), host.as_ref()),
    };
    settings.extend([
        ("check.type", kind.to_owned()),
        ("check.path", or(path, "none")),
        ("check.host", or(host, "none")),
        ("check.interval", format_duration(check.interval)),
        ("check.timeout", format_duration(check.timeout)),
        ("check.rise", check.rise.to_string()),
        ("check.fall", check.fall.to_string()),
    ]);
    settings
}

/// Whether the data plane holds a setting itself. The rest is for the daemon.
pub(super) fn is_in_maps(key: &str) -> bool {
    !key.starts_with("check.") && !key.starts_with("on_")
}

/// What a setting has become, key by key: `has weight 5, not 100`.
pub(super) fn differences(before: &Service, now: &Service) -> Vec<(&'static str, String)> {
    settings(before)
        .into_iter()
        .zip(settings(now))
        .filter(|(before, now)| before != now)
        .map(|((key, before), (_, now))| (key, difference(key, &before, &now)))
        .collect()
}

pub(super) fn difference(key: &str, before: &str, now: &str) -> String {
    format!("has {key} {now}, not {before}")
}

fn list(values: &[impl Display]) -> String {
    let values: Vec<String> = values.iter().map(ToString::to_string).collect();
    match values.as_slice() {
        [] => "none".to_owned(),
        values => values.join(", "),
    }
}

fn or(value: Option<impl Display>, nothing: &str) -> String {
    value.map_or_else(|| nothing.to_owned(), |value| value.to_string())
}
