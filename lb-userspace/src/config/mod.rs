//! The configuration file: TOML in, validated types out, and back again.
//!
//! ```text
//! text ─ toml ─→ tables with spans ─ parse ─→ Config ─ write ─→ text
//!                    │                 │
//!                    └────── source: spans → file:line:column, the line, a caret
//! ```
//!
//! A file is taken whole or not at all; all of its mistakes are reported at once, each with its
//! place and how to mend it.

mod error;
mod parse;
mod source;
mod timeouts;
mod write;

use std::{fmt, fs::File, io::Read, path::Path, path::PathBuf};

pub use error::{ConfigError, Mistake};
pub use source::Place;
pub use timeouts::timeouts;

use crate::model::{Desired, Profile};

/// Everything that a configuration file says, with defaults for what it leaves out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    pub daemon: DaemonSettings,
    pub interfaces: Vec<InterfaceSettings>,
    pub conntrack: ConntrackSettings,
    pub icmp: IcmpSettings,
    pub desired: Desired,
}

/// `[daemon]`: where this instance keeps what other processes and its successors find it by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonSettings {
    pub socket: PathBuf,
    pub state_dir: PathBuf,
    /// Directory on a bpffs that the maps and links are pinned below.
    pub bpffs: PathBuf,
}

impl Default for DaemonSettings {
    fn default() -> Self {
        Self {
            socket: "/run/lb/lbd.sock".into(),
            state_dir: "/var/lib/lb".into(),
            bpffs: "/sys/fs/bpf/lb".into(),
        }
    }
}

/// `[[interface]]`: one that the program is attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceSettings {
    pub name: String,
    pub mode: WantedMode,
}

/// How the program is to be attached to an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WantedMode {
    /// Native where the driver can do it, else generic.
    #[default]
    Auto,
    /// In the driver, or not at all.
    Native,
    /// In the kernel's stack, after the driver: slower, works everywhere.
    Generic,
}

impl fmt::Display for WantedMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Auto => "auto",
            Self::Native => "native",
            Self::Generic => "generic",
        })
    }
}

/// `[conntrack]`: the connection tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConntrackSettings {
    /// IPv4 connections that the table is made for.
    pub capacity: u32,
    /// IPv6 connections.
    pub capacity_ipv6: u32,
    /// Of the services that name none themselves.
    pub profile: Profile,
    /// New connections per second and CPU; what comes beyond them is taken for a SYN flood, and
    /// not recorded.
    pub flood_limit: u32,
}

impl ConntrackSettings {
    pub const DEFAULT_FLOOD_LIMIT: u32 = 50_000;
    /// More than any CPU can receive: the same as no limit.
    pub const MAX_FLOOD_LIMIT: u32 = 100_000_000;
    pub const MIN_CAPACITY: u32 = 64;
    /// 1.6 GB of IPv4 records, or 3.2 GB of IPv6 ones.
    pub const MAX_CAPACITY: u32 = 100_000_000;

    /// A quarter of the IPv4 capacity: an IPv6 record is twice as large, so that its table takes half
    /// as much memory, and with defaults all that there is stays below 64 MB.
    pub fn default_capacity_ipv6(capacity: u32) -> u32 {
        (capacity / 4).max(Self::MIN_CAPACITY)
    }
}

impl Default for ConntrackSettings {
    fn default() -> Self {
        let capacity = 1_000_000;
        Self {
            capacity,
            capacity_ipv6: Self::default_capacity_ipv6(capacity),
            profile: Profile::default(),
            flood_limit: Self::DEFAULT_FLOOD_LIMIT,
        }
    }
}

/// `[icmp]`: what is made of ICMP for service addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IcmpSettings {
    pub echo: Echo,
}

/// What becomes of echo requests to a service's address (S-ICMP-4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Echo {
    /// They are answered, whether or not the host has the address.
    #[default]
    Answer,
    /// The host gets them.
    Pass,
}

impl fmt::Display for Echo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Answer => "answer",
            Self::Pass => "pass",
        })
    }
}

impl Config {
    /// No configuration is larger: 16 383 backends take less than 4 MiB.
    const MAX_BYTES: u64 = 16 << 20;

    /// Reads and parses a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let file = path.display().to_string();
        let mut bytes = Vec::new();
        // A bound, so that a device or a log named by mistake does not fill the memory.
        let read = File::open(path)
            .and_then(|opened| opened.take(Self::MAX_BYTES + 1).read_to_end(&mut bytes));
        match read {
            Err(cause) => Err(ConfigError::Read { file, cause }),
            Ok(_) if bytes.len() as u64 > Self::MAX_BYTES => Err(ConfigError::TooLarge { file }),
            Ok(_) => match String::from_utf8(bytes) {
                Ok(text) => Self::parse(&text, &file),
                Err(error) => Err(parse::not_utf8(&error, &file)),
            },
        }
    }

    /// Parses a configuration; `file` is the name that errors give it.
    pub fn parse(text: &str, file: &str) -> Result<Self, ConfigError> {
        parse::parse(text, file)
    }

    /// A file that parses to an equal configuration. Settings at their defaults are left out,
    /// except those that a reader looks for. Paths must be UTF-8, as all that were parsed are.
    pub fn to_toml(&self) -> String {
        write::to_toml(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_all_defaults() {
        assert_eq!(Config::parse("", "lb.toml").unwrap(), Config::default());
    }

    #[test]
    fn a_file_that_cannot_be_read_says_which_and_why() {
        let error = Config::load(Path::new("/nonexistent/lb.toml")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot read /nonexistent/lb.toml: No such file or directory (os error 2)"
        );
    }

    #[test]
    fn a_file_is_bounded() {
        let error = Config::load(Path::new("/dev/zero")).unwrap_err();
        assert!(matches!(error, ConfigError::TooLarge { .. }), "{error}");
    }

    #[test]
    fn a_file_that_is_no_text_says_where() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lb.toml");
        std::fs::write(&path, b"[daemon]\n# caf\xe9\n").unwrap();
        let error = Config::load(&path).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!(
                "{}:2:6: the file is not UTF-8: save it as UTF-8\n",
                path.display()
            )),
            "{error}"
        );
    }
}
