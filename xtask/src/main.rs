//! The project's commands: `cargo xtask setup | build | test | fuzz | demo | bench`.
//!
//! This crate is compiled before anything is set up, so it depends on little.

mod build;
mod count;
mod lab;
mod packages;
mod preflight;
mod services;
mod setup;
mod shell;
mod test;
mod toolchain;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use setup::Group;

fn main() -> ExitCode {
    match run(&command_line().get_matches()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &ArgMatches) -> Result<ExitCode> {
    match arguments.subcommand() {
        Some(("setup", _)) => setup::run(&Group::ALL)?,
        Some(("build", options)) => build::run_with_setup(options.get_flag("release"))?,
        Some(("test", options)) => {
            return test::run(&test::Options {
                host: options.get_flag("host"),
                filter: options.get_one::<String>("filter").cloned(),
            });
        }
        Some(("demo", options)) => {
            let keep = options.get_flag("keep").then(|| "--keep".to_owned());
            let groups = [Group::Build, Group::Network, Group::Demo];
            lab::run("lb-demo", &groups, keep.as_slice())?;
        }
        Some(("bench", options)) => {
            let options = passed_on(options);
            lab::run("lb-bench", bench_groups(&options), &options)?;
        }
        Some(("fuzz", options)) => {
            let groups = [Group::Build, Group::Network];
            lab::run("lb-fuzz", &groups, &passed_on(options))?;
        }
        _ => unreachable!("clap asks for one of the subcommands below"),
    }
    Ok(ExitCode::SUCCESS)
}

/// What the benchmark needs: other load balancers only where whole requests are measured.
fn bench_groups(options: &[String]) -> &'static [Group] {
    const ALL: [Group; 3] = [Group::Build, Group::Network, Group::Contenders];
    const PARTS: [&str; 4] = ["program", "paths", "wire", "control"];
    let named = |part: &str| {
        options
            .iter()
            .any(|option| option.trim_start_matches("--only=") == part)
    };
    if PARTS.into_iter().any(named) && !named("end-to-end") {
        &[Group::Build, Group::Network]
    } else {
        &ALL
    }
}

/// Options of the program that is started.
fn passed_on(arguments: &ArgMatches) -> Vec<String> {
    let options = arguments.get_many::<String>("options");
    options.unwrap_or_default().cloned().collect()
}

fn command_line() -> Command {
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .help(help)
            .action(ArgAction::SetTrue)
    };
    let options = |help: &'static str| {
        Arg::new("options")
            .help(help)
            .value_parser(value_parser!(String))
            .num_args(0..)
            .trailing_var_arg(true)
            .allow_hyphen_values(true)
    };
    Command::new("xtask")
        .bin_name("cargo xtask")
        .about("Commands for people who build, test and measure lb")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([
            Command::new("setup").about(
                "Install what building, testing, the demo and the benchmark need; what is there is \
                 left alone",
            ),
            Command::new("build")
                .about("Build everything, the XDP programs included")
                .arg(flag("release", "With optimisations, into target/release")),
            Command::new("test")
                .about(
                    "Run every check and test: format, lints, unit, property, packet and \
                     end-to-end tests",
                )
                .arg(flag(
                    "host",
                    "Only what needs no root: format, lints, unit and property tests",
                ))
                .arg(
                    Arg::new("filter")
                        .help("Only tests whose name contains this, and neither format nor lints"),
                ),
            Command::new("demo")
                .about(
                    "Show the load balancer at work: client, balancer and four backends in \
                     network namespaces",
                )
                .arg(flag(
                    "keep",
                    "Leave it running until Ctrl-C, and say how to play with it",
                )),
            Command::new("fuzz")
                .about(
                    "Hold the XDP program against a second implementation of docs/packets.md, \
                     packet by packet",
                )
                .disable_help_flag(true)
                .arg(options(
                    "Options of the fuzzer itself (`cargo xtask fuzz --help`)",
                )),
            Command::new("bench")
                .about("Measure what the load balancer costs, and compare with an earlier run")
                .disable_help_flag(true)
                .arg(options(
                    "Options of the benchmark itself (`cargo xtask bench --help`)",
                )),
        ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        command_line().debug_assert();
    }

    #[test]
    fn other_balancers_are_installed_where_they_are_measured() {
        let groups = |options: &[&str]| {
            let options: Vec<_> = options.iter().map(|&option| option.to_owned()).collect();
            bench_groups(&options).contains(&Group::Contenders)
        };
        assert!(groups(&[]) && groups(&["--quick"]));
        assert!(groups(&["--only", "program", "--only", "end-to-end"]));
        assert!(!groups(&["--quick", "--only", "program", "--only=wire"]));
    }

    #[test]
    fn options_of_the_started_program_are_passed_on() {
        for program in ["bench", "fuzz"] {
            let arguments = command_line()
                .try_get_matches_from(["cargo xtask", program, "--help", "-n", "3"])
                .unwrap();
            let (_, arguments) = arguments.subcommand().unwrap();
            assert_eq!(passed_on(arguments), ["--help", "-n", "3"]);
        }
    }
}
