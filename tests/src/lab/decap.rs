use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result};

use super::{Binaries, Host, Lab, Netns, daemon::mount_bpffs, footprint::BPFFS, process::output};

/// `lbctl decap` on a host, with pins that go with the lab.
#[derive(Clone, Debug)]
pub struct Decap {
    netns: Netns,
    lbctl: PathBuf,
    bpffs: PathBuf,
}

impl Decap {
    pub fn on(lab: &Lab, host: &Host) -> Result<Self> {
        Self::on_with(lab, host, &Binaries::locate()?)
    }

    /// The same with programs of the caller's choice.
    pub fn on_with(lab: &Lab, host: &Host, binaries: &Binaries) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        mount_bpffs()?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Ok(Self {
            netns: host.netns().clone(),
            lbctl: binaries.lbctl(),
            // The name is the lab's, for its sweep.
            bpffs: Path::new(BPFFS).join(format!("{}-decap-{number}", lab.name())),
        })
    }

    /// The same pins, seen from another host.
    #[must_use]
    pub fn seen_from(&self, host: &Host) -> Self {
        Self {
            netns: host.netns().clone(),
            ..self.clone()
        }
    }

    /// The directory of the pins.
    pub fn bpffs(&self) -> &Path {
        &self.bpffs
    }

    /// `lbctl decap …`; says how it ended, also when it failed.
    pub fn run(&self, arguments: &[&str]) -> Result<Output> {
        self.command(&[], arguments)
            .stdin(Stdio::null())
            .output()
            .context("cannot start lbctl")
    }

    /// What it prints; an error unless it succeeds.
    pub fn text(&self, arguments: &[&str]) -> Result<String> {
        output(&mut self.command(&[], arguments))
    }

    /// What `lbctl -o json decap …` prints.
    pub fn json(&self, arguments: &[&str]) -> Result<serde_json::Value> {
        let text = output(&mut self.command(&["-o", "json"], arguments))?;
        serde_json::from_str(&text).with_context(|| format!("lbctl printed no JSON: {text}"))
    }

    fn command(&self, options: &[&str], arguments: &[&str]) -> Command {
        let mut command = self.netns.command(&self.lbctl);
        command.args(options).arg("decap").args(arguments);
        command.arg("--bpffs").arg(&self.bpffs);
        command
    }
}
