use std::{fmt, net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Backend, Check, Name};

/// The services as they are wanted: the file's, with what `lbctl` changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Desired {
    pub services: Vec<Service>,
}

impl Desired {
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|s| s.name.as_str() == name)
    }

    pub fn service_mut(&mut self, name: &str) -> Option<&mut Service> {
        self.services.iter_mut().find(|s| s.name.as_str() == name)
    }
}

/// A virtual address and the backends behind it, as wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    pub name: Name,
    pub listen: SocketAddr,
    pub protocol: Protocol,
    pub forwarding: Forwarding,
    pub scheduler: Scheduler,
    pub table_size: TableSize,
    pub check: Check,
    pub timeouts: TimeoutOverrides,
    pub backends: Vec<Backend>,
}

impl Service {
    pub fn backend(&self, name: &str) -> Option<&Backend> {
        self.backends.iter().find(|b| b.name.as_str() == name)
    }

    pub fn backend_mut(&mut self, name: &str) -> Option<&mut Backend> {
        self.backends.iter_mut().find(|b| b.name.as_str() == name)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    #[default]
    Tcp,
}

/// How a packet reaches its backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Forwarding {
    /// The destination is rewritten, and the source of replies rewritten back.
    #[default]
    Nat,
}

/// How a new connection finds its backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheduler {
    /// Weighted Maglev hashing of the client's address and port.
    #[default]
    Maglev,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "tcp",
        })
    }
}

impl fmt::Display for Forwarding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Nat => "nat",
        })
    }
}

impl fmt::Display for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Maglev => "maglev",
        })
    }
}

/// Slots of a service's table: a prime from 251 to 65 537.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct TableSize(u32);

impl TableSize {
    pub const MAX: u32 = 65_537;
    pub const MIN: u32 = 251;

    pub fn slots(self) -> u32 {
        self.0
    }
}

impl Default for TableSize {
    fn default() -> Self {
        Self(Self::MAX)
    }
}

impl TryFrom<u32> for TableSize {
    type Error = String;

    fn try_from(slots: u32) -> Result<Self, String> {
        let prime = |n: u32| {
            n > 1
                && (2..)
                    .take_while(|d| d * d <= n)
                    .all(|d| !n.is_multiple_of(d))
        };
        if !(Self::MIN..=Self::MAX).contains(&slots) {
            return Err(format!(
                "a table has {} to {} slots, not {slots}",
                Self::MIN,
                Self::MAX
            ));
        }
        if !prime(slots) {
            let nearest = (slots..=Self::MAX).find(|&n| prime(n)).unwrap_or(Self::MAX);
            return Err(format!(
                "the number of slots must be prime: {slots} is not, {nearest} is"
            ));
        }
        Ok(Self(slots))
    }
}

impl From<TableSize> for u32 {
    fn from(size: TableSize) -> Self {
        size.0
    }
}

/// The set of idle timeouts that a service starts from (S-NAT-3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Short ones for half-open and closing connections: for a balancer that faces the Internet.
    #[default]
    Edge,
    /// RFC 5382 REQ-5: established ≥ 2 h 4 min, everything else ≥ 4 min.
    Rfc,
}

/// Idle timeouts that a service sets for itself; the rest come from the [`Profile`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeoutOverrides {
    pub half_open: Option<Duration>,
    pub established: Option<Duration>,
    pub fin_wait: Option<Duration>,
    pub closing: Option<Duration>,
    pub time_wait: Option<Duration>,
    pub reset: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_size_is_prime_and_bounded() {
        assert_eq!(TableSize::try_from(65_537).unwrap().slots(), 65_537);
        assert_eq!(TableSize::try_from(251).unwrap().slots(), 251);
        assert!(TableSize::try_from(1000).unwrap_err().contains("1009"));
        assert!(TableSize::try_from(65_539).is_err());
        assert!(TableSize::try_from(3).is_err());
    }
}
