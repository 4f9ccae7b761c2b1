//! What builds the XDP programs: a Rust toolchain with the standard library's source, and a
//! linker for BPF of the same LLVM.

use std::{env, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::{
    compiler::{self, LLVM, NIGHTLY},
    packages::Manager,
    shell::{quietly, run, step, which},
};

const LINKER_VERSION: &str = "0.13.0";
/// Debian's compiler for building browsers: new, and with its source packaged.
const DEBIAN_TOOLCHAIN: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];
const DEBIAN_LLVM: [&str; 1] = ["llvm-22-dev"];

/// Whether everything is there.
pub(crate) fn is_there() -> bool {
    compiler::choose().is_some() && linker().is_some()
}

/// Installs what is missing.
pub(crate) fn install(manager: Option<Manager>) -> Result<()> {
    if compiler::choose().is_none() {
        install_compiler(manager)?;
    }
    if linker().is_none() {
        install_linker(manager)?;
    }
    Ok(())
}

fn install_compiler(manager: Option<Manager>) -> Result<()> {
    if let Some(manager) = manager
        && manager.offers(&DEBIAN_TOOLCHAIN)
    {
        return step("installing the distribution's Rust with its source", || {
            manager.install(&DEBIAN_TOOLCHAIN)
        });
    }
    if which("rustup").is_none() {
        bail!(
            "no Rust toolchain here has its standard library's source, the distribution has no \
             package of it, and there is no rustup to fetch one: install rustup (https://rustup.rs)"
        );
    }
    step(&format!("installing {NIGHTLY} with its source"), || {
        run(Command::new("rustup").args([
            "toolchain",
            "install",
            NIGHTLY,
            "--no-self-update",
            "--profile",
            "minimal",
            "--component",
            "rust-src",
        ]))
    })
}

fn install_linker(manager: Option<Manager>) -> Result<()> {
    let mut llvm = llvm_directory();
    if llvm.is_none()
        && let Some(manager) = manager
        && manager.offers(&DEBIAN_LLVM)
    {
        step(&format!("installing LLVM {LLVM}"), || {
            manager.install(&DEBIAN_LLVM)
        })?;
        llvm = llvm_directory();
    }
    let mut install = crate::shell::cargo();
    install.args([
        "install",
        "bpf-linker",
        "--locked",
        "--version",
        LINKER_VERSION,
    ]);
    let shared = format!("llvm-{LLVM}");
    match &llvm {
        Some(bin) => {
            install.args(["--no-default-features", "--features", &shared]);
            // The first llvm-config in the path decides which LLVM it is built with.
            let path = env::var_os("PATH").unwrap_or_default();
            let path = std::iter::once(bin.clone()).chain(env::split_paths(&path));
            install.env("PATH", env::join_paths(path)?);
        }
        // The default features load the LLVM that rustc brings along.
        None => {
            install
                .args(["--target-dir"])
                .arg(env::temp_dir().join("bpf-linker-build"));
        }
    }
    step("building bpf-linker", || quietly(&mut install)).with_context(|| {
        format!(
            "cannot build bpf-linker {LINKER_VERSION}: it needs a C compiler and LLVM {LLVM} \
             (Debian: llvm-{LLVM}-dev)"
        )
    })?;
    if linker().is_none() {
        bail!("bpf-linker was installed but is not in PATH: add ~/.cargo/bin to it");
    }
    Ok(())
}

fn linker() -> Option<PathBuf> {
    which("bpf-linker").or_else(|| {
        let home = env::var_os("CARGO_HOME")
            .map(PathBuf::from)
            .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")))?;
        Some(home.join("bin/bpf-linker")).filter(|path| path.is_file())
    })
}

/// Where LLVM's programs are, if it is the right one.
fn llvm_directory() -> Option<PathBuf> {
    let bin = PathBuf::from(format!("/usr/lib/llvm-{LLVM}/bin"));
    bin.join("llvm-config").is_file().then_some(bin)
}
