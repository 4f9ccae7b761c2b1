//! `lbctl decap`: for backends, which have no daemon. All of it happens in this process.

use std::{
    io::{self, Write},
    num::NonZeroU16,
    path::{Path, PathBuf},
};

use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use serde::Serialize;

use super::{args::Output, commands::Session, error::CliError, humane::printable, render};
use crate::{
    config::{InterfaceSettings, WantedMode},
    dataplane::decap::{self, DEFAULT_BPFFS},
    netlink,
};

const ATTACH: &str = "\
Packets whose outer and inner destination are both addresses of this host lose their outer header:
IP in IP (IPv4 and IPv6, in either), and GUE variant 1 to --gue-port. All others pass as they came.
Put the services' addresses on lo first (ip address add 192.0.2.10/32 dev lo), and see that
rp_filter lets clients in.

The program goes on when lbctl has ended, until it is detached or the host restarts. Attach again
after a change of this host's addresses, or an upgrade of lbctl: that costs no packet.

Examples:
  lbctl decap attach eth0
  lbctl decap attach eth0 --mode native --gue-port 6080";

#[derive(Debug, Subcommand)]
pub(super) enum DecapCommand {
    /// Attaches the decapsulator to an interface, or brings it up to date
    #[command(after_help = ATTACH)]
    Attach(AttachArgs),
    /// Detaches it
    Detach {
        /// Such as eth0
        interface: String,
        #[command(flatten)]
        pins: PinsArgs,
    },
    /// Shows where it is attached, which addresses it knows, and its counters
    Status {
        /// Only this one [default: all]
        interface: Option<String>,
        #[command(flatten)]
        pins: PinsArgs,
    },
}

#[derive(Debug, ClapArgs)]
pub(super) struct AttachArgs {
    /// Such as eth0
    interface: String,
    /// In the driver (native), in the kernel's stack (generic), or the first that works (auto)
    #[arg(long, value_enum, default_value_t)]
    mode: Mode,
    /// UDP destination port of GUE, on all interfaces [default: the present one, else 6080]
    #[arg(long, value_name = "PORT")]
    gue_port: Option<NonZeroU16>,
    #[command(flatten)]
    pins: PinsArgs,
}

#[derive(Debug, ClapArgs)]
pub(super) struct PinsArgs {
    /// Directory of the pins on a BPF file system, one for each network namespace
    #[arg(long, value_name = "DIRECTORY", default_value = DEFAULT_BPFFS)]
    bpffs: PathBuf,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Mode {
    #[default]
    Auto,
    Native,
    Generic,
}

impl From<Mode> for WantedMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Auto => Self::Auto,
            Mode::Native => Self::Native,
            Mode::Generic => Self::Generic,
        }
    }
}

impl Session {
    pub(super) async fn decap(
        &self,
        command: DecapCommand,
        out: &mut impl Write,
    ) -> Result<(), CliError> {
        match command {
            DecapCommand::Attach(args) => {
                let attached = decap::attach(&decap::Attach {
                    bpffs: args.pins.bpffs,
                    interface: InterfaceSettings {
                        name: args.interface,
                        mode: args.mode.into(),
                    },
                    gue_port: args.gue_port,
                    addresses: netlink::own_addresses().await?,
                })?;
                self.show_own(&attached, render::decap_attached, out)
            }
            DecapCommand::Detach { interface, pins } => {
                let detached = decap::detach(&pins.bpffs, &interface)?;
                let table = |done: &_| render::detached(done, Some(&pins.bpffs));
                self.show_own(&detached, table, out)
            }
            DecapCommand::Status { interface, pins } => {
                let PinsArgs { bpffs } = pins;
                self.decap_status(&bpffs, interface.as_deref(), out).await
            }
        }
    }

    async fn decap_status(
        &self,
        bpffs: &Path,
        interface: Option<&str>,
        out: &mut impl Write,
    ) -> Result<(), CliError> {
        let own = netlink::own_addresses().await?;
        let status = decap::status(bpffs, interface, &own)?;
        self.show_own(&status, render::decap_status, out)
    }

    /// Shows what was found out here and not by a daemon.
    fn show_own<T: Serialize>(
        &self,
        what: &T,
        table: impl FnOnce(&T) -> String,
        out: &mut impl Write,
    ) -> Result<(), CliError> {
        match self.output {
            Output::Table => out.write_all(printable(&table(what)).as_bytes())?,
            Output::Json => {
                serde_json::to_writer_pretty(&mut *out, what).map_err(io::Error::from)?;
                writeln!(out)?;
            }
        }
        Ok(out.flush()?)
    }
}
