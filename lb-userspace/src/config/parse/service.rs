//! `[[service]]` and what stands in it.

use std::time::Duration;

use toml::{Spanned, de::DeValue};

use super::{
    conflicts::{BackendSpans, ServiceSpans},
    forwarding::{Means, means},
    section::Section,
    settings, shape,
    values::{Fault, address, choice, duration, number, parsed, seconds, text},
};
use crate::model::{
    Admin, Backend, Check, CheckKind, Name, NoBackend, OnBackendDown, OnExpiry, Protocol,
    Scheduler, Service, TableSize, TimeoutOverrides, Weight,
};

/// `None` when it lacks what a service cannot be without; that has been reported.
pub(super) fn service(mut section: Section<'_, '_>) -> Option<(Service, ServiceSpans)> {
    let name = section.required("name", "\"web\"", parsed::<Name>);
    let listen = section.required("listen", "\"192.0.2.10:80\"", address);
    let protocol = section.plain("protocol", choice(&[("tcp", Protocol::Tcp)], &[]));
    let means = means(&mut section);
    let scheduler = section.plain(
        "scheduler",
        choice(
            &[("maglev", Scheduler::Maglev)],
            &[
                "source-hash",
                "round-robin",
                "random",
                "least-connections",
                "least-latency",
            ],
        ),
    );
    let table_size = section.plain("table_size", table_size);
    let answers = [
        ("rst", NoBackend::Rst),
        ("drop", NoBackend::Drop),
        ("icmp", NoBackend::Icmp),
    ];
    let no_backend = section.plain("no_backend", choice(&answers, &[]));
    let ends = [("forget", OnExpiry::Forget), ("reset", OnExpiry::Reset)];
    let on_expiry = section.plain("on_expiry", choice(&ends, &[]));
    let ends = [
        ("keep", OnBackendDown::Keep),
        ("reset", OnBackendDown::Reset),
    ];
    let on_backend_down = section.plain("on_backend_down", choice(&ends, &[]));
    let profile = settings::profile(&mut section);
    let timeouts = section
        .table("timeouts", &shape::TIMEOUTS)
        .map(timeouts)
        .unwrap_or_default();
    let check = section.table("check", &shape::CHECK).map(check);
    let (backends, backend_spans) = section
        .tables("backend", &shape::BACKEND, backend)
        .into_iter()
        .flatten()
        .unzip();

    let (name, listen) = (name?, listen?);
    let Means {
        forwarding,
        snat,
        tunnel,
    } = means;
    let spans = ServiceSpans {
        header: section.span(),
        name: name.span(),
        listen: listen.span(),
        snat: snat.iter().map(Spanned::span).collect(),
        backends: backend_spans,
    };
    let service = Service {
        name: name.into_inner(),
        listen: listen.into_inner(),
        protocol: protocol.unwrap_or_default(),
        forwarding,
        scheduler: scheduler.unwrap_or_default(),
        table_size: table_size.unwrap_or_default(),
        check: check.unwrap_or_default(),
        timeouts: TimeoutOverrides {
            profile,
            ..timeouts
        },
        snat: snat.into_iter().map(Spanned::into_inner).collect(),
        tunnel,
        no_backend: no_backend.unwrap_or_default(),
        on_expiry: on_expiry.unwrap_or_default(),
        on_backend_down: on_backend_down.unwrap_or_default(),
        backends,
    };
    Some((service, spans))
}

fn table_size(value: &DeValue<'_>) -> Result<TableSize, Fault> {
    number(TableSize::MIN..=TableSize::MAX)(value).and_then(TableSize::try_from)
}

fn timeouts(mut section: Section<'_, '_>) -> TimeoutOverrides {
    let range = Duration::from_secs(1)..=Duration::from_secs(7 * 86_400);
    let mut timeout = |key| section.plain(key, seconds(range.clone()));
    TimeoutOverrides {
        profile: None,
        half_open: timeout("half_open"),
        established: timeout("established"),
        fin_wait: timeout("fin_wait"),
        closing: timeout("closing"),
        time_wait: timeout("time_wait"),
        reset: timeout("reset"),
    }
}

