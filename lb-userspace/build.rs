//! Builds the XDP programs of `lb-ebpf` for the BPF target and leaves them in `OUT_DIR`, one file
//! per program, where the data plane and the tests include them as bytes.
//!
//! With `AYA_BUILD_SKIP=1` it leaves empty files: lint and unit tests then need no BPF toolchain,
//! and the daemon refuses to load what is empty.

use std::path::PathBuf;
use std::{env, fs};

use anyhow::Context as _;
use lb_toolchain::{Compiler, Linker};

const PROGRAMS: [&str; 3] = ["lb", "lb-decap", "lb-lab"];

/// Beside the sources of `lb-ebpf`, which aya-build names itself, all that goes into a program.
const INPUTS: [&str; 4] = [
    "../Cargo.lock",
    "../Cargo.toml",
    "../lb-common/Cargo.toml",
    "../lb-common/src",
];

fn main() -> anyhow::Result<()> {
    for input in INPUTS {
        println!("cargo::rerun-if-changed={input}");
    }
    for variable in ["AYA_BUILD_SKIP", "LB_EBPF_TOOLCHAIN"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }

    if env::var("AYA_BUILD_SKIP").is_ok_and(|skip| skip == "1" || skip == "true") {
        let out_dir = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is not set")?);
        for program in PROGRAMS {
            fs::write(out_dir.join(program), []).context("cannot write an empty program")?;
        }
        return Ok(());
    }

    let compiler = Compiler::find()?;
    let linker = Linker::find(&compiler)?;
    // SAFETY: the process has one thread, so nothing reads the environment meanwhile. It is this
    // build script's own environment: only the cargo that it starts next inherits the change.
    unsafe {
        // The programs need `-Z build-std` and unstable features, of a stable compiler too.
        env::set_var("RUSTC_BOOTSTRAP", "1");
        // aya-build turns each line of that cargo's progress into a warning of ours.
        env::set_var("CARGO_TERM_QUIET", "true");
        for (variable, path) in linker.variables() {
            env::set_var(variable, path);
        }
        if let Some(path) = compiler.search_path() {
            env::set_var("PATH", path);
        }
    }
    aya_build::build_ebpf(
        [aya_build::Package {
            name: "lb-ebpf",
            root_dir: concat!(env!("CARGO_MANIFEST_DIR"), "/../lb-ebpf"),
            ..aya_build::Package::default()
        }],
        aya_build::Toolchain::Custom(compiler.name()),
    )
    .with_context(|| format!("cannot build the XDP programs with {compiler} and {linker}"))
}
