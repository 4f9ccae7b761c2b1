//! Builds the XDP programs with a toolchain that can (`-Z build-std` wants the standard library's
//! source), and leaves the objects `lb` and `lb-lab` in `OUT_DIR`.

#[path = "../xtask/src/compiler.rs"]
mod compiler;

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use aya_build::{Package, Toolchain};

/// Set to build without the programs: lints and unit tests need none.
const SKIP: &str = "AYA_BUILD_SKIP";
const OBJECTS: &[&str] = &["lb", "lb-lab"];

fn main() -> anyhow::Result<()> {
    let variable = compiler::VARIABLE;
    println!("cargo::rerun-if-env-changed={variable}");
    println!("cargo::rerun-if-env-changed={SKIP}");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../xtask/src/compiler.rs");
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
    let Some(toolchain) = compiler::choose() else {
        bail!(
            "no Rust toolchain here can build the XDP programs: none has its standard library's \
             source and is of the right age. `cargo xtask setup` installs one ({variable}=<toolchain> names another, \
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
