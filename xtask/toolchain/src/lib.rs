//! Which compiler and which linker build the XDP programs.
//!
//! The build script of `lb-userspace` asks here what to build them with, and `cargo xtask setup`
//! asks what is missing, so that the two can never disagree. No dependencies: this is compiled
//! before anything else is known to be there.
//!
//! The target `bpfel-unknown-none` has no prebuilt `core`, so the compiler must bring its source
//! (the component `rust-src`). rustc then hands LLVM bitcode to `bpf-linker`, whose LLVM must be
//! at least as new as the compiler's: an older one stops with "Invalid record".

mod compiler;
mod linker;
mod path;
mod places;

pub use compiler::{Compiler, Lack, NoCompiler};
pub use linker::{Linker, NoLinker, cargo_home, tools_dir};
pub use path::{find_program, path_with};

/// The LLVM major version that the programs are built with.
///
/// The programs use compiler intrinsics, which change from one Rust release to the next; this
/// version is the one they are known to build with.
pub const LLVM: u32 = 22;

/// The toolchain that `cargo xtask setup` has rustup install where nothing else fits.
///
/// Pinned, because a rolling `nightly` moves on to the next LLVM without notice.
pub const PINNED_NIGHTLY: &str = "nightly-2026-05-20";

/// The release of bpf-linker that `cargo xtask setup` installs.
pub const LINKER_VERSION: &str = "0.13.0";

/// How every complaint of this crate ends.
const MEND: &str = "mend: run `cargo xtask setup`";
