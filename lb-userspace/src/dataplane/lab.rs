/// The small programs that measure the XDP program, for the benchmark. Empty if the build script
/// was told to skip them; not linked into binaries that do not name it.
pub static LAB_OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lb-lab"));
