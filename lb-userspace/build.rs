fn main() {
    // SAFETY: single-threaded build script.
    unsafe { std::env::set_var("RUSTC_BOOTSTRAP", "1") };
    aya_build::build_ebpf(
        [aya_build::Package {
            name: "lb-ebpf",
            root_dir: concat!(env!("CARGO_MANIFEST_DIR"), "/../lb-ebpf"),
            ..Default::default()
        }],
        aya_build::Toolchain::Custom("/usr"),
    )
    .unwrap();
    println!("cargo:rerun-if-changed=../lb-common/src");
}
