//! The command line as it is typed, parsed.

use std::{net::SocketAddr, num::NonZeroU64, path::PathBuf};

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};

use super::decap::DecapCommand;
use crate::model::{Name, Weight};

const EXAMPLES: &str = "\
Examples:
  lbctl status
  lbctl backend list --service web
  lbctl backend add web 10.0.1.14:8080 --name web-4 --weight 100
  lbctl backend drain web web-4
  lbctl conntrack list --service web --limit 20
  lbctl stats drops
  lbctl -o json service list | jq '.[].counters'
  lbctl reload

Exit codes: 0 done, 1 failed, 2 usage, 3 daemon unreachable, 4 invalid configuration";

/// Controls lbd, the load balancer's daemon.
#[derive(Debug, Parser)]
#[command(name = "lbctl", version, after_help = EXAMPLES)]
pub(super) struct Args {
    /// The daemon's socket [default: /run/lb/lbd.sock]
    #[arg(
        long,
        global = true,
        help_heading = "Global options",
        value_name = "SOCKET"
    )]
    pub(super) socket: Option<PathBuf>,

    /// Tables for people, JSON for scripts
    #[arg(
        short,
        long,
        global = true,
        help_heading = "Global options",
        value_enum,
        default_value_t,
        value_name = "FORMAT",
        hide_possible_values = true
    )]
    pub(super) output: Output,

    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    #[default]
    Table,
    Json,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Shows the daemon, its interfaces, and what needs attention
    Status,
    /// Shows services
    #[command(subcommand, visible_alias = "services")]
    Service(ServiceCommand),
    /// Shows and changes backends
    #[command(subcommand, visible_alias = "backends")]
    Backend(BackendCommand),
    /// Shows connections
    #[command(subcommand)]
    Conntrack(ConntrackCommand),
    /// Shows every counter: per service, per backend, per reason
    #[command(
        args_conflicts_with_subcommands = true,
        after_help = "Examples:\n  lbctl stats\n  lbctl stats drops"
    )]
    Stats {
        #[command(subcommand)]
        what: Option<StatsCommand>,
    },
    /// Makes a configuration file the running state
    #[command(
        after_help = "Services and backends change at once. Changes to [daemon], \
        [[interface]], [conntrack] and [icmp] wait for a restart of lbd, and are named. An invalid file \
        changes nothing (exit code 4)."
    )]
    Reload {
        /// The daemon's own configuration where none is given
        file: Option<PathBuf>,
    },
    /// Writes the running state as a configuration file
    Save {
        /// The daemon's own configuration where none is given
        file: Option<PathBuf>,
    },
    /// Takes the data plane down: programs, pins and maps
    #[command(
        after_help = "A running daemon is asked to do it, and ends. Without one, lbctl does \
        it itself, from the pins.\n\n\
        Examples:\n  lbctl detach\n  lbctl detach --config /etc/lb/lb.toml"
    )]
    Detach(DetachArgs),
    /// On a backend: takes packets out of the balancer's tunnels (IP in IP, GUE)
    #[command(
        subcommand,
        after_help = "It needs root, and no daemon: --socket is of no use here."
    )]
    Decap(DecapCommand),
}

