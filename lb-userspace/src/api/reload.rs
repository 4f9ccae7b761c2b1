use std::{
    fmt::Display,
    path::{Path, PathBuf},
};

use tokio::task::spawn_blocking;

use super::{Context, Reloaded, Settings};
use crate::{
    config::{
        Config, ConfigError, ConntrackSettings, DaemonSettings, IcmpSettings, InterfaceSettings,
    },
    engine::{Change, ChangeError},
};

/// Why a configuration was not taken over; what ran before goes on running.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The panic message is in the log.
    #[error("the daemon failed on {}; its log says where", .0.display())]
    Panicked(PathBuf),
}

impl Context {
    /// Makes `file` (the daemon's own configuration where none is given) the desired state.
    ///
    /// Services and backends change at once. Everything else waits for a restart; the answer says
    /// what that is. The same function serves `lbctl reload` and SIGHUP.
    pub async fn reload(&self, file: Option<&Path>) -> Result<Reloaded, ReloadError> {
        let file = file.unwrap_or(&self.config_file).to_owned();
        let path = file.clone();
        let config = spawn_blocking(move || Config::load(&path))
            .await
            .map_err(|_| ReloadError::Panicked(file.clone()))??;
        let desired = config.desired.clone();
        let restart = waiting_for_restart(&self.settings, &Settings::from(config));
        let changes = self.control.change(Change::Replace(desired)).await?;
        Ok(Reloaded {
            file,
            changes,
            restart,
        })
    }
}

/// One line per setting in which `wanted` differs from what the daemon was started with.
fn waiting_for_restart(running: &Settings, wanted: &Settings) -> Vec<String> {
    let mut lines = Vec::new();
    daemon_differences(&running.daemon, &wanted.daemon, &mut lines);
    interface_differences(&running.interfaces, &wanted.interfaces, &mut lines);
    conntrack_differences(&running.conntrack, &wanted.conntrack, &mut lines);
    let IcmpSettings { echo } = running.icmp;
    difference("[icmp] echo", echo, wanted.icmp.echo, &mut lines);
    lines
}

// Destructured, so that a setting added later cannot be forgotten here.
fn daemon_differences(running: &DaemonSettings, wanted: &DaemonSettings, lines: &mut Vec<String>) {
    let DaemonSettings {
        socket,
        state_dir,
        bpffs,
    } = running;
    for (key, running, wanted) in [
        ("socket", socket, &wanted.socket),
        ("state_dir", state_dir, &wanted.state_dir),
        ("bpffs", bpffs, &wanted.bpffs),
    ] {
        difference(
            &format!("[daemon] {key}"),
            running.display(),
            wanted.display(),
            lines,
        );
    }
}

fn interface_differences(
    running: &[InterfaceSettings],
    wanted: &[InterfaceSettings],
    lines: &mut Vec<String>,
) {
    let find = |list: &[InterfaceSettings], name: &str| {
        list.iter()
            .find(|interface| interface.name == name)
            .map(|interface| interface.mode)
    };
    for InterfaceSettings { name, mode } in running {
        match find(wanted, name) {
            Some(new) => difference(&format!("[[interface]] {name}: mode"), mode, new, lines),
            None => lines.push(format!("[[interface]] {name}: no longer wanted")),
        }
    }
    for InterfaceSettings { name, .. } in wanted {
        if find(running, name).is_none() {
            lines.push(format!("[[interface]] {name}: new"));
        }
    }
}

fn conntrack_differences(
    running: &ConntrackSettings,
    wanted: &ConntrackSettings,
    lines: &mut Vec<String>,
) {
    let ConntrackSettings {
        capacity,
        capacity_ipv6,
        profile,
        flood_limit,
    } = running;
    difference("[conntrack] capacity", capacity, wanted.capacity, lines);
    difference(
        "[conntrack] capacity_ipv6",
        capacity_ipv6,
        wanted.capacity_ipv6,
        lines,
    );
    difference("[conntrack] profile", profile, wanted.profile, lines);
    difference(
        "[conntrack] flood_limit",
        flood_limit,
        wanted.flood_limit,
        lines,
    );
}

fn difference(what: &str, running: impl Display, wanted: impl Display, lines: &mut Vec<String>) {
    let (running, wanted) = (running.to_string(), wanted.to_string());
    if running != wanted {
        lines.push(format!("{what}: {running} -> {wanted}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{Echo, WantedMode},
        model::Profile,
    };

    fn settings() -> Settings {
        let interface = |name: &str| InterfaceSettings {
            name: name.to_owned(),
            mode: WantedMode::Auto,
        };
        Settings {
            interfaces: vec![interface("eth0"), interface("eth1")],
            ..Settings::from(Config::default())
        }
    }

    #[test]
    fn what_needs_a_restart_is_named_with_both_values() {
        let running = settings();
        assert_eq!(waiting_for_restart(&running, &running), [""; 0]);

        let mut wanted = running.clone();
        wanted.daemon.state_dir = "/srv/lb".into();
        wanted.interfaces[0].mode = WantedMode::Generic;
        wanted.interfaces[1].name = "eth2".to_owned();
        wanted.conntrack.capacity = 5;
        wanted.conntrack.profile = Profile::Rfc;
        wanted.conntrack.flood_limit = 7;
        wanted.icmp.echo = Echo::Pass;
        assert_eq!(
            waiting_for_restart(&running, &wanted),
            [
                "[daemon] state_dir: /var/lib/lb -> /srv/lb",
                "[[interface]] eth0: mode: auto -> generic",
                "[[interface]] eth1: no longer wanted",
                "[[interface]] eth2: new",
                "[conntrack] capacity: 1000000 -> 5",
                "[conntrack] profile: edge -> rfc",
                "[conntrack] flood_limit: 50000 -> 7",
                "[icmp] echo: answer -> pass",
            ]
        );
    }
}
