//! Installing what builds the XDP programs: a Rust toolchain with the source of its standard
//! library, and a linker for BPF with an LLVM that reads what that compiler writes.

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, anyhow, bail};
use lb_toolchain::{
    Compiler, LINKER_VERSION, LLVM, Linker, NoCompiler, PINNED_NIGHTLY, find_program, tools_dir,
};

use crate::{
    packages::Manager,
    preflight,
    shell::{self, cargo, quietly, step, succeeds},
};

/// A distribution's Rust: the names of its packages.
struct Packaged {
    rustc: &'static str,
    cargo: &'static str,
    source: &'static str,
    format: &'static str,
    lints: &'static str,
}

/// What Debian and Ubuntu have. The first is a newer one, for building browsers in stable releases.
const DEBIAN: [Packaged; 2] = [
    Packaged {
        rustc: "rustc-web",
        cargo: "cargo-web",
        source: "rust-web-src",
        format: "rustfmt-web",
        lints: "rust-web-clippy",
    },
    Packaged {
        rustc: "rustc",
        cargo: "cargo",
        source: "rust-src",
        format: "rustfmt",
        lints: "rust-clippy",
    },
];

/// Installs the compiler and the linker, where they are missing. Whether there was anything to do.
pub(crate) fn install(manager: Option<Manager>) -> Result<bool> {
    let (compiler, installed) = match Compiler::find() {
        Ok(compiler) => (compiler, false),
        Err(missing) => (install_compiler(manager, missing)?, true),
    };
    if Linker::find(&compiler).is_ok() {
        return Ok(installed);
    }
    install_linker(&compiler, manager)?;
    Ok(true)
}

/// Installs rustfmt and clippy for the toolchain in use, and clippy for the one that builds the XDP
/// programs, where they are missing. Whether there was anything to do.
///
/// The latter is optional: where it cannot be had, those lints are skipped.
pub(crate) fn install_lints(manager: Option<Manager>) -> Result<bool> {
    let mut installed = false;
    let missing = |tool| !succeeds(cargo().args([tool, "--version"]));
    if missing("fmt") || missing("clippy") {
        step("installing rustfmt and clippy", || {
            install_host_lints(manager)
        })?;
        installed = true;
    }
    let compiler = Compiler::find()?;
    if !has_clippy(&compiler) {
        installed |= install_clippy(&compiler, manager)?;
    }
    Ok(installed)
}

/// Whether the XDP programs can be linted.
pub(crate) fn has_clippy(compiler: &Compiler) -> bool {
    succeeds(compiler.command("cargo").args(["clippy", "--version"]))
}

fn install_compiler(manager: Option<Manager>, missing: NoCompiler) -> Result<Compiler> {
    if matches!(missing, NoCompiler::Named(..)) {
        return Err(missing.into());
    }
    if let Some(manager) = manager
        && let Some(rust) = offered_rust(manager)?
    {
        preflight::require_root(&format!("to install {}", rust.rustc))?;
        let packages = [rust.rustc, rust.cargo, rust.source];
        let what = format!("installing the distribution's Rust: {}", packages.join(" "));
        step(&what, || manager.install(&packages))?;
        if let Ok(compiler) = Compiler::find() {
            return Ok(compiler);
        }
    }
    let Some(rustup) = find_program("rustup") else {
        bail!(
            "no Rust toolchain here can build the XDP programs, which takes LLVM {LLVM} and the \
             source of the standard library; the distribution has no package of it, and there is \
             no rustup to fetch one: install rustup (https://rustup.rs) and run this again"
        );
    };
    let mut command = Command::new(rustup);
    command.args(["toolchain", "install", PINNED_NIGHTLY]);
    // The minimal profile with the source, and no change to rustup itself.
    command.args(["--no-self-update", "--profile", "minimal"]);
    command.args(["--component", "rust-src", "--component", "clippy"]);
    step(&format!("installing {PINNED_NIGHTLY} with rustup"), || {
        quietly(command)
    })?;
    Ok(Compiler::find()?)
}

/// The distribution's Rust, if it is one of the right LLVM.
fn offered_rust(manager: Manager) -> Result<Option<&'static Packaged>> {
    let llvm = format!("libllvm{LLVM}");
    for rust in &DEBIAN {
        if manager.offers(rust.source)? && manager.depends(rust.rustc, &llvm) {
            return Ok(Some(rust));
        }
    }
    Ok(None)
}

fn install_linker(compiler: &Compiler, manager: Option<Manager>) -> Result<()> {
    if find_program("cc").is_none() {
        bail!("a C compiler is needed to link bpf-linker, and there is none");
    }
    let tools = tools_dir().ok_or_else(|| anyhow!("neither CARGO_HOME nor HOME is set"))?;
    let llvm = llvm_to_link(compiler, manager, &tools)?;
    // The compiler's own cargo, for it is new enough to build it, whatever runs this.
    let mut command = compiler.command("cargo");
    command
        .args(["install", "bpf-linker", "--locked", "--force"])
        .args(["--version", LINKER_VERSION])
        .args(["--no-default-features", "--features"])
        .arg(format!("llvm-{LLVM}"))
        .arg("--root")
        .arg(&tools)
        .env("LLVM_PREFIX", llvm)
        .env_remove("RUSTC_BOOTSTRAP")
        // Flags and places that are meant for this workspace.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_TARGET_DIR");
    step(&format!("building bpf-linker {LINKER_VERSION}"), || {
        quietly(command)
    })?;
    Linker::find(compiler)?;
    Ok(())
}

