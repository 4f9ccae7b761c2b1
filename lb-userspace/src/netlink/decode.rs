//! rtnetlink messages → plain data.

use std::net::IpAddr;

use rtnetlink::packet_route::{
    link::{
        InfoData, InfoKind, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType,
        LinkMessage, VlanProtocol,
    },
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType, RouteVia},
};

use super::resolve::{Link, NeighbourKey, Route, Vlan};
use crate::model::{MacAddr, VlanTag};

pub(super) fn route(message: &RouteMessage) -> Route {
    match message.header.kind {
        RouteType::Unicast => {}
        RouteType::Local => return Route::Local,
        // Routes that discard, and destinations that are no single host: nothing to balance to.
        _ => return Route::Unreachable,
    }
    let mut output = None;
    let (mut gateway, mut mtu, mut encapsulates) = (None, None, false);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => output = Some(*index),
            RouteAttribute::Gateway(address) => gateway = route_address(address),
            RouteAttribute::Via(RouteVia::Inet(address)) => gateway = Some((*address).into()),
            RouteAttribute::Via(RouteVia::Inet6(address)) => gateway = Some((*address).into()),
            RouteAttribute::Metrics(metrics) => {
                mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(bytes) => Some(*bytes),
                    _ => None,
                });
            }
            RouteAttribute::EncapType(_) => encapsulates = true,
            _ => {}
        }
    }
    match output {
        Some(interface) => Route::Via {
            interface,
            gateway,
            mtu,
            encapsulates,
        },
        None => Route::Unreachable,
    }
}

pub(super) fn route_address(address: &RouteAddress) -> Option<IpAddr> {
    match *address {
        RouteAddress::Inet(address) => Some(address.into()),
        RouteAddress::Inet6(address) => Some(address.into()),
        _ => None,
    }
}

pub(super) fn link(message: &LinkMessage) -> Link {
    let mut link = Link {
        name: String::new(),
        mac: None,
        up: message
            .header
            .flags
            .contains(LinkFlags::Up | LinkFlags::LowerUp),
        mtu: 0,
        vlan: None,
    };
    let mut below = None;
    let mut below_is_elsewhere = false;
    let mut tag = None;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(bytes) => link.mtu = *bytes,
            LinkAttribute::Address(bytes)
                if message.header.link_layer_type == LinkLayerType::Ether =>
            {
                link.mac = mac(bytes);
            }
            LinkAttribute::Link(index) => below = Some(*index),
            LinkAttribute::LinkNetNsId(_) => below_is_elsewhere = true,
            LinkAttribute::LinkInfo(info) => tag = vlan_tag(info),
            _ => {}
        }
    }
    link.vlan = tag.map(|tag| Vlan {
        tag,
        parent: below.filter(|_| !below_is_elsewhere),
    });
    link
}

/// The tag that a VLAN device adds; `None` for any other kind of device.
fn vlan_tag(info: &[LinkInfo]) -> Option<VlanTag> {
    if !info.contains(&LinkInfo::Kind(InfoKind::Vlan)) {
        return None;
    }
    let mut tag = VlanTag {
        tpid: VlanProtocol::Ieee8021Q.into(),
        tci: 0,
    };
    for item in info {
        let LinkInfo::Data(InfoData::Vlan(data)) = item else {
            continue;
        };
        for attribute in data {
            match attribute {
                InfoVlan::Id(id) => tag.tci = *id,
                InfoVlan::Protocol(protocol) => tag.tpid = (*protocol).into(),
                _ => {}
            }
        }
    }
    Some(tag)
}

/// The neighbour's link-layer address while the kernel would send to it.
pub(super) fn neighbour(message: &NeighbourMessage) -> Option<MacAddr> {
    match message.header.state {
        NeighbourState::Reachable
        | NeighbourState::Stale
        | NeighbourState::Delay
        | NeighbourState::Probe
        | NeighbourState::Permanent
        | NeighbourState::Noarp => {}
        _ => return None,
    }
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => mac(bytes),
            _ => None,
        })
}

/// Whose entry this is; `None` when it is not one of IPv4 or IPv6, as a bridge's are not.
pub(super) fn neighbour_key(message: &NeighbourMessage) -> Option<NeighbourKey> {
    let address = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => {
                Some(IpAddr::from(*address))
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => {
                Some(IpAddr::from(*address))
            }
            _ => None,
        })?;
    Some(NeighbourKey {
        interface: message.header.ifindex,
        address,
    })
}

