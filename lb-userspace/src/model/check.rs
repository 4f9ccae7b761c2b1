use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How a service's backends are probed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    #[serde(flatten)]
    pub kind: CheckKind,
    /// From the start of one probe to the start of the next; each wait is spread by ±10 %.
    pub interval: Duration,
    /// A probe that has not succeeded by then has failed.
    pub timeout: Duration,
    /// Consecutive successes that make a backend up.
    pub rise: u16,
    /// Consecutive failures that make a backend down.
    pub fall: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum CheckKind {
    /// No probe; the backend's health stays unknown, and it is used.
    None,
    /// A TCP handshake, closed again at once. Where backends answer clients themselves: a SYN for
    /// the service's address, by the way that traffic takes (S-DSR-3).
    Tcp,
    /// `GET path` over HTTP/1.1; a status of 200 to 399 is a success. Where backends answer clients
    /// themselves, such a SYN has to be answered too.
    Http {
        path: String,
        /// The `Host` header; the backend's address where none is given.
        host: Option<String>,
    },
}

impl Default for Check {
    fn default() -> Self {
        Self {
            kind: CheckKind::Tcp,
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 3,
        }
    }
}
