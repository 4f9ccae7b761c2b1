//! The load balancer's command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    lb_userspace::cli::run(std::env::args_os())
}
