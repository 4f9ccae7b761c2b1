//! Builds the XDP programs with a toolchain that can (`-Z build-std` wants the standard library's
//! source), and leaves the objects `lb` and `lb-lab` in `OUT_DIR`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};
use aya_build::{Package, Toolchain};

/// Names the toolchain to use, as `rustup run` takes it: a name, or the path of an installation.
const TOOLCHAIN: &str = "LB_EBPF_TOOLCHAIN";
/// Set to build without the programs: lints and unit tests need none.
const SKIP: &str = "AYA_BUILD_SKIP";
/// Tried in this order: the distribution's (Debian's `rustc-web` and `rust-web-src`), then the
/// nightly that `cargo xtask setup` installs. Its LLVM must be as new as the linker's.
const CANDIDATES: &[&str] = &["/usr", "nightly-2026-05-20", "nightly"];
const OBJECTS: &[&str] = &["lb", "lb-lab"];

fn main() -> anyhow::Result<()> {
    println!("cargo::rerun-if-env-changed={TOOLCHAIN}");
    println!("cargo::rerun-if-env-changed={SKIP}");
    println!("cargo::rerun-if-changed=build.rs");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("this crate lies in a workspace")?;
    for path in [
        "lb-ebpf",
        "lb-common/src",
        "lb-common/Cargo.toml",
        "Cargo.lock",
    ] {
        println!("cargo::rerun-if-changed={}", root.join(path).display());
    }
    if env::var(SKIP).is_ok_and(|value| value == "1" || value.eq_ignore_ascii_case("true")) {
        return leave_empty_objects();
    }
    let Some(toolchain) = toolchain() else {
        bail!(
            "no Rust toolchain here can build the XDP programs: none has its standard library's \
             source. `cargo xtask setup` installs one ({TOOLCHAIN}=<toolchain> names another, \
             {SKIP}=1 builds without the programs)"
        );
    };
    // SAFETY: a build script has one thread.
    unsafe { env::set_var("RUSTC_BOOTSTRAP", "1") };
    let directory = root.join("lb-ebpf");
    let package = Package {
        name: "lb-ebpf",
        root_dir: directory.to_str().context("the path is UTF-8")?,
        ..Package::default()
    };
    aya_build::build_ebpf([package], Toolchain::Custom(&toolchain)).with_context(|| {
        format!(
            "cannot build the XDP programs with toolchain {toolchain}; \
             `cargo xtask setup` installs what is missing"
        )
    })
}

fn leave_empty_objects() -> anyhow::Result<()> {
    let directory = PathBuf::from(env::var_os("OUT_DIR").context("cargo sets OUT_DIR")?);
    for object in OBJECTS {
        fs::write(directory.join(object), [])?;
    }
    Ok(())
}

fn toolchain() -> Option<String> {
    if let Ok(named) = env::var(TOOLCHAIN) {
        return Some(named);
    }
    CANDIDATES
        .iter()
        .find(|candidate| has_source(candidate))
        .map(|&candidate| candidate.to_owned())
}

/// Whether a toolchain has the source of `core` beside its compiler.
fn has_source(toolchain: &str) -> bool {
    // Without rustup, aya-build takes the cargo in the path, which then is the distribution's.
    let mut sysroot = match Command::new("rustup").arg("--version").output() {
        Ok(_) => {
            let mut command = Command::new("rustup");
            command.args(["run", toolchain, "rustc"]);
            command
        }
        Err(_) if toolchain == "/usr" => Command::new("/usr/bin/rustc"),
        Err(_) => return false,
    };
    let Ok(output) = sysroot.args(["--print", "sysroot"]).output() else {
        return false;
    };
    let sysroot = String::from_utf8_lossy(&output.stdout);
    output.status.success()
        && Path::new(sysroot.trim())
            .join("lib/rustlib/src/rust/library/core")
            .is_dir()
}
