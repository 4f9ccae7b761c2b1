//! What the kernel answered, as plain data, and the next hops that follow from it. No I/O.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use super::Resolution;
use crate::model::{MacAddr, NextHop, Unresolved, VlanTag};

/// The kernel's answers that the wanted addresses depend on.
#[derive(Debug, Default)]
pub(super) struct Tables {
    /// By wanted address.
    pub(super) routes: BTreeMap<IpAddr, Route>,
    /// By interface index: those that routes lead to, and what lies below them.
    pub(super) links: HashMap<u32, Link>,
    /// Those on a usable path; `None`: no valid link-layer address.
    pub(super) neighbours: BTreeMap<NeighbourKey, Option<MacAddr>>,
}

/// The kernel's routing decision for one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// No route, or one that discards.
    Unreachable,
    /// An address of this host.
    Local,
    Via {
        /// Index of the interface that it leads to.
        interface: u32,
        /// `None`: the destination is on the link. May be of the other address family.
        gateway: Option<IpAddr>,
        /// In bytes; `None`: that of the interface.
        mtu: Option<u32>,
        /// The kernel would wrap the packet (MPLS, SRv6, …) on this route.
        encapsulates: bool,
    },
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) name: String,
    /// `None`: not Ethernet.
    pub(super) mac: Option<MacAddr>,
    /// Administratively up, and has carrier.
    pub(super) up: bool,
    /// In bytes.
    pub(super) mtu: u32,
    /// What it adds to packets when it is a VLAN device.
    pub(super) vlan: Option<Vlan>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Vlan {
    pub(super) tag: VlanTag,
    /// Index of the interface below; `None`: it is in another network namespace.
    pub(super) parent: Option<u32>,
}

/// A neighbour cache entry's name: an address on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NeighbourKey {
    pub(super) interface: u32,
    pub(super) address: IpAddr,
}

impl Tables {
    /// The next hop towards a wanted address.
    pub(super) fn resolve(&self, address: IpAddr) -> Resolution {
        let path = self.path(address)?;
        let destination_mac = self.neighbours.get(&path.neighbour).copied().flatten();
        Ok(NextHop {
            ifindex: path.transmits,
            interface: path.transmitter.name.clone(),
            source_mac: path.source_mac,
            destination_mac: destination_mac.ok_or_else(|| Unresolved::NoNeighbour {
                address: path.neighbour.address,
                interface: path.source.name.clone(),
            })?,
            vlan: path.vlan,
            mtu: path.mtu,
        })
    }

    /// Every neighbour that a usable path leads to, known or not.
    pub(super) fn neighbours_on_paths(&self) -> BTreeSet<NeighbourKey> {
        self.routes
            .keys()
            .filter_map(|&address| Some(self.path(address).ok()?.neighbour))
            .collect()
    }

    /// The way to an address, as far as the neighbour.
    fn path(&self, address: IpAddr) -> Result<Path<'_>, Unresolved> {
        let route = self.routes.get(&address).ok_or(Unresolved::Pending)?;
        let (interface, gateway, mtu, encapsulates) = match *route {
            Route::Unreachable => return Err(Unresolved::NoRoute(address)),
            Route::Local => return Err(Unresolved::Local { address }),
            Route::Via {
                interface,
                gateway,
                mtu,
                encapsulates,
            } => (interface, gateway, mtu, encapsulates),
        };
        // The interface can have vanished since the route was looked up; so will the route have.
        let link = |index| self.links.get(&index).ok_or(Unresolved::NoRoute(address));
        let source = link(interface)?;
        let unsupported = |reason| Unresolved::Unsupported {
            interface: source.name.clone(),
            reason,
        };
        let source_mac = source
            .mac
            .ok_or_else(|| Unresolved::NotEthernet(source.name.clone()))?;
        if encapsulates {
            return Err(unsupported("its route encapsulates packets"));
        }

        let mut vlan = Vec::new();
        let (mut transmits, mut transmitter) = (interface, source);
        loop {
            if !transmitter.up {
                return Err(Unresolved::InterfaceDown(transmitter.name.clone()));
            }
            let Some(Vlan { tag, parent }) = transmitter.vlan else {
                break;
            };
            if vlan.len() == MAX_VLAN_TAGS {
                return Err(unsupported("more than two VLAN tags"));
            }
            // Each interface further down puts its tag before those already there.
            vlan.insert(0, tag);
            transmits = parent.ok_or_else(|| {
                unsupported("the interface below it is in another network namespace")
            })?;
            transmitter = link(transmits)?;
        }

        Ok(Path {
            source,
            source_mac,
            transmits,
            transmitter,
            vlan,
            neighbour: NeighbourKey {
                interface,
                address: gateway.unwrap_or(address),
            },
            mtu: u16::try_from(mtu.unwrap_or(source.mtu)).unwrap_or(u16::MAX),
        })
    }
}

/// As many as the packet path writes.
const MAX_VLAN_TAGS: usize = 2;

