//! The distributions' package managers.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};
use lb_toolchain::find_program;

use crate::{
    preflight,
    services::{self, NoServices},
    shell,
};

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
#[derive(Debug, PartialEq, Eq)]
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
pub(crate) const NFT: Tool = tool("nft", ["nftables"; 5]);
/// A module of nginx, no program of its own.
pub(crate) const NGINX_STREAM: Tool = tool(
    STREAM_MODULE,
    [
        "libnginx-mod-stream",
        "nginx-mod-stream",
        "nginx",
        "nginx",
        "nginx-mod-stream",
    ],
);
const STREAM_MODULE: &str = "ngx_stream_module.so";

impl Tool {
    pub(crate) fn is_there(&self) -> bool {
        match self.program {
            STREAM_MODULE => has_stream(),
            program => find_program(program).is_some(),
        }
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
        Self::among(|program| find_program(program).is_some())
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

    /// Installs the packages that have these tools. Servers among them serve nothing on this host.
    pub(crate) fn install_tools(self, tools: &[&Tool]) -> Result<()> {
        self.install(&self.packages(tools))?;
        let servers: Vec<_> = [&NGINX, &HAPROXY]
            .into_iter()
            .filter(|server| tools.contains(server))
            .map(|server| server.program)
            .collect();
        services::disable(&servers).context("cannot keep the demo's servers from running here")
    }

    /// The packages that have these tools, each once.
    pub(crate) fn packages(self, tools: &[&Tool]) -> Vec<&'static str> {
        let mut packages: Vec<_> = tools.iter().flat_map(|tool| tool.packages(self)).collect();
        packages.sort_unstable();
        packages.dedup();
        packages
    }

    /// Whether apt has a package, by lists that root fetches if they do not have it.
    pub(crate) fn offers(self, package: &str) -> Result<bool> {
        if self != Self::Apt {
            return Ok(false);
        }
        let offered = || {
            let policy = output(Command::new("apt-cache").args(["policy", package]));
            policy.is_some_and(|policy| has_candidate(&policy))
        };
        if offered() {
            return Ok(true);
        }
        if !preflight::is_root() {
            return Ok(false);
        }
        self.refresh()?;
        Ok(offered())
    }

    /// Whether an apt package needs another one, directly or not.
    pub(crate) fn depends(self, package: &str, on: &str) -> bool {
        self == Self::Apt
            && output(Command::new("apt-cache").args([
                "depends",
                "--recurse",
                "--important",
                package,
            ]))
            .is_some_and(|packages| packages.lines().any(|line| line == on))
    }

    /// The apt package that a file came with.
    pub(crate) fn owner(self, file: &str) -> Option<String> {
        if self != Self::Apt {
            return None;
        }
        let answer = output(Command::new("dpkg-query").args(["--search", file]))?;
        Some(answer.split_once(':')?.0.to_owned())
    }

    pub(crate) fn install(self, packages: &[&str]) -> Result<()> {
        let _no_services = match self {
            Self::Apt => Some(NoServices::here()?),
            // The others neither start nor enable what they install.
            Self::Dnf | Self::Pacman | Self::Zypper | Self::Apk => None,
        };
        if self.offers_all(packages) && shell::quietly(self.installation(packages)).is_ok() {
            return Ok(());
        }
        // Lists that are missing or old are the usual reason.
        self.refresh()?;
        shell::quietly(self.installation(packages))
            .with_context(|| format!("cannot install {}", packages.join(" ")))
    }

    /// Whether an attempt to install makes sense before the lists are fetched.
    fn offers_all(self, packages: &[&str]) -> bool {
        self != Self::Apt
            || output(Command::new("apt-cache").arg("policy").args(packages)).is_some_and(
                |policies| {
                    policies.matches("Candidate: ").count() == packages.len()
                        && !policies.contains("Candidate: (none)")
                },
            )
    }

    /// Fetches the lists of packages.
    fn refresh(self) -> Result<()> {
        let command = match self {
            Self::Apt => with("apt-get", &["update", "-q"]),
            Self::Dnf => with("dnf", &["makecache"]),
            Self::Pacman => with("pacman", &["--sync", "--refresh"]),
            Self::Zypper => with("zypper", &["--non-interactive", "refresh"]),
            Self::Apk => with("apk", &["update"]),
        };
        shell::quietly(command).context("cannot fetch the lists of packages")
    }

    fn installation(self, packages: &[&str]) -> Command {
        let mut command = match self {
            Self::Apt => {
                let arguments = [
                    "install",
                    "-q",
                    "--yes",
                    "--no-install-recommends",
                    // Nothing of this host is worth less than the demo.
                    "--no-remove",
                    // Unattended upgrades may be at work on a machine that has just started.
                    "--option=DPkg::Lock::Timeout=120",
                ];
                let mut command = with("apt-get", &arguments);
                command.env("DEBIAN_FRONTEND", "noninteractive");
                command
            }
            Self::Dnf => with("dnf", &["install", "--assumeyes"]),
            Self::Pacman => with("pacman", &["--sync", "--needed", "--noconfirm"]),
            Self::Zypper => with("zypper", &["--non-interactive", "install"]),
            Self::Apk => with("apk", &["add"]),
        };
        command.args(packages);
        command
    }
}

fn with(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// What a program prints, in the words of no particular language; `None` if it fails.
fn output(command: &mut Command) -> Option<String> {
    let output = command
        .env("LC_ALL", "C")
        .stderr(Stdio::null())
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether nginx is there and has its module `stream`, built in or as a file.
fn has_stream() -> bool {
    // It says so on stderr.
    let mut nginx = Command::new("sh");
    let said = output(nginx.args(["-c", "nginx -V 2>&1"])).unwrap_or_default();
    let mut options = said.split_whitespace();
    if options.clone().any(|option| option == "--with-stream") {
        return true;
    }
    options
        .find_map(|option| option.strip_prefix("--modules-path="))
        .is_some_and(|path| Path::new(path).join(STREAM_MODULE).is_file())
}

fn has_candidate(policy: &str) -> bool {
    policy.contains("Candidate: ") && !policy.contains("Candidate: (none)")
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

    #[test]
    fn a_package_without_a_candidate_is_not_offered() {
        assert!(has_candidate(
            "wrk:\n  Installed: (none)\n  Candidate: 4.1.0-3+b2\n"
        ));
        assert!(!has_candidate(
            "rustup:\n  Installed: (none)\n  Candidate: (none)\n"
        ));
        assert!(!has_candidate(""));
    }
}
