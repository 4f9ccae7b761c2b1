//! The Rust toolchain for the XDP programs.

use std::error::Error;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::path::{find_program, is_executable, path_with};
use crate::places::{Place, candidates, installed, named};
use crate::{LLVM, MEND};

/// Names the toolchain to use, instead of the first one that fits: what `rustup run` takes (the
/// name of a toolchain or the path of one).
const OVERRIDE: &str = "LB_EBPF_TOOLCHAIN";

/// A toolchain that brings the source of `core`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiler {
    name: String,
    sysroot: PathBuf,
    version: String,
    llvm: u32,
    rustup: Option<PathBuf>,
}

impl Compiler {
    /// The toolchain named by the environment variable `LB_EBPF_TOOLCHAIN`, or else the first one
    /// with the source of `core` and LLVM [`LLVM`]: the pinned nightly, the others that rustup has
    /// installed, the one in `PATH`, the distribution's.
    ///
    /// # Errors
    /// There is none; the error says which ones were looked at and what each lacks.
    pub fn find() -> Result<Self, NoCompiler> {
        let rustup = find_program("rustup");
        let installed = rustup.as_deref().map(installed).unwrap_or_default();
        if let Some(wanted) = std::env::var_os(OVERRIDE).filter(|name| !name.is_empty()) {
            let wanted = wanted.to_string_lossy().into_owned();
            let place = named(&wanted, &installed);
            return inspect(&place, rustup.as_deref(), AnyLlvm::Yes)
                .map_err(|lack| NoCompiler::Named(place.name, lack));
        }
        let mut looked_at = Vec::new();
        for place in candidates(installed, rustup.is_none().then(sysroot_in_path).flatten()) {
            match inspect(&place, rustup.as_deref(), AnyLlvm::No) {
                Ok(compiler) => return Ok(compiler),
                Err(lack) => looked_at.push((place.name, lack)),
            }
        }
        Err(NoCompiler::Fits(looked_at))
    }

    /// What `rustup run` calls it: a name, or the path of its installation.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The directory that holds its `bin` and `lib`.
    pub fn sysroot(&self) -> &Path {
        &self.sysroot
    }

    /// As `rustc --version` prints it, without the word `rustc`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The major version of its LLVM.
    pub fn llvm(&self) -> u32 {
        self.llvm
    }

    /// Whether rustup installed it, so that rustup can add components to it.
    pub fn is_rustups(&self) -> bool {
        self.rustup.is_some() && !self.name.starts_with('/')
    }

    /// The value of `PATH` that makes a plain `cargo` this toolchain's. `None` where rustup
    /// chooses it by [`name`](Self::name), whatever the `PATH`.
    pub fn search_path(&self) -> Option<OsString> {
        match self.rustup {
            Some(_) => None,
            None => path_with(&self.sysroot.join("bin")),
        }
    }

    /// One of its programs, `cargo` for example, allowed to use unstable features.
    pub fn command(&self, program: &str) -> Command {
        let mut command = match &self.rustup {
            Some(rustup) => {
                let mut command = Command::new(rustup);
                command.args(["run", &self.name, program]);
                command
            }
            None => Command::new(self.sysroot.join("bin").join(program)),
        };
        if let Some(path) = self.search_path() {
            command.env("PATH", path);
        }
        // Set by an outer cargo, they would name the outer toolchain's programs.
        for variable in ["RUSTC", "RUSTDOC", "CARGO", "RUSTC_WORKSPACE_WRAPPER"] {
            command.env_remove(variable);
        }
        command.env("RUSTC_BOOTSTRAP", "1");
        command
    }
}

impl fmt::Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "rustc {} (LLVM {}, {})",
            self.version, self.llvm, self.name
        )
    }
}

/// Why there is no [`Compiler`].
#[derive(Debug)]
pub enum NoCompiler {
    /// The one that `LB_EBPF_TOOLCHAIN` names cannot build the programs.
    Named(String, Lack),
    /// None of those that were looked at can.
    Fits(Vec<(String, Lack)>),
}

impl Error for NoCompiler {}

