//! `cargo xtask bench`: what it costs.

use clap::Parser;
use lb_tests::bench::{self, Effort, Part};

/// Measures what the load balancer costs. Needs root; touches no interface of the host.
#[derive(Parser)]
struct Arguments {
    /// What to measure [default: everything].
    #[arg(long = "only", value_name = "PART")]
    parts: Vec<Part>,
    /// Print JSON instead of tables.
    #[arg(long)]
    json: bool,
    /// Measure shorter: whether it works, and roughly how fast.
    #[arg(long)]
    quick: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let effort = if arguments.quick {
        Effort::Quick
    } else {
        Effort::Full
    };
    let report = bench::run(&arguments.parts, effort)?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{report}");
    }
    Ok(())
}
