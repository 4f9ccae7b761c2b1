//! bpf-linker, which turns rustc's bitcode into a BPF object.

use std::env;
use std::error::Error;
use std::fmt;
use std::fs;
use std::io::BufRead as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::path::{find_program, is_executable};
use crate::{Compiler, MEND};

const PROGRAM: &str = "bpf-linker";

/// A bpf-linker that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linker {
    path: PathBuf,
    /// Major version of the LLVM in it; `None` if its file does not tell.
    llvm: Option<u32>,
}

impl Linker {
    /// The first bpf-linker that reads what `compiler` writes: of `PATH`, of cargo's programs, of
    /// [`tools_dir`].
    ///
    /// # Errors
    /// There is none; the error names each one that does not fit.
    pub fn find(compiler: &Compiler) -> Result<Self, NoLinker> {
        let mut unfit = Vec::new();
        for path in places() {
            match inspect(&path, compiler.llvm()) {
                Ok(linker) => return Ok(linker),
                Err(reason) => unfit.push((path, reason)),
            }
        }
        Err(NoLinker {
            llvm: compiler.llvm(),
            unfit,
        })
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Variables that make any cargo link for BPF with it. By its path, because cargo's directory
    /// of programs need not be in `PATH` and another bpf-linker may come first there.
    pub fn variables(&self) -> [(&'static str, &Path); 2] {
        [
            ("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &self.path),
            ("CARGO_TARGET_BPFEB_UNKNOWN_NONE_LINKER", &self.path),
        ]
    }
}

impl fmt::Display for Linker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.llvm {
            Some(llvm) => write!(f, "{PROGRAM} (LLVM {llvm})"),
            None => f.write_str(PROGRAM),
        }
    }
}

/// There is no bpf-linker that fits the compiler.
#[derive(Debug)]
pub struct NoLinker {
    llvm: u32,
    unfit: Vec<(PathBuf, Unfit)>,
}

impl Error for NoLinker {}

impl fmt::Display for NoLinker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.unfit.is_empty() {
            write!(f, "{PROGRAM} is missing, which links the XDP programs")?;
        } else {
            write!(
                f,
                "no {PROGRAM} here reads what a rustc with LLVM {} writes (",
                self.llvm
            )?;
            for (number, (path, reason)) in self.unfit.iter().enumerate() {
                let separator = if number == 0 { "" } else { "; " };
                write!(f, "{separator}{}: {reason}", path.display())?;
            }
            f.write_str(")")?;
        }
        write!(f, "; {MEND}")
    }
}

/// Why a bpf-linker cannot be used.
#[derive(Debug, PartialEq, Eq)]
enum Unfit {
    /// It does not start; it may have lost the library of LLVM that it was linked against.
    Start,
    /// Its LLVM is too old.
    Old(u32),
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start => f.write_str("does not start"),
            Self::Old(llvm) => write!(f, "LLVM {llvm}"),
        }
    }
}

/// Cargo's directory of caches and programs: `$CARGO_HOME`, or else `~/.cargo`.
pub fn cargo_home() -> Option<PathBuf> {
    match env::var_os("CARGO_HOME").filter(|home| !home.is_empty()) {
        Some(home) => Some(home.into()),
        None => env::home_dir().map(|home| home.join(".cargo")),
    }
}

/// Where `cargo xtask setup` installs a linker: below [`cargo_home`], apart from its `bin`, so
/// that a bpf-linker which is there for other projects is left alone.
pub fn tools_dir() -> Option<PathBuf> {
    cargo_home().map(|home| home.join("lb-tools"))
}

fn places() -> Vec<PathBuf> {
    let of_cargo = [cargo_home(), tools_dir()]
        .into_iter()
        .flatten()
        .map(|root| root.join("bin").join(PROGRAM))
        .filter(|path| is_executable(path));
    let mut places: Vec<PathBuf> = find_program(PROGRAM).into_iter().chain(of_cargo).collect();
    places.dedup();
    places
}

fn inspect(path: &Path, needed: u32) -> Result<Linker, Unfit> {
    let starts = Command::new(path)
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success());
    if !starts {
        return Err(Unfit::Start);
    }
    let llvm = fs::read(path).ok().and_then(|binary| llvm_in(&binary));
    match llvm {
        Some(llvm) if llvm < needed => Err(Unfit::Old(llvm)),
        _ => Ok(Linker {
            path: path.to_owned(),
            llvm,
        }),
    }
}

/// The major version of the LLVM in or behind a program, which bpf-linker itself does not tell:
/// from the name of the shared library (`libLLVM.so.22.1`, `libLLVM-22.so`), or from the mark that
/// LLVM leaves in bitcode, where it is linked in (`LLVM22.1.8`).
fn llvm_in(binary: &[u8]) -> Option<u32> {
    let mut rest = binary;
    // `skip_until` because it is the standard library's own search, fast even in a debug build:
    // these programs have tens of megabytes.
    while rest.skip_until(b'V').is_ok_and(|skipped| skipped > 0) {
        let read = &binary[..binary.len() - rest.len()];
        if !read.ends_with(b"LLV") {
            continue;
        }
        if let Some(version) = rest.strip_prefix(b"M").and_then(version) {
            return Some(version);
        }
    }
    None
}

/// The two digits of a major version, with what may stand before and must stand behind them.
fn version(text: &[u8]) -> Option<u32> {
    let text = text
        .strip_prefix(b".so.")
        .or_else(|| text.strip_prefix(b"-"))
        .unwrap_or(text);
    match *text {
        [tens @ b'1'..=b'9', ones @ b'0'..=b'9', b'.' | b'-', ..] => {
            Some(u32::from(tens - b'0') * 10 + u32::from(ones - b'0'))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llvm_is_found_by_library_name_or_by_its_mark() {
        for (binary, expected) in [
            (&b"\x7fELF\0libLLVM.so.22.1\0libc.so.6\0"[..], Some(22)),
            (b"\0libLLVM.so.22.1-rust-1.97.0-nightly\0", Some(22)),
            (b"\0libLLVM-17-rust-1.75.0-stable.so\0", Some(17)),
            (b"\0LLVM0700\0LLVM23.1.0-rc2\0", Some(23)),
            (b"LLVM 22 builds also support", None),
            (b"LLVM_SYS_221_PREFIX", None),
            (b"ends in LLVM", None),
            (b"ends in LLV", None),
            (b"", None),
        ] {
            assert_eq!(llvm_in(binary), expected, "{}", binary.escape_ascii());
        }
    }

    #[test]
    fn a_program_that_does_not_start_is_refused() {
        assert_eq!(inspect(Path::new("/bin/false"), 22), Err(Unfit::Start));
    }

    #[test]
    fn the_error_says_what_each_linker_is() {
        let none = NoLinker {
            llvm: 22,
            unfit: Vec::new(),
        };
        assert!(none.to_string().starts_with("bpf-linker is missing"));
        let old = NoLinker {
            llvm: 22,
            unfit: vec![("/opt/bpf-linker".into(), Unfit::Old(21))],
        };
        assert_eq!(
            old.to_string(),
            "no bpf-linker here reads what a rustc with LLVM 22 writes \
             (/opt/bpf-linker: LLVM 21); mend: run `cargo xtask setup`"
        );
    }
}
