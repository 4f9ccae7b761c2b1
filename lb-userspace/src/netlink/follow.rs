//! The task that keeps resolutions current.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    net::IpAddr,
    time::Duration,
};

use futures_util::StreamExt;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until},
};
use tracing::{debug, warn};

use super::{
    NetlinkError, RequestFailure, Resolution,
    asks::Asks,
    notice::{Outdated, outdated},
    pending::Pending,
    resolve::{NeighbourKey, Route, Tables},
    wire::{Connections, Requests},
};

/// Everything is asked for again this often, though nothing was notified: a change whose
/// notification could not be read is found at the latest then.
const SAFETY_NET: Duration = Duration::from_secs(30);
/// Before netlink is tried again after it failed.
const RETRY: Duration = Duration::from_secs(1);

pub(super) struct Follower {
    wanted: watch::Receiver<BTreeSet<IpAddr>>,
    found: mpsc::Sender<(IpAddr, Resolution)>,
    /// What was sent last.
    told: BTreeMap<IpAddr, Resolution>,
}

impl Follower {
    pub(super) fn new(
        wanted: watch::Receiver<BTreeSet<IpAddr>>,
        found: mpsc::Sender<(IpAddr, Resolution)>,
    ) -> Self {
        Self {
            wanted,
            found,
            told: BTreeMap::new(),
        }
    }

    /// Follows until nobody wants it any more.
    pub(super) async fn run(mut self, connections: Connections) {
        let mut opened = Ok(connections);
        loop {
            let outcome = match opened {
                Ok(connections) => self.follow(connections).await,
                Err(error) => Err(error),
            };
            match outcome {
                Ok(()) => return,
                Err(error) => warn!(
                    error = &error as &dyn Error,
                    "cannot follow routes and neighbours; trying again in {RETRY:?}"
                ),
            }
            sleep(RETRY).await;
            if self.found.is_closed() || self.wanted.has_changed().is_err() {
                return;
            }
            opened = Connections::open();
        }
    }

    /// Follows until the other end of a channel is dropped, or netlink fails.
    async fn follow(&mut self, mut connections: Connections) -> Result<(), NetlinkError> {
        let mut tables = Tables::default();
        let mut asks = Asks::default();
        let mut pending = Pending::default();
        pending.add(Instant::now(), Outdated::Everything);
        let mut safety_net = interval_at(Instant::now() + SAFETY_NET, SAFETY_NET);
        safety_net.set_missed_tick_behavior(MissedTickBehavior::Delay);

        let mut next_ask = None;
        loop {
            let requests = &connections.requests;
            tokio::select! {
                wanted = self.wanted.changed() => match wanted {
                    Ok(()) => pending.add(Instant::now(), Outdated::Everything),
                    Err(_) => return Ok(()),
                },
                () = self.found.closed() => return Ok(()),
                notice = connections.notices.next() => {
                    let notice = notice.ok_or(NetlinkError::NoticesEnded)?;
                    if let Some(outdated) = outdated(&notice, &tables) {
                        pending.add(Instant::now(), outdated);
                    }
                }
                _ = safety_net.tick() => pending.add(Instant::now(), Outdated::Everything),
                () = at(pending.due()) => {
                    match pending.take() {
                        Some(Outdated::Everything) => {
                            let wanted = self.wanted.borrow_and_update().clone();
                            tables = gather(requests, &wanted).await?;
                        }
                        Some(Outdated::Neighbours(keys)) => {
                            for key in keys {
                                let mac = requests.neighbour(key).await?;
                                tables.neighbours.insert(key, mac);
                            }
                        }
                        None => {}
                    }
                    asks.observe(Instant::now(), &tables.neighbours);
                    next_ask = asks.next();
                    self.report(&tables).await;
                }
                () = at(next_ask) => {
                    use_neighbours(requests, asks.take_due(Instant::now())).await?;
                    next_ask = asks.next();
                }
            }
        }
    }

    /// Sends what has changed. That nobody receives it any more is noticed by the caller.
    async fn report(&mut self, tables: &Tables) {
        self.told
            .retain(|address, _| tables.routes.contains_key(address));
        for &address in tables.routes.keys() {
            let resolution = tables.resolve(address);
            if self.told.get(&address) == Some(&resolution) {
                continue;
            }
            debug!(%address, ?resolution, "next hop changed");
            if self
                .found
                .send((address, resolution.clone()))
                .await
                .is_err()
            {
                return;
            }
            self.told.insert(address, resolution);
        }
    }
}

/// Asks the kernel for all that the wanted addresses depend on.
async fn gather(requests: &Requests, wanted: &BTreeSet<IpAddr>) -> Result<Tables, NetlinkError> {
    let mut tables = Tables::default();
    for &address in wanted {
        let route = requests.route(address).await?;
        if let Route::Via { interface, .. } = route {
            gather_links(requests, interface, &mut tables).await?;
        }
        tables.routes.insert(address, route);
    }
    for key in tables.neighbours_on_paths() {
        let mac = requests.neighbour(key).await?;
        tables.neighbours.insert(key, mac);
    }
    Ok(tables)
}

/// Adds an interface, and those below it, unless they are there.
async fn gather_links(
    requests: &Requests,
    interface: u32,
    tables: &mut Tables,
) -> Result<(), NetlinkError> {
    let mut next = Some(interface);
    while let Some(index) = next.filter(|index| !tables.links.contains_key(index)) {
        let Some(link) = requests.link(index).await? else {
            break;
        };
        next = link.vlan.as_ref().and_then(|vlan| vlan.parent);
        tables.links.insert(index, link);
    }
    Ok(())
}

/// Asks the kernel to resolve or confirm neighbours. One that it refuses, for the sake of its
/// interface or of a full neighbour table, is logged and does not keep the others back.
async fn use_neighbours(
    requests: &Requests,
    neighbours: Vec<NeighbourKey>,
) -> Result<(), NetlinkError> {
    let mut refused = 0;
    let mut last = None;
    for key in neighbours {
        match requests.use_neighbour(key).await {
            Err(
                error @ NetlinkError::Request {
                    failure: RequestFailure::Refused(_),
                    ..
                },
            ) => {
                refused += 1;
                last = Some(error);
            }
            outcome => outcome?,
        }
    }
    if let Some(error) = last {
        warn!(
            refused,
            error = &error as &dyn Error,
            "neighbours not resolved"
        );
    }
    Ok(())
}

/// Waits for a point in time; for ever when there is none.
async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
