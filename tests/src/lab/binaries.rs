use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::{Context, Result, anyhow, ensure};

use super::process::output;

/// Where the programs under test are.
#[derive(Clone, Debug)]
pub struct Binaries {
    directory: PathBuf,
}

impl Binaries {
    /// `$LB_BIN_DIR` where it is set; otherwise the target directory that the running program
    /// lies in, after its `lbd` and `lbctl` have been built, once in a process.
    ///
    /// Cargo builds the binaries of a package for the tests of that package only, so the tests of
    /// this one ask it to. Cargo itself knows best what is up to date, and costs a fraction of a
    /// second where everything is.
    pub fn locate() -> Result<Self> {
        static FOUND: OnceLock<Result<Binaries, String>> = OnceLock::new();
        FOUND
            .get_or_init(|| {
                match env::var_os("LB_BIN_DIR") {
                    Some(directory) => Self::inside(Path::new(&directory)),
                    None => Self::build(),
                }
                .map_err(|error| format!("{error:#}"))
            })
            .clone()
            .map_err(|error| anyhow!(error))
    }

    /// Those in a directory of the caller's choice.
    pub fn inside(directory: &Path) -> Result<Self> {
        let binaries = Self {
            directory: directory.to_owned(),
        };
        for program in [binaries.lbd(), binaries.lbctl()] {
            ensure!(
                program.is_file(),
                "there is no {}; set LB_BIN_DIR to the directory of lbd and lbctl",
                program.display()
            );
        }
        Ok(binaries)
    }

    pub fn lbd(&self) -> PathBuf {
        self.directory.join("lbd")
    }

    pub fn lbctl(&self) -> PathBuf {
        self.directory.join("lbctl")
    }

    fn build() -> Result<Self> {
        let ours = env::current_exe().context("cannot find the running program")?;
        let place = Place::of(&ours)
            .with_context(|| format!("{} is in no target directory", ours.display()))?;
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo
            .args(["build", "--quiet", "--package", "lb-userspace", "--bins"])
            .args(["--profile", place.profile, "--manifest-path"])
            .arg(manifest)
            .arg("--target-dir")
            .arg(place.target);
        output(&mut cargo)?;
        Self::inside(place.binaries)
    }
}

/// A program of this package, in the target directory that the running program lies in.
///
/// Cargo builds it for the tests of this package; others build it themselves.
pub(super) fn beside_us(name: &str) -> Result<PathBuf> {
    let ours = env::current_exe().context("cannot find the running program")?;
    let place = Place::of(&ours)
        .with_context(|| format!("{} is in no target directory", ours.display()))?;
    let program = place.binaries.join(name);
    ensure!(
        program.is_file(),
        "there is no {}; build it with `cargo build --package lb-tests --bins`",
        program.display()
    );
    Ok(program)
}

/// Where a program lies that Cargo built: `TARGET/PROFILE/name`, or `TARGET/PROFILE/deps/name` and
/// `TARGET/PROFILE/examples/name`.
#[derive(Debug, PartialEq, Eq)]
struct Place<'a> {
    target: &'a Path,
    profile: &'a str,
    binaries: &'a Path,
}

impl<'a> Place<'a> {
    fn of(program: &'a Path) -> Option<Self> {
        let directory = program.parent()?;
        let binaries = match directory.file_name()?.to_str()? {
            "deps" | "examples" => directory.parent()?,
            _ => directory,
        };
        let profile = match binaries.file_name()?.to_str()? {
            // The directory of the profile `dev` bears an older name.
            "debug" => "dev",
            other => other,
        };
        Some(Self {
            target: binaries.parent()?,
            profile,
            binaries,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_directory_is_found_from_a_program_inside() {
        for (program, profile, binaries) in [
            ("/w/target/debug/deps/lab-1f", "dev", "/w/target/debug"),
            ("/w/target/release/xtask", "release", "/w/target/release"),
        ] {
            let expected = Place {
                target: Path::new("/w/target"),
                profile,
                binaries: Path::new(binaries),
            };
            assert_eq!(Place::of(Path::new(program)), Some(expected));
        }
    }

    #[test]
    fn a_directory_without_the_programs_is_refused() {
        let empty = tempfile::tempdir().unwrap();
        let error = Binaries::inside(empty.path()).unwrap_err().to_string();
        assert!(error.contains("LB_BIN_DIR"), "{error}");
    }
}
