//! `cargo xtask bench`: the program's cost per packet.

use clap::Parser;
use lb_tests::bench::{self, Effort};

/// Measures what the XDP program costs per packet. Needs root and touches no interface.
#[derive(Parser)]
struct Arguments {
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// Measure shorter: whether it works, and roughly how fast.
    #[arg(long)]
    quick: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let effort = if arguments.quick {
        Effort::QUICK
    } else {
        Effort::FULL
    };
    let report = bench::run(effort)?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{report}");
    }
    Ok(())
}