struct Path<'a> {
    /// The interface that the route leads to.
    source: &'a Link,
    source_mac: MacAddr,
    /// Index of the interface below all VLAN devices.
    transmits: u32,
    transmitter: &'a Link,
    /// Outermost first.
    vlan: Vec<VlanTag>,
    neighbour: NeighbourKey,
    mtu: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));
    const GATEWAY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 9, 0, 1));
    const INNER: VlanTag = VlanTag {
        tpid: 0x8100,
        tci: 5,
    };
    const OUTER: VlanTag = VlanTag {
        tpid: 0x88a8,
        tci: 9,
    };

    fn mac(last: u8) -> MacAddr {
        MacAddr([2, 0, 0, 0, 0, last])
    }

    fn link(index: u8) -> Link {
        Link {
            name: format!("eth{index}"),
            mac: Some(mac(index)),
            up: true,
            mtu: 1500,
            vlan: None,
        }
    }

    fn vlan(index: u8, tag: VlanTag, parent: Option<u32>) -> Link {
        Link {
            vlan: Some(Vlan { tag, parent }),
            ..link(index)
        }
    }

    fn via(interface: u32) -> Route {
        Route::Via {
            interface,
            gateway: None,
            mtu: None,
            encapsulates: false,
        }
    }

    /// `ADDRESS` is on the link of interface 3, which is eth3, and answers as `mac(0xbb)`.
    fn tables(links: impl IntoIterator<Item = (u32, Link)>) -> Tables {
        let on_link = NeighbourKey {
            interface: 3,
            address: ADDRESS,
        };
        Tables {
            routes: BTreeMap::from([(ADDRESS, via(3))]),
            links: links.into_iter().collect(),
            neighbours: BTreeMap::from([(on_link, Some(mac(0xbb)))]),
        }
    }

    #[test]
    fn neighbour_on_the_link() {
        let tables = tables([(3, link(3))]);
        assert_eq!(
            tables.resolve(ADDRESS),
            Ok(NextHop {
                ifindex: 3,
                interface: "eth3".into(),
                source_mac: mac(3),
                destination_mac: mac(0xbb),
                vlan: vec![],
                mtu: 1500,
            })
        );
    }

    #[test]
    fn gateway_and_mtu_of_the_route_come_first() {
        let mut tables = tables([(3, link(3))]);
        let gateway = NeighbourKey {
            interface: 3,
            address: GATEWAY,
        };
        tables.routes.insert(
            ADDRESS,
            Route::Via {
                interface: 3,
                gateway: Some(GATEWAY),
                mtu: Some(1400),
                encapsulates: false,
            },
        );
        assert_eq!(tables.neighbours_on_paths(), BTreeSet::from([gateway]));
        assert_eq!(
            tables.resolve(ADDRESS),
            Err(Unresolved::NoNeighbour {
                address: GATEWAY,
                interface: "eth3".into()
            })
        );
        tables.neighbours.insert(gateway, Some(mac(0xcc)));
        let next_hop = tables.resolve(ADDRESS).unwrap();
        assert_eq!(next_hop.destination_mac, mac(0xcc));
        assert_eq!(next_hop.mtu, 1400);
    }

    #[test]
    fn an_mtu_beyond_16_bits_is_the_largest() {
        let tables = tables([(
            3,
            Link {
                mtu: 65_536,
                ..link(3)
            },
        )]);
        assert_eq!(tables.resolve(ADDRESS).unwrap().mtu, u16::MAX);
    }

    #[test]
    fn stacked_vlans_go_outermost_first_and_leave_through_the_lowest_interface() {
        let tables = tables([
            (3, vlan(3, INNER, Some(2))),
            (2, vlan(2, OUTER, Some(1))),
            (1, link(1)),
        ]);
        let next_hop = tables.resolve(ADDRESS).unwrap();
        assert_eq!(next_hop.vlan, [OUTER, INNER]);
        assert_eq!((next_hop.ifindex, &*next_hop.interface), (1, "eth1"));
        assert_eq!(next_hop.source_mac, mac(3));
        assert_eq!(next_hop.destination_mac, mac(0xbb));
    }

    #[test]
    fn what_the_packet_path_cannot_do_is_unsupported() {
        let unsupported = |tables: Tables| match tables.resolve(ADDRESS) {
            Err(Unresolved::Unsupported { interface, reason }) if interface == "eth3" => reason,
            other => panic!("{other:?}"),
        };
        let three_tags = tables([
            (3, vlan(3, INNER, Some(2))),
            (2, vlan(2, OUTER, Some(1))),
            (1, vlan(1, OUTER, Some(4))),
            (4, link(4)),
        ]);
        assert!(unsupported(three_tags).contains("two VLAN tags"));
        assert!(unsupported(tables([(3, vlan(3, INNER, None))])).contains("namespace"));
        let mut encapsulating = tables([(3, link(3))]);
        encapsulating.routes.insert(
            ADDRESS,
            Route::Via {
                interface: 3,
                gateway: None,
                mtu: None,
                encapsulates: true,
            },
        );
        assert!(unsupported(encapsulating).contains("encapsulates"));
    }

    #[test]
    fn any_interface_of_a_stack_that_is_down_is_named() {
        let down = Link {
            up: false,
            ..link(1)
        };
        let tables = tables([(3, vlan(3, INNER, Some(1))), (1, down)]);
        assert_eq!(
            tables.resolve(ADDRESS),
            Err(Unresolved::InterfaceDown("eth1".into()))
        );
        assert!(tables.neighbours_on_paths().is_empty());
    }

    #[test]
    fn each_reason_has_its_own_answer() {
        let not_ethernet = Link {
            mac: None,
            ..link(3)
        };
        assert_eq!(
            tables([(3, not_ethernet)]).resolve(ADDRESS),
            Err(Unresolved::NotEthernet("eth3".into()))
        );
        let no_route = Err(Unresolved::NoRoute(ADDRESS));
        assert_eq!(tables([]).resolve(ADDRESS), no_route, "interface is gone");

        let mut tables = tables([(3, link(3))]);
        for (route, answer) in [
            (Route::Unreachable, no_route),
            (Route::Local, Err(Unresolved::Local { address: ADDRESS })),
        ] {
            tables.routes.insert(ADDRESS, route);
            assert_eq!(tables.resolve(ADDRESS), answer);
        }
        assert_eq!(tables.resolve(GATEWAY), Err(Unresolved::Pending));
    }
}
