//! `cargo xtask build`.

use anyhow::Result;

use crate::{
    setup::{self, Group},
    shell::{cargo, run, step},
};

/// Builds the daemon, the command line and what tests and measures them.
pub(crate) fn run_cargo(release: bool) -> Result<()> {
    let mut command = cargo();
    command.args(["build", "--workspace"]);
    if release {
        command.arg("--release");
    }
    step("building", || run(&mut command))
}

/// Sets up what is missing, then builds.
pub(crate) fn run_with_setup(release: bool) -> Result<()> {
    setup::run(&[Group::Build])?;
    run_cargo(release)
}