/// A directory whose `lib` holds a shared LLVM to link bpf-linker with, as `libLLVM.so`: the one
/// that an LLVM for developers has installed, or the compiler's own, or one from the distribution.
fn llvm_to_link(compiler: &Compiler, manager: Option<Manager>, tools: &Path) -> Result<PathBuf> {
    if let Some(prefix) = installed_llvm() {
        return Ok(prefix);
    }
    if let Some(library) = library_of(compiler) {
        return link_library(&library, tools);
    }
    let package = format!("llvm-{LLVM}-dev");
    if let Some(manager) = manager
        && manager.offers(&package)?
    {
        preflight::require_root(&format!("to install {package}"))?;
        step(&format!("installing {package}"), || {
            manager.install(&[&package])
        })?;
        if let Some(prefix) = installed_llvm() {
            return Ok(prefix);
        }
    }
    bail!(
        "bpf-linker is missing, and there is no LLVM {LLVM} to build it with: install LLVM {LLVM} \
         for developers (llvm-config must say {LLVM}), or bpf-linker {LINKER_VERSION} itself \
         (https://github.com/aya-rs/bpf-linker#installation), and run this again"
    );
}

/// The prefix of an LLVM of the right version with its shared library.
fn installed_llvm() -> Option<PathBuf> {
    [
        format!("/usr/lib/llvm-{LLVM}/bin/llvm-config"),
        format!("llvm-config-{LLVM}"),
        "llvm-config".to_owned(),
    ]
    .iter()
    .find_map(|program| {
        let ask = |question: &str| {
            let output = Command::new(program).arg(question).output().ok()?;
            let answer = String::from_utf8(output.stdout).ok()?;
            output.status.success().then(|| answer.trim().to_owned())
        };
        let major = ask("--version")?.split('.').next()?.parse().ok();
        let prefix = (major == Some(LLVM)).then(|| ask("--prefix")).flatten()?;
        let has_library = |lib| Path::new(&prefix).join(lib).join("libLLVM.so").exists();
        (has_library("lib64") || has_library("lib")).then(|| prefix.into())
    })
}

/// The shared LLVM of a compiler: `libLLVM.so.22.1-rust-1.97.0-nightly` in one of rustup's
/// toolchains, `x86_64-linux-gnu/libLLVM.so.22.1` in Debian's.
fn library_of(compiler: &Compiler) -> Option<PathBuf> {
    let prefix = format!("libLLVM.so.{}.", compiler.llvm());
    let lib = compiler.sysroot().join("lib");
    let multiarch = lib.join(format!("{}-linux-gnu", env::consts::ARCH));
    [lib, multiarch]
        .iter()
        .filter_map(|directory| fs::read_dir(directory).ok())
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(&prefix))
        })
}

/// Makes a directory to link against: the library under the name that the linker looks for, and
/// under its own, for which the finished program looks in the same place.
fn link_library(library: &Path, tools: &Path) -> Result<PathBuf> {
    let prefix = tools.join("llvm");
    let lib = prefix.join("lib");
    let own_name = library.file_name().context("a library has a name")?;
    let make = || {
        if lib.exists() {
            fs::remove_dir_all(&lib)?;
        }
        fs::create_dir_all(&lib)?;
        symlink(library, lib.join("libLLVM.so"))?;
        symlink(library, lib.join(own_name))
    };
    make().with_context(|| format!("cannot link {} into {}", library.display(), lib.display()))?;
    Ok(prefix)
}

/// For the toolchain that builds everything but the XDP programs.
fn install_host_lints(manager: Option<Manager>) -> Result<()> {
    // Set by rustup's cargo for what it starts.
    if env::var_os("RUSTUP_TOOLCHAIN").is_some() {
        return shell::run(Command::new("rustup").args(["component", "add", "rustfmt", "clippy"]));
    }
    let Some((manager, rust)) = with_rust(manager) else {
        bail!("`cargo fmt` or `cargo clippy` is missing: install rustfmt and clippy");
    };
    preflight::require_root("to install rustfmt and clippy")?;
    manager.install(&[rust.format, rust.lints])
}

/// For the toolchain that builds the XDP programs. Whether it could be had.
fn install_clippy(compiler: &Compiler, manager: Option<Manager>) -> Result<bool> {
    if compiler.is_rustups() {
        let mut command = Command::new("rustup");
        command.args(["component", "add", "clippy", "--toolchain", compiler.name()]);
        step("adding clippy for the XDP programs", || quietly(command))?;
        return Ok(true);
    }
    if compiler.sysroot() != Path::new("/usr") || !preflight::is_root() {
        return Ok(false);
    }
    let Some((manager, rust)) = with_rust(manager) else {
        return Ok(false);
    };
    step(&format!("installing {}", rust.lints), || {
        manager.install(&[rust.lints])
    })?;
    Ok(true)
}

/// Which of the distribution's is installed, and what installed it.
fn with_rust(manager: Option<Manager>) -> Option<(Manager, &'static Packaged)> {
    let manager = manager?;
    let owner = manager.owner("/usr/bin/rustc")?;
    let rust = DEBIAN.iter().find(|rust| rust.rustc == owner)?;
    Some((manager, rust))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_found_under_the_linkers_name_and_its_own() {
        let tools = env::temp_dir().join(format!("xtask-tools-{}", std::process::id()));
        let library = Path::new("/opt/rust/lib/libLLVM.so.22.1-rust-1.97.0-nightly");
        // The second time replaces the first, as after an update of the toolchain.
        for _ in 0..2 {
            let prefix = link_library(library, &tools).unwrap();
            for name in ["libLLVM.so", "libLLVM.so.22.1-rust-1.97.0-nightly"] {
                assert_eq!(
                    fs::read_link(prefix.join("lib").join(name)).unwrap(),
                    library
                );
            }
        }
        fs::remove_dir_all(tools).unwrap();
    }
}
