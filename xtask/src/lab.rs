//! `cargo xtask demo`, `bench` and `fuzz`: programs of the crate `lb-tests` that need the lab.

use std::{os::unix::process::CommandExt as _, process::Command};

use anyhow::{Context as _, Result};

use crate::{
    build, preflight,
    setup::{self, Group},
};

/// Sets up, builds, and becomes the program.
pub(crate) fn run(program: &str, groups: &[Group], options: &[String]) -> Result<()> {
    preflight::check()?;
    setup::run(groups)?;
    preflight::check_veth()?;
    build::run_cargo(true)?;
    let path = build::directory()?.join("release").join(program);
    // Signals go to the program itself, which cleans up after them.
    let error = Command::new(&path).args(options).exec();
    Err(error).with_context(|| format!("cannot run {}", path.display()))
}
