//! The load balancer's daemon.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use lb_userspace::{config::Config, daemon};
use tracing_subscriber::EnvFilter;

/// Daemon of the lb load balancer: loads the XDP program, fills its maps, checks the backends.
///
/// Packets go on being forwarded when the daemon ends, however it ends; `lbctl detach` takes the
/// data plane down.
///
/// Signals: SIGHUP reads the configuration again; SIGTERM and SIGINT end the daemon.
///
/// Exit codes: 0 done, 1 failed, 2 usage, 4 invalid configuration.
#[derive(Parser)]
#[command(version, verbatim_doc_comment)]
struct Arguments {
    /// Configuration file.
    #[arg(long, value_name = "FILE", default_value = "/etc/lb/lb.toml")]
    config: PathBuf,
    /// Check the configuration file and exit.
    #[arg(long)]
    check: bool,
    /// What to log: error, warn, info, debug, trace, or directives as in `lb_userspace::health=debug`.
    #[arg(long, value_name = "LEVEL", env = "LB_LOG", default_value = "info")]
    log: String,
    /// Load the XDP program with its own log statements: one line for each dropped packet.
    ///
    /// For finding out why, not for daily use: a flood of packets is a flood of lines.
    #[arg(long)]
    log_packets: bool,
}

fn main() -> ExitCode {
    let Arguments {
        config: file,
        check,
        log,
        log_packets,
    } = Arguments::parse();
    let config = match Config::load(&file) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(4);
        }
    };
    if check {
        println!("{}: valid", file.display());
        return ExitCode::SUCCESS;
    }
    let filter = match EnvFilter::try_new(&log) {
        Ok(filter) => filter,
        Err(error) => {
            eprintln!("lbd: --log {log:?}: {error}");
            return ExitCode::from(2);
        }
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
    match run(file, config, log_packets) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lbd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(file: PathBuf, config: Config, program_log: bool) -> anyhow::Result<()> {
    let config_file = std::path::absolute(file)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(daemon::run(daemon::Options {
        config_file,
        config,
        program_log,
    }))
}
