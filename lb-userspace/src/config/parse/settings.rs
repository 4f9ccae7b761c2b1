//! `[daemon]`, `[[interface]]`, `[conntrack]` and `[icmp]`.

use std::{
    collections::{HashMap, hash_map::Entry},
    path::PathBuf,
};

use toml::de::DeValue;

use super::{
    section::Section,
    shape,
    values::{Fault, choice, number, shorten, text},
};
use crate::{
    config::{
        ConntrackSettings, DaemonSettings, Echo, IcmpSettings, InterfaceSettings, WantedMode,
    },
    model::Profile,
};

pub(super) fn daemon(mut section: Section<'_, '_>) -> DaemonSettings {
    let default = DaemonSettings::default();
    DaemonSettings {
        socket: section.plain("socket", socket).unwrap_or(default.socket),
        state_dir: section
            .plain("state_dir", path)
            .unwrap_or(default.state_dir),
        bpffs: section.plain("bpffs", path).unwrap_or(default.bpffs),
    }
}

pub(super) fn conntrack(mut section: Section<'_, '_>) -> ConntrackSettings {
    let default = ConntrackSettings::default();
    let range = ConntrackSettings::MIN_CAPACITY..=ConntrackSettings::MAX_CAPACITY;
    let capacity = section
        .plain("capacity", number(range.clone()))
        .unwrap_or(default.capacity);
    ConntrackSettings {
        capacity,
        capacity_ipv6: section
            .plain("capacity_ipv6", number(range))
            .unwrap_or_else(|| ConntrackSettings::default_capacity_ipv6(capacity)),
        profile: profile(&mut section).unwrap_or_default(),
        flood_limit: section
            .plain(
                "flood_limit",
                number(1..=ConntrackSettings::MAX_FLOOD_LIMIT),
            )
            .unwrap_or(default.flood_limit),
    }
}

/// The profile of `[conntrack]` or of a service.
pub(super) fn profile(section: &mut Section<'_, '_>) -> Option<Profile> {
    let profiles = [("edge", Profile::Edge), ("rfc", Profile::Rfc)];
    section.plain("profile", choice(&profiles, &[]))
}

pub(super) fn icmp(mut section: Section<'_, '_>) -> IcmpSettings {
    let echoes = [("answer", Echo::Answer), ("pass", Echo::Pass)];
    IcmpSettings {
        echo: section
            .plain("echo", choice(&echoes, &[]))
            .unwrap_or_default(),
    }
}

pub(super) fn interfaces(root: &mut Section<'_, '_>) -> Vec<InterfaceSettings> {
    let found = root.tables("interface", &shape::INTERFACE, |mut section| {
        let name = section.required("name", "\"eth0\"", interface_name);
        let modes = [
            ("auto", WantedMode::Auto),
            ("native", WantedMode::Native),
            ("generic", WantedMode::Generic),
        ];
        let mode = section
            .plain("mode", choice(&modes, &[]))
            .unwrap_or_default();
        name.map(|name| (name, mode))
    });
    let mut seen = HashMap::new();
    let mut interfaces = Vec::new();
    for (name, mode) in found.into_iter().flatten() {
        let span = name.span();
        let name = name.into_inner();
        match seen.entry(name.clone()) {
            Entry::Vacant(free) => {
                free.insert(span);
                interfaces.push(InterfaceSettings { name, mode });
            }
            Entry::Occupied(first) => root.report().collision(
                span,
                format!("interface {name} is listed already: remove one of the two"),
                Some(first.get().clone()),
            ),
        }
    }
    interfaces
}

/// What the kernel takes as an interface's name (`dev_valid_name` in net/core/dev.c).
fn interface_name(value: &DeValue<'_>) -> Result<String, Fault> {
    /// `IFNAMSIZ` without the terminating zero.
    const MAX: usize = 15;
    let name = text(value)?;
    if name.len() > MAX {
        Err(format!(
            "an interface name has at most {MAX} characters, {:?} has {}",
            shorten(&name),
            name.len()
        ))
    } else if name.is_empty()
        || matches!(name.as_str(), "." | "..")
        || name.contains(|c: char| matches!(c, '/' | ':') || c.is_whitespace() || c.is_control())
    {
        Err(format!(
            "{name:?} cannot be the name of an interface: \"ip link\" lists those of this host"
        ))
    } else {
        Ok(name)
    }
}

/// An absolute path: the daemon and its clients need not have the same working directory.
fn path(value: &DeValue<'_>) -> Result<PathBuf, Fault> {
    let path = text(value)?;
    if !path.starts_with('/') {
        Err(format!(
            "expected an absolute path, beginning with '/', found {:?}",
            shorten(&path)
        ))
    } else if path.contains(char::is_control) {
        Err("a path cannot have control characters".to_owned())
    } else {
        Ok(path.into())
    }
}

/// A path that fits the address of a unix socket.
fn socket(value: &DeValue<'_>) -> Result<PathBuf, Fault> {
    /// `sun_path` without the terminating zero (unix(7)).
    const MAX: usize = 107;
    let path = path(value)?;
    let length = path.as_os_str().len();
    if length > MAX {
        return Err(format!(
            "the path of a unix socket has at most {MAX} bytes, this one has {length}: choose a shorter one"
        ));
    }
    Ok(path)
}
