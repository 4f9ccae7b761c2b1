//! The project's commands: `cargo xtask setup | build | test | demo | bench`.
//!
//! This crate is compiled before anything is set up, so it depends on little.

mod build;
mod compiler;
mod lab;
mod packages;
mod preflight;
mod setup;
mod shell;
mod test;
mod toolchain;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Commands for people who build, test and measure lb"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what building, testing and the demo need; what is there already is left alone
    Setup,
    /// Build everything, the XDP programs included
    Build {
        /// With optimisations, into target/release
        #[arg(long)]
        release: bool,
    },
    /// Run every check and test: format, lints, unit, property, packet and end-to-end tests
    Test(test::Arguments),
    /// Show the load balancer at work: client, balancer and four backends in network namespaces
    Demo {
        /// Leave it running until Ctrl-C, and say how to play with it
        #[arg(long)]
        keep: bool,
    },
    /// Measure what a packet costs
    #[command(disable_help_flag = true)]
    Bench {
        /// Options of the benchmark itself (`cargo xtask bench --help`)
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Setup => setup::run(&setup::Group::ALL),
        Command::Build { release } => build::run_with_setup(release),
        Command::Test(arguments) => test::run(&arguments),
        Command::Demo { keep } => {
            let options = if keep {
                vec!["--keep".to_owned()]
            } else {
                vec![]
            };
            lab::run("lb-demo", &setup::Group::ALL, &options)
        }
        Command::Bench { options } => lab::run(
            "lb-bench",
            &[setup::Group::Build, setup::Group::Network],
            &options,
        ),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
