//! `cargo xtask build`.

use std::{env, path::PathBuf};

use anyhow::{Context as _, Result};

use crate::{
    setup::{self, Group},
    shell::{cargo, run, step},
};

/// Sets up what is missing, then builds.
pub(crate) fn run_with_setup(release: bool) -> Result<()> {
    setup::run(&[Group::Build])?;
    run_cargo(release)
}

/// Builds the daemon, the command line and what tests and measures them.
pub(crate) fn run_cargo(release: bool) -> Result<()> {
    let mut command = cargo();
    command.args(["build", "--workspace"]);
    if release {
        command.arg("--release");
    }
    step("building", || run(&mut command))
}

/// Where cargo builds, which settings may have moved: it has built this program two levels below.
pub(crate) fn directory() -> Result<PathBuf> {
    let program = env::current_exe().context("cannot find this program's own file")?;
    let directory = program.ancestors().nth(2);
    Ok(directory
        .context("this program was not started by cargo")?
        .to_owned())
}
