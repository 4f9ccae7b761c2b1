//! `cargo xtask test`: every check and every test, and at the end how many.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    preflight,
    setup::{self, Group},
    shell::{cargo, root},
};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only what needs no root: format, lints, unit and property tests
    #[arg(long)]
    host: bool,
    /// Only tests whose name contains this
    filter: Option<String>,
}

/// A step of the run.
struct Step {
    name: &'static str,
    command: Command,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    passed: u64,
    failed: u64,
    skipped: u64,
}

/// Runs all steps, also after one has failed, so that one run shows all failures.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if !arguments.host {
        preflight::require_root(
            "to load XDP programs and to make network namespaces (`--host` runs what needs none)",
        )?;
    }
    let groups: &[Group] = if arguments.host {
        &[Group::Build]
    } else {
        &[Group::Build, Group::Network]
    };
    setup::run(groups)?;
    if !arguments.host {
        preflight::check()?;
    }
    let steps = steps(arguments);
    let of = steps.len();
    let mut total = Count::default();
    let mut failed = Vec::new();
    for (n, Step { name, mut command }) in steps.into_iter().enumerate() {
        eprintln!("── [{}/{of}] {name} …", n + 1);
        let start = Instant::now();
        let (count, success) =
            counted(&mut command).with_context(|| format!("cannot run {name}"))?;
        total.add(count);
        if !success {
            failed.push(name);
        }
        let outcome = if success { "ok" } else { "FAILED" };
        eprintln!(
            "── [{}/{of}] {name}: {outcome} after {:.0} s",
            n + 1,
            start.elapsed().as_secs_f64()
        );
    }
    // A step that fails without a failing test (format, lints, a build) counts as one.
    total.failed += failed.len().saturating_sub(total.failed as usize) as u64;
    for name in &failed {
        println!("FAILED: {name}");
    }
    println!("{}", total.line());
    if !failed.is_empty() || total.failed > 0 {
        bail!("{} of {of} steps failed", failed.len());
    }
    if total.passed == 0 {
        bail!("no test ran");
    }
    Ok(())
}

fn steps(arguments: &Arguments) -> Vec<Step> {
    let with = |arguments: &[&str]| {
        let mut command = cargo();
        command.args(arguments);
        command
    };
    let filtered = |mut command: Command| {
        if let Some(filter) = &arguments.filter {
            command.arg("--").arg(filter);
        }
        command
    };
    let mut steps = Vec::new();
    if arguments.filter.is_none() {
        steps.push(Step {
            name: "format",
            command: with(&["fmt", "--all", "--check"]),
        });
        steps.push(Step {
            name: "lints",
            command: with(&[
                "clippy",
                "--workspace",
                "--all-targets",
                "--quiet",
                "--",
                "-D",
                "warnings",
            ]),
        });
        steps.push(Step {
            name: "lints of the XDP programs",
            command: lints_of_the_programs(),
        });
    }
    let excluded: &[&str] = if arguments.host {
        &["--exclude", "lb-tests"]
    } else {
        &[]
    };
    let all = ["test", "--workspace", "--no-fail-fast"];
    steps.push(Step {
        name: "tests",
        command: filtered(with(&[&all[..], excluded].concat())),
    });
    // In a directory of its own: the flag would rebuild everything else.
    let mut loom = with(&["test", "--package", "lb-common", "--lib", "--release"]);
    loom.env("RUSTFLAGS", "--cfg loom")
        .env("CARGO_TARGET_DIR", root().join("target/loom"))
        .args(["--", "loom"]);
    steps.push(Step {
        name: "interleavings of the connection table (loom)",
        command: loom,
    });
    steps
}

/// Clippy on the BPF target, where the toolchain that builds the programs has clippy.
fn lints_of_the_programs() -> Command {
    let mut command = Command::new("sh");
    command.current_dir(root()).args(["-c", LINT_PROGRAMS]);
    command
}

/// The distribution's compiler comes without clippy: then there is nothing to run, and we say so.
const LINT_PROGRAMS: &str = r#"
for toolchain in ${LB_EBPF_TOOLCHAIN:-nightly-2026-05-20 nightly}; do
    sysroot=$(rustup run "$toolchain" rustc --print sysroot 2>/dev/null) || continue
    [ -d "$sysroot/lib/rustlib/src/rust/library/core" ] || continue
    [ -x "$sysroot/bin/cargo-clippy" ] || continue
    export CARGO_ENCODED_RUSTFLAGS='--cfg=bpf_target_arch="x86_64"' RUSTC_BOOTSTRAP=1
    exec rustup run "$toolchain" cargo clippy --quiet --package lb-ebpf --bins --release \
        -Z build-std=core --target bpfel-unknown-none --target-dir target/clippy-bpf -- -D warnings
done
echo 'skipped: no toolchain here has both clippy and the source of the standard library'
"#;

/// Runs a command, shows its output as it comes, and adds up cargo's test results.
fn counted(command: &mut Command) -> Result<(Count, bool)> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut count = Count::default();
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).lines() {
            let line = line?;
            println!("{line}");
            if let Some(result) = Count::parse(&line) {
                count.add(result);
            }
        }
    }
    Ok((count, child.wait()?.success()))
}

impl Count {
    /// From `test result: ok. 27 passed; 0 failed; 1 ignored; …`.
    fn parse(line: &str) -> Option<Self> {
        let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
        let number = |what: &str| {
            counts
                .split("; ")
                .find_map(|part| part.strip_suffix(what)?.trim().parse().ok())
        };
        Some(Self {
            passed: number("passed")?,
            failed: number("failed")?,
            skipped: number("ignored")?,
        })
    }

    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    fn line(self) -> String {
        let mut line = format!("{} passed, {} failed", self.passed, self.failed);
        if self.skipped > 0 {
            line.push_str(&format!(", {} skipped", self.skipped));
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_read_and_added() {
        let line = "test result: FAILED. 27 passed; 2 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.03s";
        let mut count = Count::parse(line).unwrap();
        assert_eq!(
            count,
            Count {
                passed: 27,
                failed: 2,
                skipped: 1
            }
        );
        count.add(Count {
            passed: 1,
            failed: 0,
            skipped: 0,
        });
        assert_eq!(count.line(), "28 passed, 2 failed, 1 skipped");
        assert_eq!(Count::parse("running 27 tests"), None);
        assert_eq!(Count::default().line(), "0 passed, 0 failed");
    }
}
