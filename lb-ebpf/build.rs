//! Linker arguments of the XDP programs (`aya-build` sets the compiler's itself).

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "bpf") {
        // Addresses in packets are aligned to two bytes, or to none. Without this each is read
        // and written byte by byte. Needs an LLVM 22 `bpf-linker` and, in the kernel, a CPU that
        // can do it (CONFIG_HAVE_EFFICIENT_UNALIGNED_ACCESS: x86-64, arm64, …).
        println!("cargo::rustc-link-arg-bins=--cpu-features=+allows-misaligned-mem-access");
    }
}
