//! `cargo xtask fuzz`: the loaded program against the model.

use std::time::{SystemTime, UNIX_EPOCH};

use clap::Parser;
use lb_tests::fuzz::{self, Options};

/// Sends random packets through the loaded XDP program and through a second implementation of
/// docs/packets.md, and compares what becomes of them. Needs root and touches no interface.
#[derive(Parser)]
struct Arguments {
    /// How many packets.
    #[arg(long, default_value_t = 1_000_000)]
    packets: u64,
    /// Everything follows from it [default: the time].
    #[arg(long)]
    seed: Option<u64>,
    /// Only the scene with this number.
    #[arg(long)]
    scene: Option<u64>,
    /// Programs that are loaded and tried side by side [default: the number of CPUs].
    #[arg(long)]
    threads: Option<usize>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let by_time = || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.map_or(0, |now| now.as_millis() as u64)
    };
    fuzz::run(Options {
        packets: arguments.packets,
        seed: arguments.seed.unwrap_or_else(by_time),
        scene: arguments.scene,
        threads: arguments
            .threads
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)),
    })
}
