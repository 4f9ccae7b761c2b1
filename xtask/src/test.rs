//! `cargo xtask test`: every check and every test, and at the end how many.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, anyhow};
use lb_toolchain::{Compiler, Linker};

use crate::{
    build,
    count::Count,
    preflight,
    setup::{self, Group},
    shell::{cargo, root},
    toolchain,
};

/// What to run.
pub(crate) struct Options {
    /// Only what needs no root.
    pub(crate) host: bool,
    /// Only tests with this in their name.
    pub(crate) filter: Option<String>,
}

/// A step of the run.
struct Step {
    name: &'static str,
    work: Work,
}

enum Work {
    /// Prints its tests' results.
    Run(Command),
    /// Is one test itself.
    Test(Command),
    Skip(String),
}

/// Runs all steps, also after one has failed, so that one run shows all failures.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    if !options.host {
        preflight::check().map_err(|lack| {
            anyhow!("{lack:#}\n(`cargo xtask test --host` runs what needs none of this)")
        })?;
    }
    let mut groups = vec![Group::Build];
    if options.filter.is_none() {
        groups.push(Group::Lint);
    }
    if !options.host {
        groups.push(Group::Network);
    }
    setup::run(&groups)?;
    if !options.host {
        preflight::check_veth()?;
    }

    let steps = steps(options)?;
    let of = steps.len();
    let mut total = Count::default();
    let mut failed = Vec::new();
    for (number, Step { name, work }) in (1..).zip(steps) {
        let (mut command, is_test) = match work {
            Work::Run(command) => (command, false),
            Work::Test(command) => (command, true),
            Work::Skip(reason) => {
                eprintln!("── [{number}/{of}] {name}: skipped, {reason}");
                continue;
            }
        };
        eprintln!("── [{number}/{of}] {name} …");
        let start = Instant::now();
        let (mut count, success) =
            counted(&mut command).with_context(|| format!("cannot run {name}"))?;
        if success && is_test {
            count.passed += 1;
        }
        if !success {
            // One that fails without a failing test (format, lints, a build) counts as one.
            count.failed = count.failed.max(1);
            failed.push(name);
        }
        total.add(count);
        let outcome = if success { "ok" } else { "FAILED" };
        eprintln!(
            "── [{number}/{of}] {name}: {outcome} after {:.1} s",
            start.elapsed().as_secs_f64()
        );
    }

    let none = total.passed + total.failed == 0;
    if none {
        eprintln!("no test ran");
    }
    if !failed.is_empty() {
        eprintln!("FAILED: {}", failed.join(", "));
    }
    // Alone and last, for whoever reads only that.
    println!("{total}");
    Ok(if none || total.failed > 0 {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn steps(options: &Options) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    if options.filter.is_none() {
        steps.push(Step {
            name: "format",
            work: Work::Run(with(&["fmt", "--all", "--check"])),
        });
        let lints = ["clippy", "--workspace", "--all-targets", "--quiet"];
        steps.push(Step {
            name: "lints",
            work: Work::Run(with(&[&lints[..], &["--", "-D", "warnings"]].concat())),
        });
        steps.push(Step {
            name: "lints of the XDP programs",
            work: lints_of_the_programs()?,
        });
    }

    let mut tests = with(&["test", "--workspace", "--no-fail-fast"]);
    if options.host {
        tests.args(["--exclude", "lb-tests"]);
    }
    if let Some(filter) = &options.filter {
        tests.arg("--").arg(filter);
    }
    steps.push(Step {
        name: "tests",
        work: Work::Run(tests),
    });

    // In a directory of its own: the flag would rebuild everything else.
    let mut loom = with(&["test", "--package", "lb-common", "--lib", "--release"]);
    loom.env("RUSTFLAGS", "--cfg loom")
        .arg("--target-dir")
        .arg(build::directory()?.join("loom"))
        .args(["--", options.filter.as_deref().unwrap_or("loom")]);
    let interleavings = match &options.filter {
        Some(filter) if !filter.contains("loom") => {
            Work::Skip("its tests have `loom` in their names".to_owned())
        }
        _ => Work::Run(loom),
    };
    steps.push(Step {
        name: "interleavings of the connection table (loom)",
        work: interleavings,
    });
    for (name, seed) in [
        ("packets against the model, by a fixed seed", Some("1")),
        ("packets against the model, by a new seed", None),
    ] {
        steps.push(Step {
            name,
            work: packets_against_the_model(options, seed),
        });
    }
    steps.push(Step {
        name: "cost of a packet against an earlier run's",
        work: cost_of_a_packet(options),
    });
    Ok(steps)
}

/// Packets for about a minute.
const FUZZED: &str = "1000000";

/// `lb-fuzz` as it was built for the tests. Without a seed it takes and prints a new one.
fn packets_against_the_model(options: &Options, seed: Option<&str>) -> Work {
    if options.host {
        return Work::Skip("it needs root".to_owned());
    }
    if let Some(filter) = options.filter.as_deref()
        && !"fuzz".contains(filter)
    {
        return Work::Skip("its name is `fuzz`".to_owned());
    }
    let mut command = with(&["run", "--quiet", "--package", "lb-tests"]);
    command.args(["--bin", "lb-fuzz", "--", "--packets", FUZZED]);
    if let Some(seed) = seed {
        command.args(["--seed", seed]);
    }
    Work::Test(command)
}

/// By how many percent the cost of a packet, as a multiple of the least one, may exceed what another
/// machine has measured: caches, and what a CPU does against its own bugs, make much of a difference.
/// What is left is a path that has become several times slower, and a program that no longer does
/// what is measured.
const TOLERANCE: &str = "100";

/// `lb-bench` as it was built for the tests, in its short form: what a packet costs, and what it
/// executes, which is held against the kernel.
fn cost_of_a_packet(options: &Options) -> Work {
    if options.host {
        return Work::Skip("it needs root".to_owned());
    }
    if let Some(filter) = options.filter.as_deref()
        && !"bench".contains(filter)
    {
        return Work::Skip("its name is `bench`".to_owned());
    }
    let mut command = with(&[
        "run",
        "--quiet",
        "--package",
        "lb-tests",
        "--bin",
        "lb-bench",
    ]);
    command
        .args(["--", "--quick", "--only", "program", "--only", "paths"])
        .args(["--tolerance", TOLERANCE, "--against"])
        .arg(root().join("tests/bench/baseline.json"));
    Work::Test(command)
}

fn with(arguments: &[&str]) -> Command {
    let mut command = cargo();
    command.args(arguments);
    command
}

/// Clippy for the BPF target, as the build script of `lb-userspace` compiles for it.
fn lints_of_the_programs() -> Result<Work> {
    let compiler = Compiler::find()?;
    if !toolchain::has_clippy(&compiler) {
        return Ok(Work::Skip(format!("there is no clippy for {compiler}")));
    }
    let linker = Linker::find(&compiler)?;
    let mut command = compiler.command("cargo");
    command
        .current_dir(root())
        .args(["clippy", "--package", "lb-ebpf", "--bins", "--quiet"])
        .args(["--release", "-Z", "build-std=core"])
        .args(["--target", "bpfel-unknown-none", "--target-dir"])
        .arg(build::directory()?.join("clippy-bpf"))
        .args(["--", "-D", "warnings"])
        // Like aya-build: flags of the user are meant for the host.
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            format!("--cfg=bpf_target_arch=\"{}\"", std::env::consts::ARCH),
        )
        .envs(linker.variables());
    Ok(Work::Run(command))
}

/// Runs a command, shows its output as it comes, and adds up cargo's test results.
fn counted(command: &mut Command) -> Result<(Count, bool)> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut count = Count::default();
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).split(b'\n') {
            let line = line?;
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            if let Some(result) = Count::parse(&line) {
                count.add(result);
            }
        }
    }
    Ok((count, child.wait()?.success()))
}
