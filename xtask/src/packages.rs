//! The distributions' package managers.

use std::process::Command;

use anyhow::{Context as _, Result};

use crate::shell;

/// A package manager that this command can drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manager {
    Apt,
    Dnf,
    Pacman,
    Zypper,
    Apk,
}

/// A program that is needed, and the packages that have it.
pub(crate) struct Tool {
    pub(crate) program: &'static str,
    apt: &'static str,
    dnf: &'static str,
    pacman: &'static str,
    zypper: &'static str,
    apk: &'static str,
}

const fn tool(program: &'static str, names: [&'static str; 5]) -> Tool {
    let [apt, dnf, pacman, zypper, apk] = names;
    Tool {
        program,
        apt,
        dnf,
        pacman,
        zypper,
        apk,
    }
}

pub(crate) const CC: Tool = tool("cc", ["gcc libc6-dev", "gcc", "gcc", "gcc", "build-base"]);
pub(crate) const IP: Tool = tool(
    "ip",
    ["iproute2", "iproute", "iproute2", "iproute2", "iproute2"],
);
pub(crate) const SS: Tool = tool(
    "ss",
    ["iproute2", "iproute", "iproute2", "iproute2", "iproute2-ss"],
);
pub(crate) const ETHTOOL: Tool = tool("ethtool", ["ethtool"; 5]);
pub(crate) const CURL: Tool = tool("curl", ["curl"; 5]);
pub(crate) const NGINX: Tool = tool("nginx", ["nginx-light", "nginx", "nginx", "nginx", "nginx"]);
pub(crate) const WRK: Tool = tool("wrk", ["wrk"; 5]);
pub(crate) const HAPROXY: Tool = tool("haproxy", ["haproxy"; 5]);

impl Tool {
    pub(crate) fn is_there(&self) -> bool {
        shell::which(self.program).is_some()
    }

    fn packages(&self, manager: Manager) -> impl Iterator<Item = &'static str> {
        let names = match manager {
            Manager::Apt => self.apt,
            Manager::Dnf => self.dnf,
            Manager::Pacman => self.pacman,
            Manager::Zypper => self.zypper,
            Manager::Apk => self.apk,
        };
        names.split(' ')
    }
}

impl Manager {
    pub(crate) fn detect() -> Option<Self> {
        Self::among(|program| shell::which(program).is_some())
    }

    fn among(has: impl Fn(&str) -> bool) -> Option<Self> {
        [
            ("apt-get", Self::Apt),
            ("dnf", Self::Dnf),
            ("pacman", Self::Pacman),
            ("zypper", Self::Zypper),
            ("apk", Self::Apk),
        ]
        .into_iter()
        .find_map(|(program, manager)| has(program).then_some(manager))
    }

    /// The packages that have these tools, each once.
    pub(crate) fn packages(self, tools: &[&Tool]) -> Vec<&'static str> {
        let mut packages: Vec<_> = tools.iter().flat_map(|tool| tool.packages(self)).collect();
        packages.sort_unstable();
        packages.dedup();
        packages
    }

    /// Whether the distribution has all of these packages.
    pub(crate) fn offers(self, packages: &[&str]) -> bool {
        self == Self::Apt
            && packages.iter().all(|package| {
                let output = Command::new("apt-cache").args(["policy", package]).output();
                output.is_ok_and(|output| {
                    let text = String::from_utf8_lossy(&output.stdout);
                    text.contains("Candidate:") && !text.contains("Candidate: (none)")
                })
            })
    }

    /// Fetches the lists of packages.
    pub(crate) fn refresh(self) -> Result<()> {
        match self {
            Self::Apt => shell::quietly(Command::new("apt-get").args(["update", "-q"])),
            _ => Ok(()),
        }
    }

    pub(crate) fn install(self, packages: &[&str]) -> Result<()> {
        let mut command = match self {
            Self::Apt => {
                let mut command = Command::new("apt-get");
                command
                    .args(["install", "-q", "--yes", "--no-install-recommends"])
                    .env("DEBIAN_FRONTEND", "noninteractive")
                    // invoke-rc.d starts no service where the run level is not one of its own: the
                    // demo wants the programs of nginx and HAProxy, not a server on this host.
                    .env("RUNLEVEL", "1");
                command
            }
            Self::Dnf => with("dnf", &["install", "--assumeyes"]),
            Self::Pacman => with("pacman", &["--sync", "--needed", "--noconfirm"]),
            Self::Zypper => with("zypper", &["--non-interactive", "install"]),
            Self::Apk => with("apk", &["add"]),
        };
        shell::quietly(command.args(packages))
            .with_context(|| format!("cannot install {}", packages.join(" ")))
    }
}

fn with(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distribution_decides_the_manager() {
        assert_eq!(
            Manager::among(|program| program == "apk"),
            Some(Manager::Apk)
        );
        assert_eq!(Manager::among(|_| true), Some(Manager::Apt));
        assert_eq!(Manager::among(|_| false), None);
    }

    #[test]
    fn packages_are_named_once() {
        assert_eq!(Manager::Apt.packages(&[&SS, &IP]), ["iproute2"]);
        assert_eq!(Manager::Apt.packages(&[&CC]), ["gcc", "libc6-dev"]);
        assert_eq!(
            Manager::Apk.packages(&[&SS, &NGINX]),
            ["iproute2-ss", "nginx"]
        );
    }
}
