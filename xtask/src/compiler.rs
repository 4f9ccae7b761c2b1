//! Which Rust toolchain builds the XDP programs. This file is a module of two programs that must
//! agree: `cargo xtask setup` and `lb-userspace/build.rs`.

use std::{env, path::Path, process::Command};

/// Names the toolchain to use, as `rustup run` takes it: a name, or the path of an installation.
pub(crate) const VARIABLE: &str = "LB_EBPF_TOOLCHAIN";

/// Known to work. A nightly of tomorrow may bring an LLVM that the linker cannot read.
pub(crate) const NIGHTLY: &str = "nightly-2026-05-20";

/// LLVM's major version of the linker: the compiler's must not be newer.
pub(crate) const LLVM: u32 = 22;

/// The oldest compiler: this workspace's `rust-version`.
const RUST: (u32, u32) = (1, 89);

/// The toolchain that is named, or else the first that will do: the distribution's (Debian's
/// `rustc-web` and `rust-web-src`), then rustup's nightlies.
pub(crate) fn choose() -> Option<String> {
    if let Ok(named) = env::var(VARIABLE) {
        return Some(named);
    }
    ["/usr", NIGHTLY, "nightly"]
        .into_iter()
        .find(|candidate| will_do(candidate))
        .map(str::to_owned)
}

/// New enough, not too new, and with the source of `core`, which `-Z build-std` compiles.
fn will_do(toolchain: &str) -> bool {
    let version = ask(toolchain, &["--version", "--verbose"]);
    let sysroot = ask(toolchain, &["--print", "sysroot"]);
    let (Some(version), Some(sysroot)) = (version, sysroot) else {
        return false;
    };
    let source = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core");
    is_suitable(&version) && source.is_dir()
}

/// What a toolchain's compiler answers. Without rustup there is only the distribution's.
fn ask(toolchain: &str, arguments: &[&str]) -> Option<String> {
    let has_rustup = Command::new("rustup").arg("--version").output().is_ok();
    let mut command = match toolchain {
        _ if has_rustup => {
            let mut command = Command::new("rustup");
            command.args(["run", toolchain, "rustc"]);
            command
        }
        "/usr" => Command::new("/usr/bin/rustc"),
        _ => return None,
    };
    let output = command.args(arguments).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then_some(text)
}

/// By the answer to `rustc --version --verbose`.
fn is_suitable(answer: &str) -> bool {
    let numbers = |field: &str| {
        let line = answer.lines().find_map(|line| line.strip_prefix(field))?;
        let mut numbers = line.split('.').map(|number| number.parse::<u32>().ok());
        Some((numbers.next()??, numbers.next()??))
    };
    let rust = numbers("release: ").is_some_and(|release| release >= RUST);
    rust && numbers("LLVM version: ").is_some_and(|(major, _)| major <= LLVM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compilers_are_neither_too_old_nor_too_new() {
        let answer = |release, llvm| {
            format!(
                "rustc {release}\nbinary: rustc\nhost: x86_64\nrelease: {release}\nLLVM version: {llvm}\n"
            )
        };
        assert!(is_suitable(&answer("1.96.0", "22.1.8")));
        assert!(is_suitable(&answer("1.97.0-nightly", "22.1.4")));
        assert!(!is_suitable(&answer("1.63.0", "14.0.6")));
        assert!(!is_suitable(&answer("1.99.0-nightly", "23.1.0")));
        assert!(!is_suitable("garbage"));
    }
}
