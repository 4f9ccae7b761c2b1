//! `cargo xtask setup`: installs what is missing, and only that.

use anyhow::{Result, bail};

use crate::{
    packages::{CC, CURL, ETHTOOL, HAPROXY, IP, Manager, NGINX, SS, Tool, WRK},
    preflight,
    shell::step,
    toolchain,
};

/// What a command needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// To build the XDP programs.
    Build,
    /// To make network namespaces and look into them.
    Network,
    /// Real servers and clients.
    Demo,
}

impl Group {
    pub(crate) const ALL: [Self; 3] = [Self::Build, Self::Network, Self::Demo];

    fn tools(self) -> &'static [&'static Tool] {
        match self {
            Self::Build => &[&CC],
            Self::Network => &[&IP, &SS, &ETHTOOL],
            Self::Demo => &[&NGINX, &CURL, &WRK, &HAPROXY],
        }
    }
}

/// Installs what these groups miss, and says what it did.
pub(crate) fn run(groups: &[Group]) -> Result<()> {
    let missing: Vec<_> = groups
        .iter()
        .flat_map(|group| group.tools())
        .filter(|tool| !tool.is_there())
        .copied()
        .collect();
    let toolchain_missing = groups.contains(&Group::Build) && !toolchain::is_there();
    if missing.is_empty() && !toolchain_missing {
        eprintln!("set-up: everything is there");
        return Ok(());
    }
    preflight::require_root("to install what is missing")?;
    let manager = Manager::detect();
    if let Some(manager) = manager {
        step("fetching the lists of packages", || manager.refresh())?;
    }
    if !missing.is_empty() {
        let programs: Vec<_> = missing.iter().map(|tool| tool.program).collect();
        let Some(manager) = manager else {
            bail!(
                "missing: {}; none of apt-get, dnf, pacman, zypper and apk is here to install them",
                programs.join(", ")
            );
        };
        let packages = manager.packages(&missing);
        step(&format!("installing {}", packages.join(" ")), || {
            manager.install(&packages)
        })?;
    }
    if toolchain_missing {
        toolchain::install(manager)?;
    }
    eprintln!("set-up: done");
    Ok(())
}
