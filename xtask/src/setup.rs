//! `cargo xtask setup`: installs what is missing, and only that.

use anyhow::{Result, bail};

use crate::{
    packages::{CC, CURL, ETHTOOL, HAPROXY, IP, Manager, NFT, NGINX, NGINX_STREAM, SS, Tool, WRK},
    preflight,
    shell::step,
    toolchain,
};

/// What a command needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// To build the XDP programs.
    Build,
    /// To check the format and the lints.
    Lint,
    /// To make network namespaces and look into them.
    Network,
    /// Real servers and clients.
    Demo,
    /// What the benchmark puts beside the load balancer.
    Contenders,
}

impl Group {
    pub(crate) const ALL: [Self; 5] = [
        Self::Build,
        Self::Lint,
        Self::Network,
        Self::Demo,
        Self::Contenders,
    ];

    fn tools(self) -> &'static [&'static Tool] {
        match self {
            Self::Build => &[&CC],
            Self::Lint => &[],
            Self::Network => &[&IP, &SS, &ETHTOOL],
            Self::Demo => &[&NGINX, &CURL, &WRK, &HAPROXY],
            Self::Contenders => &[&NGINX, &NGINX_STREAM, &WRK, &HAPROXY, &NFT],
        }
    }
}

/// Installs what these groups miss, and says what it did.
pub(crate) fn run(groups: &[Group]) -> Result<()> {
    let manager = Manager::detect();
    let mut missing: Vec<_> = groups
        .iter()
        .flat_map(|group| group.tools())
        .filter(|tool| !tool.is_there())
        .copied()
        .collect();
    // Some are in two groups.
    missing.sort_unstable_by_key(|tool| tool.program);
    missing.dedup();
    let mut done = false;
    if !missing.is_empty() {
        install(&missing, manager)?;
        done = true;
    }
    if groups.contains(&Group::Build) {
        done |= toolchain::install(manager)?;
    }
    if groups.contains(&Group::Lint) {
        done |= toolchain::install_lints(manager)?;
    }
    eprintln!(
        "set-up: {}",
        if done { "done" } else { "everything is there" }
    );
    Ok(())
}

fn install(missing: &[&Tool], manager: Option<Manager>) -> Result<()> {
    let programs: Vec<_> = missing.iter().map(|tool| tool.program).collect();
    let programs = programs.join(", ");
    let Some(manager) = manager else {
        bail!(
            "missing: {programs}; none of apt-get, dnf, pacman, zypper and apk is here to install \
             them"
        );
    };
    preflight::require_root(&format!("to install {programs}"))?;
    let packages = manager.packages(missing).join(" ");
    step(&format!("installing {packages}"), || {
        manager.install_tools(missing)
    })
}
