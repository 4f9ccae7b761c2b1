//! `lb-demo [--keep]`: the load balancer at work on real traffic; see `lb_tests::demo`.
//!
//! Exit status: 0 when all that it claims was measured to be so, 1 when something was not or could
//! not be shown, 2 for a wrong command line, 128 + the signal's number when it was interrupted.

use std::process::ExitCode;

use clap::Parser;
use lb_tests::{demo, lab};

/// Shows lb at work: a client, the balancer and four web servers in network namespaces
#[derive(Parser)]
#[command(name = "lb-demo", version)]
struct Arguments {
    /// Leave it running until Ctrl-C, and say how to play with it
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    let Arguments { keep } = Arguments::parse();
    match lab::remove_labs_on_signal().and_then(|()| demo::run(keep)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("lb-demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}
