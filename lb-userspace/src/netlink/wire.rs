//! The requests that are made to the kernel, and the sockets.

use std::{io, net::IpAddr, time::Duration};

use futures_util::{Stream, StreamExt};
use rtnetlink::{
    Handle, MulticastGroup,
    packet_core::{
        NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
    },
    packet_route::{
        RouteNetlinkMessage,
        link::{LinkAttribute, LinkExtentMask, LinkMessage},
        neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
        route::{RouteAttribute, RouteMessage},
    },
};
use tokio::{task::JoinSet, time::timeout};

use super::{
    NetlinkError, RequestFailure, decode,
    resolve::{Link, NeighbourKey, Route},
};
use crate::model::MacAddr;

/// The kernel answers within the system call that asks; longer than this, the answer is lost.
const ANSWER: Duration = Duration::from_secs(2);

/// Everything that a resolution depends on.
const GROUPS: [MulticastGroup; 8] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
];

/// One socket for requests and one for notifications: on a shared one, a notification that another
/// process caused can carry the sequence number of a request of ours and pass for its answer.
pub(super) struct Connections {
    pub(super) requests: Requests,
    /// Ends when the socket failed.
    pub(super) notices: Box<dyn Stream<Item = NetlinkPayload<RouteNetlinkMessage>> + Send + Unpin>,
    /// The tasks that drive the sockets; they end with this.
    _drivers: JoinSet<()>,
}

impl Connections {
    /// Opens both sockets in this thread's network namespace.
    pub(super) fn open() -> Result<Self, NetlinkError> {
        // The subscription first: what changes while the first requests are answered is notified.
        let (notices_driver, _, notices) =
            rtnetlink::new_multicast_connection(&GROUPS).map_err(NetlinkError::Open)?;
        let (mut requests_driver, handle, _) =
            rtnetlink::new_connection().map_err(NetlinkError::Open)?;
        // Without this, the end of a request that was done looks like that of the connection.
        requests_driver.set_forward_ack(true);

        let mut drivers = JoinSet::new();
        drivers.spawn(notices_driver);
        drivers.spawn(requests_driver);
        Ok(Self {
            requests: Requests { handle },
            notices: Box::new(notices.map(|(message, _)| message.payload)),
            _drivers: drivers,
        })
    }
}

pub(super) struct Requests {
    handle: Handle,
}

impl Requests {
    /// How the kernel would send to `destination`, as `ip route get` says. Of several next hops it
    /// chooses one.
    pub(super) async fn route(&self, destination: IpAddr) -> Result<Route, NetlinkError> {
        let mut query = RouteMessage::default();
        query.header.address_family = destination.into();
        query.header.destination_prefix_length = match destination {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        };
        query
            .attributes
            .push(RouteAttribute::Destination(destination.into()));
        match self.ask(RouteNetlinkMessage::GetRoute(query), 0).await {
            Ok(Some(RouteNetlinkMessage::NewRoute(route))) => Ok(decode::route(&route)),
            Err(RequestFailure::Refused(error)) if means_no_route(&error) => Ok(Route::Unreachable),
            other => Err(failed(other, || {
                format!("look up the route to {destination}")
            })),
        }
    }

    /// `None` when there is no such interface.
    pub(super) async fn link(&self, index: u32) -> Result<Option<Link>, NetlinkError> {
        let mut query = LinkMessage::default();
        query.header.index = index;
        query
            .attributes
            .push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        match self.ask(RouteNetlinkMessage::GetLink(query), 0).await {
            Ok(Some(RouteNetlinkMessage::NewLink(link))) => Ok(Some(decode::link(&link))),
            Err(RequestFailure::Refused(error)) if is_gone(&error) => Ok(None),
            other => Err(failed(other, || format!("look up interface {index}"))),
        }
    }

    /// The link-layer address that the kernel would send to; `None` when it knows none.
    pub(super) async fn neighbour(
        &self,
        key: NeighbourKey,
    ) -> Result<Option<MacAddr>, NetlinkError> {
        let query = RouteNetlinkMessage::GetNeighbour(neighbour_message(key));
        match self.ask(query, 0).await {
            Ok(Some(RouteNetlinkMessage::NewNeighbour(entry))) => Ok(decode::neighbour(&entry)),
            Err(RequestFailure::Refused(error)) if is_gone(&error) => Ok(None),
            other => Err(failed(other, || {
                format!(
                    "look up neighbour {} on interface {}",
                    key.address, key.interface
                )
            })),
        }
    }

    /// Has the kernel behave as if it sent to the neighbour: resolve it when it is not known,
    /// confirm it when it is stale. The outcome is notified.
    pub(super) async fn use_neighbour(&self, key: NeighbourKey) -> Result<(), NetlinkError> {
        let mut message = neighbour_message(key);
        message.header.state = NeighbourState::None;
        message.header.flags = NeighbourFlags::Use;
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        match self
            .ask(RouteNetlinkMessage::NewNeighbour(message), flags)
            .await
        {
            Ok(None) => Ok(()),
            other => Err(failed(other, || {
                format!(
                    "have neighbour {} on interface {} resolved",
                    key.address, key.interface
                )
            })),
        }
    }

    /// Makes a request that has one answer; `None` is the acknowledgement of one without.
    async fn ask(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Option<RouteNetlinkMessage>, RequestFailure> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        let mut answers = self
            .handle
            .clone()
            .request(request)
            .map_err(|_| RequestFailure::Closed)?;
        let answer = timeout(ANSWER, answers.next())
            .await
            .map_err(|_| RequestFailure::NoAnswer)?
            .ok_or(RequestFailure::Closed)?;
        match answer.payload {
            NetlinkPayload::InnerMessage(message) => Ok(Some(message)),
            NetlinkPayload::Error(error) if error.code.is_none() => Ok(None),
            NetlinkPayload::Error(error) => Err(RequestFailure::Refused(error.to_io())),
            _ => Err(RequestFailure::Unexpected),
        }
    }
}

fn neighbour_message(key: NeighbourKey) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = key.address.into();
    message.header.ifindex = key.interface;
    message
        .attributes
        .push(NeighbourAttribute::Destination(key.address.into()));
    message
}

/// An error answer is how the kernel reports routes that discard: `EINVAL` for a blackhole,
/// `EHOSTUNREACH` for unreachable, `EACCES` for prohibit (`fib_props` in `net/ipv4/fib_semantics.c`);
/// `ENETUNREACH` is no route at all.
fn means_no_route(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL)
    )
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENOENT))
}

fn failed(
    answer: Result<Option<RouteNetlinkMessage>, RequestFailure>,
    action: impl FnOnce() -> String,
) -> NetlinkError {
    NetlinkError::Request {
        action: action(),
        failure: answer.err().unwrap_or(RequestFailure::Unexpected),
    }
}
