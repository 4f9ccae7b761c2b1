//! `lbctl`: what it is asked, the request to the daemon that this makes, and the answer as a table.

mod args;
mod client;
mod commands;
mod decap;
mod detach;
mod error;
mod humane;
mod render;
mod table;

use std::{ffi::OsString, io, io::Write as _, process::ExitCode};

use clap::Parser as _;

use args::Args;
use commands::Session;
use error::CliError;
use humane::printable;

/// Runs `lbctl` with these arguments, the program's name first.
///
/// Exit codes: 0 done, 1 failed, 2 usage, 3 daemon unreachable, 4 invalid configuration.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(error) => {
            // Help and version come this way too. Nothing is left to do when nobody reads them.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(1));
        }
    };
    let result = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CliError::Runtime)
        .and_then(|runtime| {
            let session = Session {
                socket: args.socket,
                output: args.output,
            };
            runtime.block_on(session.run(args.command, &mut io::stdout()))
        });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_closed_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "lbctl: {}", printable(&error.report()));
            ExitCode::from(error.exit_code())
        }
    }
}