fn check(mut section: Section<'_, '_>) -> Check {
    let default = Check::default();
    let hour = Duration::from_secs(3_600);
    let kind = check_kind(&mut section);
    let interval = section
        .plain("interval", duration(Duration::from_millis(100)..=hour))
        .unwrap_or(default.interval);
    // A timeout longer than the interval is allowed, as in HAProxy and keepalived: the next probe
    // then waits for the one that is under way. It must be asked for, though.
    let timeout = section
        .plain("timeout", duration(Duration::from_millis(10)..=hour))
        .unwrap_or(default.timeout.min(interval));
    let rise = section.plain("rise", number(1..=u16::MAX));
    let fall = section.plain("fall", number(1..=u16::MAX));
    Check {
        kind,
        interval,
        timeout,
        rise: rise.unwrap_or(default.rise),
        fall: fall.unwrap_or(default.fall),
    }
}

fn check_kind(section: &mut Section<'_, '_>) -> CheckKind {
    #[derive(Clone, Copy)]
    enum Type {
        None,
        Tcp,
        Http,
    }
    let types = [
        ("tcp", Type::Tcp),
        ("http", Type::Http),
        ("none", Type::None),
    ];
    let given = section.plain("type", choice(&types, &["https", "exec"]));
    let path = section.value("path", http_path);
    let host = section.value("host", http_host);
    let other = match given {
        Some(Type::Http) => {
            return CheckKind::Http {
                path: path.map_or_else(|| "/".to_owned(), Spanned::into_inner),
                host: host.map(Spanned::into_inner),
            };
        }
        Some(Type::None) => CheckKind::None,
        Some(Type::Tcp) => CheckKind::Tcp,
        None if section.has("type") => return CheckKind::Tcp, // a wrong one, reported
        None => CheckKind::Tcp,
    };
    for (key, value) in [("path", path), ("host", host)] {
        if let Some(value) = value {
            let message = format!("{key}: only a check of type = \"http\" has one");
            section.report().error(value.span(), message);
        }
    }
    other
}

/// What stands in a request line as it is (RFC 9112 §3.2.1): no blanks, nothing to be escaped.
fn http_path(value: &DeValue<'_>) -> Result<String, Fault> {
    let path = text(value)?;
    if !path.starts_with('/') {
        Err("a path begins with '/', as in \"/healthz\"".to_owned())
    } else if let Some(bad) = path.chars().find(|&c| !c.is_ascii_graphic() || c == '#') {
        Err(format!(
            "a path cannot have {bad:?}: write it percent-encoded"
        ))
    } else {
        Ok(path)
    }
}

/// A host and perhaps a port (RFC 9110 §7.2).
fn http_host(value: &DeValue<'_>) -> Result<String, Fault> {
    let host = text(value)?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._~%:[]".contains(c);
    if host.is_empty() {
        Err("a host cannot be empty: take the line out to send the backend's address".to_owned())
    } else if let Some(bad) = host.chars().find(|&c| !allowed(c)) {
        Err(format!(
            "a host is a name or an address and perhaps a port, as in \"www.example.com\"; it cannot have {bad:?}"
        ))
    } else {
        Ok(host)
    }
}

/// `None` when it has no usable name or address; that has been reported.
fn backend(mut section: Section<'_, '_>) -> Option<(Backend, BackendSpans)> {
    let address = section.required("address", "\"10.0.1.11:8080\"", address);
    let name = section.value("name", parsed::<Name>);
    let weight = section.plain("weight", number(0..=u16::MAX));
    let admins = [
        ("enabled", Admin::Enabled),
        ("drain", Admin::Drain),
        ("maint", Admin::Maint),
    ];
    let admin = section.plain("admin", choice(&admins, &[]));

    let address = address?;
    let spans = BackendSpans {
        name: name.as_ref().map_or_else(|| address.span(), Spanned::span),
        address: address.span(),
    };
    let address = address.into_inner();
    let backend = Backend {
        name: name.map_or_else(|| Name::from(address), Spanned::into_inner),
        address,
        weight: weight.map_or(Weight::DEFAULT, Weight),
        admin: admin.unwrap_or_default(),
    };
    Some((backend, spans))
}