impl fmt::Display for NoCompiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name, lack) => {
                write!(f, "{OVERRIDE} names the Rust toolchain `{name}`: {lack}")
            }
            Self::Fits(looked_at) => {
                write!(
                    f,
                    "no Rust toolchain here can build the XDP programs, which takes the component \
                     rust-src and LLVM {LLVM} (looked at: "
                )?;
                for (number, (name, lack)) in looked_at.iter().enumerate() {
                    let separator = if number == 0 { "" } else { "; " };
                    write!(f, "{separator}{name}: {lack}")?;
                }
                write!(f, "); {MEND}")
            }
        }
    }
}

/// What a toolchain lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lack {
    /// There is no such toolchain.
    Toolchain,
    /// The source of `core`.
    Source,
    /// Its compiler does not run, or does not say what it is.
    Runs,
    /// The right LLVM; it has this one.
    Llvm(u32),
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Toolchain => f.write_str("not installed"),
            Self::Source => f.write_str("no rust-src"),
            Self::Runs => f.write_str("its rustc does not run"),
            Self::Llvm(llvm) => write!(f, "LLVM {llvm}"),
        }
    }
}

#[derive(PartialEq, Eq)]
enum AnyLlvm {
    Yes,
    No,
}

/// The installation that `rustc` belongs to, where no rustup manages them.
fn sysroot_in_path() -> Option<PathBuf> {
    let output = Command::new("rustc")
        .args(["--print", "sysroot"])
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let sysroot = String::from_utf8(output.stdout).ok()?;
    Some(PathBuf::from(sysroot.trim()))
}

/// Looks at a toolchain's files first, and runs its compiler only where those are right: with
/// rustup from a distribution, `/usr/bin/rustc` is rustup itself and would call itself for ever.
fn inspect(place: &Place, rustup: Option<&Path>, any: AnyLlvm) -> Result<Compiler, Lack> {
    let sysroot = place.sysroot.as_ref().ok_or(Lack::Toolchain)?;
    let rustc = sysroot.join("bin/rustc");
    if !is_executable(&rustc) || !is_executable(&sysroot.join("bin/cargo")) {
        return Err(Lack::Toolchain);
    }
    if !sysroot.join("lib/rustlib/src/rust/library/core").is_dir() {
        return Err(Lack::Source);
    }
    let output = Command::new(&rustc)
        .arg("-vV")
        .output()
        .ok()
        .filter(|output| output.status.success())
        .ok_or(Lack::Runs)?;
    let (version, llvm) =
        parse_version(&String::from_utf8_lossy(&output.stdout)).ok_or(Lack::Runs)?;
    if llvm != LLVM && any == AnyLlvm::No {
        return Err(Lack::Llvm(llvm));
    }
    Ok(Compiler {
        name: place.name.clone(),
        sysroot: sysroot.clone(),
        version,
        llvm,
        rustup: rustup.map(Path::to_owned),
    })
}

/// Release and LLVM major version, from what `rustc -vV` prints.
fn parse_version(text: &str) -> Option<(String, u32)> {
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key));
    let release = value("release: ")?.trim();
    let llvm = value("LLVM version: ")?.trim();
    let major = llvm.split('.').next()?.parse().ok()?;
    Some((release.to_owned(), major))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_lacks_the_toolchain() {
        let missing = Place::at("/nonexistent");
        assert_eq!(inspect(&missing, None, AnyLlvm::Yes), Err(Lack::Toolchain));
    }

    #[test]
    fn release_and_llvm_are_read_from_rustc() {
        let text = "rustc 1.97.0-nightly (e50aa6fba 2026-05-19)\nbinary: rustc\n\
                    host: x86_64-unknown-linux-gnu\nrelease: 1.97.0-nightly\nLLVM version: 22.1.4\n";
        assert_eq!(parse_version(text), Some(("1.97.0-nightly".to_owned(), 22)));
        assert_eq!(parse_version("rustc 1.97.0\n"), None);
    }

    #[test]
    fn the_error_names_each_toolchain_its_lack_and_the_mend() {
        let error = NoCompiler::Fits(vec![
            ("stable".to_owned(), Lack::Source),
            ("nightly".to_owned(), Lack::Llvm(23)),
        ]);
        let text = error.to_string();
        assert!(
            text.contains(
                "(looked at: stable: no rust-src; nightly: LLVM 23); mend: run `cargo xtask setup`"
            ),
            "{text}"
        );
    }
}
