//! Does traffic reach a backend whose replies do not come back through this host (S-DSR-3)?
//!
//! With `dsr`, `ipip` and `gue` a backend has to know the service's address as its own and, behind
//! a tunnel, to take off the outer header. A connection to its own address says nothing of that.
//! So the path probe sends a SYN for the service, as the data plane would send a client's: in a
//! frame to the backend's next hop, within the tunnel. It comes from an address of this host, to
//! which the backend answers directly, as it answers clients.
//!
//! * **knocker**: sends, listens, and ends what it has begun; **questions**: who waits for which
//!   answer.
//! * **source**: which address of this host asks.

mod knocker;
mod questions;
mod source;

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    sync::{OnceCell, watch},
    time::{Instant, timeout_at},
};

use self::knocker::{Ask, Knocker};
use crate::{
    model::{Forwarding, NextHop, Service, Tunnel, Unresolved, format_duration},
    wire::Encapsulation,
};

/// How a service's packets get to a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    pub way: Way,
    /// Towards the backend's address.
    pub next_hop: Result<NextHop, Unresolved>,
}

/// What becomes of a packet on its way to a backend that answers the client itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// The service's address, which the packet keeps.
    pub service: SocketAddr,
    /// `None`: only the Ethernet header changes (`dsr`).
    pub tunnel: Option<(Encapsulation, Tunnel)>,
}

impl Way {
    /// `None`: replies come back through this host.
    pub fn of(service: &Service) -> Option<Self> {
        let tunnel = match service.forwarding {
            Forwarding::Nat | Forwarding::FullNat => return None,
            Forwarding::Dsr => None,
            Forwarding::Ipip => Some((Encapsulation::Ipip, service.tunnel)),
            Forwarding::Gue => Some((Encapsulation::Gue, service.tunnel)),
        };
        Some(Self {
            service: service.listen,
            tunnel,
        })
    }

    fn forwarding(&self) -> Forwarding {
        match self.tunnel {
            None => Forwarding::Dsr,
            Some((Encapsulation::Ipip, _)) => Forwarding::Ipip,
            Some((Encapsulation::Gue, _)) => Forwarding::Gue,
        }
    }

    /// What most often keeps a backend from answering on this way.
    pub(super) fn usual_causes(&self) -> String {
        let address = self.service.ip();
        match self.tunnel {
            None => format!("is {address} on the backend's lo?"),
            Some(_) => format!(
                "is {address} on the backend's lo, does it decapsulate, does rp_filter drop?"
            ),
        }
    }
}

/// `192.0.2.10:80 through ipip`.
impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} through {}", self.service, self.forwarding())
    }
}

/// Why a path probe failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum PathError {
    #[error("no answer within {}", format_duration(*.0))]
    NoAnswer(Duration),
    #[error("connection refused")]
    Refused,
    #[error("no next hop: {0}")]
    NoNextHop(#[from] Unresolved),
    #[error("this host has no address that could ask for {0}")]
    NoSource(IpAddr),
    #[error("cannot send through {interface}: {failure}")]
    Send {
        interface: String,
        #[source]
        failure: io::Error,
    },
    /// Descriptors, ports, memory or privileges.
    #[error("this host cannot send path probes: {0}")]
    Local(#[source] io::Error),
}

/// A question that can be put to a backend again and again, by the service's way.
#[derive(Debug)]
pub(super) struct PathProbe {
    backend: IpAddr,
    way: Way,
    next_hop: watch::Receiver<Result<NextHop, Unresolved>>,
    timeout: Duration,
    shared: SharedKnocker,
    knocker: OnceCell<Arc<Knocker>>,
}

impl PathProbe {
    pub(super) fn new(
        backend: IpAddr,
        way: Way,
        next_hop: watch::Receiver<Result<NextHop, Unresolved>>,
        timeout: Duration,
        shared: SharedKnocker,
    ) -> Self {
        Self {
            backend,
            way,
            next_hop,
            timeout,
            shared,
            knocker: OnceCell::new(),
        }
    }

    pub(super) fn way(&self) -> &Way {
        &self.way
    }

    /// Asks once, with one SYN. Takes no longer than the check's timeout.
    pub(super) async fn run(&self) -> Result<(), PathError> {
        let start = Instant::now();
        let deadline = start + self.timeout;
        let next_hop = self.next_hop(start + self.timeout / 2).await?;
        let knocker = self
            .knocker
            .get_or_try_init(async || self.shared.get().map_err(PathError::Local))
            .await?;
        let ask = Ask {
            backend: self.backend,
            way: &self.way,
            next_hop,
        };
        let answer = timeout_at(deadline, knocker.knock(ask)).await;
        answer.unwrap_or(Err(PathError::NoAnswer(self.timeout)))
    }

    /// Waits for it if there is none: after a start, every neighbour has yet to be asked.
    async fn next_hop(&self, deadline: Instant) -> Result<NextHop, Unresolved> {
        let mut next_hop = self.next_hop.clone();
        // Whether it was found, the time was up, or nobody is looking: what is known counts.
        drop(timeout_at(deadline, next_hop.wait_for(Result::is_ok)).await);
        next_hop.borrow().clone()
    }
}

/// The knocker of all path probes, while there are any: its ears cost each packet that the host
/// receives a glance.
#[derive(Clone, Debug, Default)]
pub(super) struct SharedKnocker(Arc<Mutex<Weak<Knocker>>>);

impl SharedKnocker {
    fn get(&self) -> io::Result<Arc<Knocker>> {
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(knocker) = shared.upgrade() {
            return Ok(knocker);
        }
        let knocker = Arc::new(Knocker::open()?);
        *shared = Arc::downgrade(&knocker);
        Ok(knocker)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn down(interface: &str) -> Result<NextHop, Unresolved> {
        Err(Unresolved::InterfaceDown(interface.to_owned()))
    }

    /// S-DSR-3: without a next hop its reason is the probe's, and is the newest.
    #[tokio::test(start_paused = true)]
    async fn a_next_hop_is_waited_for_half_of_the_time() {
        let (sender, next_hop) = watch::channel(Err(Unresolved::Pending));
        let way = Way {
            service: ([192, 0, 2, 10], 80).into(),
            tunnel: None,
        };
        let backend = [10, 2, 0, 11].into();
        let probe = PathProbe::new(backend, way, next_hop, 100 * MS, SharedKnocker::default());
        for news in [None, Some(down("eth7")), Some(down("eth8"))] {
            let start = Instant::now();
            let told = async {
                sleep(20 * MS).await;
                if let Some(news) = news.clone() {
                    sender.send_replace(news).unwrap_err();
                }
            };
            let (outcome, ()) = tokio::join!(probe.run(), told);
            let expected = news
                .clone()
                .unwrap_or(Err(Unresolved::Pending))
                .unwrap_err();
            let failure = outcome.unwrap_err().to_string();
            assert_eq!(failure, format!("no next hop: {expected}"));
            assert_eq!(start.elapsed(), 50 * MS);
        }
    }
}