fn mac(bytes: &[u8]) -> Option<MacAddr> {
    bytes.try_into().ok().map(MacAddr)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use rtnetlink::packet_route::route::RouteLwEnCapType;

    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];

    fn route_message(kind: RouteType, attributes: Vec<RouteAttribute>) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.kind = kind;
        message.attributes = attributes;
        message
    }

    fn link_message(kind: LinkLayerType, attributes: Vec<LinkAttribute>) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.link_layer_type = kind;
        message.header.flags = LinkFlags::Up | LinkFlags::LowerUp | LinkFlags::Running;
        message.attributes = [
            LinkAttribute::IfName("eth0.5".into()),
            LinkAttribute::Address(MAC.to_vec()),
            LinkAttribute::Mtu(1496),
            LinkAttribute::Link(2),
        ]
        .into_iter()
        .chain(attributes)
        .collect();
        message
    }

    fn vlan_info(protocol: VlanProtocol) -> LinkAttribute {
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Vlan),
            LinkInfo::Data(InfoData::Vlan(vec![
                InfoVlan::Protocol(protocol),
                InfoVlan::Id(5),
            ])),
        ])
    }

    #[test]
    fn routes() {
        let gateway = Ipv4Addr::new(10, 0, 0, 1);
        let of_ipv6 = Ipv6Addr::LOCALHOST;
        let via = |gateway, mtu, encapsulates| Route::Via {
            interface: 4,
            gateway,
            mtu,
            encapsulates,
        };
        let oif = RouteAttribute::Oif(4);
        for (attributes, expected) in [
            (vec![oif.clone()], via(None, None, false)),
            (
                vec![
                    oif.clone(),
                    RouteAttribute::Gateway(gateway.into()),
                    RouteAttribute::Metrics(vec![
                        RouteMetric::Hoplimit(64),
                        RouteMetric::Mtu(1400),
                    ]),
                ],
                via(Some(gateway.into()), Some(1400), false),
            ),
            (
                vec![oif.clone(), RouteAttribute::Via(of_ipv6.into())],
                via(Some(of_ipv6.into()), None, false),
            ),
            (
                vec![oif, RouteAttribute::EncapType(RouteLwEnCapType::Mpls)],
                via(None, None, true),
            ),
            (vec![], Route::Unreachable),
        ] {
            let message = route_message(RouteType::Unicast, attributes);
            assert_eq!(route(&message), expected, "{message:?}");
        }
    }

    #[test]
    fn only_unicast_routes_lead_anywhere() {
        let of_kind = |kind| route(&route_message(kind, vec![RouteAttribute::Oif(4)]));
        assert_eq!(of_kind(RouteType::Local), Route::Local);
        for kind in [
            RouteType::BlackHole,
            RouteType::Unreachable,
            RouteType::Prohibit,
            RouteType::Broadcast,
            RouteType::Multicast,
        ] {
            assert_eq!(of_kind(kind), Route::Unreachable, "{kind:?}");
        }
    }

    #[test]
    fn vlan_devices_have_a_tag_and_a_parent() {
        for (protocol, tpid) in [
            (VlanProtocol::Ieee8021Q, 0x8100),
            (VlanProtocol::Ieee8021Ad, 0x88a8),
        ] {
            let message = link_message(LinkLayerType::Ether, vec![vlan_info(protocol)]);
            assert_eq!(
                link(&message),
                Link {
                    name: "eth0.5".into(),
                    mac: Some(MacAddr(MAC)),
                    up: true,
                    mtu: 1496,
                    vlan: Some(Vlan {
                        tag: VlanTag { tpid, tci: 5 },
                        parent: Some(2),
                    }),
                }
            );
        }
        let elsewhere = vec![
            vlan_info(VlanProtocol::Ieee8021Q),
            LinkAttribute::LinkNetNsId(0),
        ];
        let vlan = link(&link_message(LinkLayerType::Ether, elsewhere)).vlan;
        assert_eq!(vlan.unwrap().parent, None);
    }

    /// A veth's `IFLA_LINK` is its peer, which may have the index of an interface of this namespace.
    #[test]
    fn other_devices_have_no_tag() {
        let veth = LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth)]);
        assert_eq!(
            link(&link_message(LinkLayerType::Ether, vec![veth])).vlan,
            None
        );
    }

    #[test]
    fn a_link_is_up_when_it_is_set_up_and_has_carrier() {
        let mut message = link_message(LinkLayerType::Ether, vec![]);
        message.header.flags = LinkFlags::Up;
        assert!(!link(&message).up);
        message.header.flags = LinkFlags::LowerUp;
        assert!(!link(&message).up);
    }

    #[test]
    fn only_ethernet_has_a_mac() {
        assert_eq!(link(&link_message(LinkLayerType::Ipgre, vec![])).mac, None);
        let mut infiniband = link_message(LinkLayerType::Ether, vec![]);
        infiniband.attributes = vec![LinkAttribute::Address(vec![0; 20])];
        assert_eq!(link(&infiniband).mac, None);
    }

    #[test]
    fn neighbours_are_good_while_the_kernel_would_send_to_them() {
        let mut message = NeighbourMessage::default();
        message.header.ifindex = 4;
        message.attributes = vec![
            NeighbourAttribute::Destination(Ipv4Addr::new(10, 0, 0, 2).into()),
            NeighbourAttribute::LinkLayerAddress(MAC.to_vec()),
        ];
        for (state, good) in [
            (NeighbourState::Reachable, true),
            (NeighbourState::Stale, true),
            (NeighbourState::Delay, true),
            (NeighbourState::Probe, true),
            (NeighbourState::Permanent, true),
            (NeighbourState::Noarp, true),
            (NeighbourState::Failed, false),
            (NeighbourState::Incomplete, false),
            (NeighbourState::None, false),
        ] {
            message.header.state = state;
            assert_eq!(neighbour(&message), good.then_some(MacAddr(MAC)), "{state}");
        }
        assert_eq!(
            neighbour_key(&message),
            Some(NeighbourKey {
                interface: 4,
                address: Ipv4Addr::new(10, 0, 0, 2).into()
            })
        );
        message.header.state = NeighbourState::Reachable;
        message.attributes.truncate(1);
        assert_eq!(neighbour(&message), None);
        message.attributes.clear();
        assert_eq!(neighbour_key(&message), None);
    }
}