#[derive(Debug, Subcommand)]
pub(super) enum ServiceCommand {
    /// Lists the services
    List,
    /// Shows one service with its backends, counters and settings
    Show {
        /// The service's name
        name: Name,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum BackendCommand {
    /// Lists the backends, of all services or of one
    List {
        /// Only those of this service
        #[arg(long)]
        service: Option<Name>,
    },
    /// Adds a backend to a service
    #[command(after_help = "Example:\n  lbctl backend add web 10.0.1.14:8080 --weight 50")]
    Add {
        /// The service's name
        service: Name,
        /// Such as 10.0.1.11:8080 or [2001:db8::11]:8080
        #[arg(value_parser = address)]
        address: SocketAddr,
        /// [default: its address]
        #[arg(long)]
        name: Option<Name>,
        /// Its share of new connections relative to the others, 0 to 65535 [default: 100]
        #[arg(long)]
        weight: Option<Weight>,
    },
    /// Removes a backend; connections that it has go on
    Remove(BackendName),
    /// Changes a backend
    Set {
        #[command(flatten)]
        backend: BackendName,
        /// Its share of new connections relative to the others, 0 to 65535
        #[arg(long)]
        weight: Weight,
    },
    /// Gives a backend no new connections; those it has go on
    Drain(BackendName),
    /// Gives a backend new connections again
    Enable(BackendName),
    /// Gives a backend no new connections and probes it no more
    Maint(BackendName),
}

#[derive(Debug, ClapArgs)]
pub(super) struct BackendName {
    /// The service's name
    pub(super) service: Name,
    /// The backend's name
    pub(super) name: Name,
}

#[derive(Debug, Subcommand)]
pub(super) enum ConntrackCommand {
    /// Lists connections
    List(ConntrackFilter),
    /// Shows how full the connection table is
    Stats,
}

#[derive(Debug, Subcommand)]
pub(super) enum StatsCommand {
    /// Shows why packets were refused, and the last few of them for each reason
    Drops,
}

#[derive(Debug, ClapArgs)]
pub(super) struct ConntrackFilter {
    /// Only those of this service
    #[arg(long)]
    pub(super) service: Option<Name>,
    /// Only those of the backends called this
    #[arg(long)]
    pub(super) backend: Option<Name>,
    /// At most so many [default: 100 for tables, all for JSON]
    #[arg(long)]
    pub(super) limit: Option<NonZeroU64>,
}

#[derive(Debug, ClapArgs)]
pub(super) struct DetachArgs {
    /// Where the pins are [default: those of the daemon, else /sys/fs/bpf/lb]
    #[arg(long, value_name = "DIRECTORY")]
    pub(super) bpffs: Option<PathBuf>,
    /// The configuration that names socket and pins
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "write an address and a port, such as 10.0.1.11:8080 or [2001:db8::11]:8080".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, error::ErrorKind};

    use super::*;

    fn parse(line: &str) -> Result<Args, clap::Error> {
        Args::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_definition_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn global_options_stand_anywhere() {
        for line in [
            "lbctl --socket /s -o json backend list --service web",
            "lbctl backend --socket /s list -o json --service web",
            "lbctl backend list --service web --output json --socket /s",
        ] {
            let args = parse(line).unwrap();
            assert_eq!(args.socket, Some(PathBuf::from("/s")), "{line}");
            assert_eq!(args.output, Output::Json, "{line}");
            assert!(
                matches!(
                    args.command,
                    Command::Backend(BackendCommand::List { service: Some(ref name) })
                        if name.as_str() == "web"
                ),
                "{line}"
            );
        }
    }

    #[test]
    fn values_are_parsed_where_they_are_typed() {
        let args = parse("lbctl backend add web [2001:db8::1]:80 --weight 7").unwrap();
        let Command::Backend(BackendCommand::Add {
            address, weight, ..
        }) = args.command
        else {
            panic!("{args:?}");
        };
        assert_eq!(address, "[2001:db8::1]:80".parse().unwrap());
        assert_eq!(weight, Some(Weight(7)));

        for (line, part) in [
            ("lbctl backend add web 10.0.0.1", "an address and a port"),
            (
                "lbctl backend add web 10.0.0.1:80 --weight 65536",
                "0 to 65535",
            ),
            ("lbctl backend add web 10.0.0.1:80 --weight -1", "-1"),
            ("lbctl backend drain web a/b", "a name is made of"),
            ("lbctl conntrack list --limit 0", "0"),
        ] {
            let error = parse(line).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
            assert!(error.to_string().contains(part), "{line}: {error}");
        }
    }

    #[test]
    fn what_is_missing_or_unknown_is_a_usage_error() {
        for (line, kind) in [
            ("lbctl", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand),
            (
                "lbctl backend",
                ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand,
            ),
            (
                "lbctl backend set web web-1",
                ErrorKind::MissingRequiredArgument,
            ),
            ("lbctl frobnicate", ErrorKind::InvalidSubcommand),
            ("lbctl status -o yaml", ErrorKind::InvalidValue),
        ] {
            let error = parse(line).unwrap_err();
            assert_eq!((error.kind(), error.exit_code()), (kind, 2), "{line}");
        }
    }
}
