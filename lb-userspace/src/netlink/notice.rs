//! What a notification of the kernel makes outdated.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use rtnetlink::{
    packet_core::NetlinkPayload,
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        route::{RouteAttribute, RouteMessage},
    },
};

use super::{
    decode,
    resolve::{NeighbourKey, Tables},
};

/// The part of [`Tables`] to ask the kernel for again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outdated {
    Neighbours(BTreeSet<NeighbourKey>),
    Everything,
}

/// What of `tables` a notification makes outdated; `None`: nothing.
pub(super) fn outdated(
    notice: &NetlinkPayload<RouteNetlinkMessage>,
    tables: &Tables,
) -> Option<Outdated> {
    use RouteNetlinkMessage as Message;
    match notice {
        NetlinkPayload::InnerMessage(
            Message::NewNeighbour(message) | Message::DelNeighbour(message),
        ) => decode::neighbour_key(message)
            .filter(|key| tables.neighbours.contains_key(key))
            .map(|key| Outdated::Neighbours(BTreeSet::from([key]))),
        // A host that speaks BGP sees many routes come and go that no backend is reached by.
        NetlinkPayload::InnerMessage(Message::NewRoute(message) | Message::DelRoute(message)) => {
            let prefix = Prefix::of(message)?;
            tables
                .routes
                .keys()
                .any(|&address| prefix.contains(address))
                .then_some(Outdated::Everything)
        }
        // The kernel asks a daemon to resolve a neighbour: nothing has changed yet.
        NetlinkPayload::InnerMessage(Message::GetNeighbour(_)) => None,
        // Links, addresses and rules change seldom and can change any route: that of a link that
        // goes down is removed without a notification of its own.
        NetlinkPayload::InnerMessage(_) => Some(Outdated::Everything),
        // Notifications were lost.
        NetlinkPayload::Overrun(_) => Some(Outdated::Everything),
        _ => None,
    }
}

struct Prefix {
    address: IpAddr,
    length: u32,
}

impl Prefix {
    /// The destinations of a route; `None` when they are not IPv4 or IPv6.
    fn of(message: &RouteMessage) -> Option<Self> {
        let destination = message.attributes.iter().find_map(|a| match a {
            RouteAttribute::Destination(address) => decode::route_address(address),
            _ => None,
        });
        let address = match (destination, message.header.address_family) {
            (Some(address), _) => address,
            // A default route has no destination.
            (None, AddressFamily::Inet) => Ipv4Addr::UNSPECIFIED.into(),
            (None, AddressFamily::Inet6) => Ipv6Addr::UNSPECIFIED.into(),
            (None, _) => return None,
        };
        Some(Self {
            address,
            length: message.header.destination_prefix_length.into(),
        })
    }

    fn contains(&self, address: IpAddr) -> bool {
        let common_bits = match (self.address, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
            (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
            _ => return false,
        };
        common_bits >= self.length
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rtnetlink::packet_route::{
        link::LinkMessage,
        neighbour::{NeighbourAttribute, NeighbourMessage},
    };

    use super::{super::resolve::Route, *};

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn tables() -> Tables {
        let key = NeighbourKey {
            interface: 3,
            address: ip("10.0.0.1"),
        };
        Tables {
            routes: [ip("10.1.2.3"), ip("2001:db8::1")]
                .map(|address| (address, Route::Unreachable))
                .into(),
            neighbours: BTreeMap::from([(key, None)]),
            ..Tables::default()
        }
    }

    fn route(destination: &str, length: u8) -> RouteNetlinkMessage {
        let mut message = RouteMessage::default();
        let destination = ip(destination);
        message.header.address_family = destination.into();
        message.header.destination_prefix_length = length;
        if length > 0 {
            message
                .attributes
                .push(RouteAttribute::Destination(destination.into()));
        }
        RouteNetlinkMessage::DelRoute(message)
    }

    fn neighbour(interface: u32, address: &str) -> RouteNetlinkMessage {
        let mut message = NeighbourMessage::default();
        message.header.ifindex = interface;
        message.attributes = vec![NeighbourAttribute::Destination(ip(address).into())];
        RouteNetlinkMessage::NewNeighbour(message)
    }

    fn outdated_by(message: RouteNetlinkMessage) -> Option<Outdated> {
        outdated(&NetlinkPayload::InnerMessage(message), &tables())
    }

    #[test]
    fn a_route_matters_when_a_wanted_address_is_in_its_prefix() {
        for (destination, length, matters) in [
            ("0.0.0.0", 0, true),
            ("::", 0, true),
            ("10.1.0.0", 16, true),
            ("10.1.2.3", 32, true),
            ("10.1.2.2", 32, false),
            ("10.2.0.0", 16, false),
            ("2001:db8::", 64, true),
            ("2001:db8:1::", 48, false),
        ] {
            assert_eq!(
                outdated_by(route(destination, length)).is_some(),
                matters,
                "{destination}/{length}"
            );
        }
    }

    #[test]
    fn a_neighbour_matters_when_a_wanted_address_is_reached_through_it() {
        let key = *tables().neighbours.keys().next().unwrap();
        assert_eq!(
            outdated_by(neighbour(3, "10.0.0.1")),
            Some(Outdated::Neighbours(BTreeSet::from([key])))
        );
        assert_eq!(outdated_by(neighbour(4, "10.0.0.1")), None);
        assert_eq!(outdated_by(neighbour(3, "10.0.0.2")), None);
    }

    #[test]
    fn links_and_lost_notifications_make_everything_outdated() {
        let link = RouteNetlinkMessage::NewLink(LinkMessage::default());
        assert_eq!(outdated_by(link), Some(Outdated::Everything));
        let lost = NetlinkPayload::Overrun(vec![]);
        assert_eq!(outdated(&lost, &tables()), Some(Outdated::Everything));
    }
}
