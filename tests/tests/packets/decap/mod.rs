//! What the decapsulator of backends makes of tunnelled packets.

mod broken;
mod buffers;
mod ecn;
mod joint;
mod model;
mod pass;
mod strip;

use std::net::{IpAddr, SocketAddr};

use lb_tests::packets::{CLIENT, CLIENT6, DecapBed, LISTEN, LISTEN6, Packet, Tunnelled, address};

const GUE_PORT: u16 = 6080;

/// The balancer's address, and the backend's by which the tunnel reaches it.
const BALANCER4: &str = "10.2.0.1";
const BACKEND4: &str = "10.2.0.11";
const BALANCER6: &str = "fd00:2::1";
const BACKEND6: &str = "fd00:2::11";

/// A backend with an address and a service's address of each family.
fn backend() -> DecapBed {
    DecapBed::new(&OWN)
}

const OWN: [&str; 4] = [BACKEND4, BACKEND6, "192.0.2.10", "2001:db8::10"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Ipip,
    Gue,
}

/// Every tunnel: outer family, inner family, and kind.
fn tunnels() -> impl Iterator<Item = (Family, Family, Kind)> {
    let families = [Family::V4, Family::V6];
    families.into_iter().flat_map(move |outer| {
        families.into_iter().flat_map(move |inner| {
            [Kind::Ipip, Kind::Gue]
                .into_iter()
                .map(move |kind| (outer, inner, kind))
        })
    })
}

/// A segment from a client to the service.
fn segment(family: Family) -> Packet {
    let (client, service): (SocketAddr, SocketAddr) = match family {
        Family::V4 => (address(CLIENT), address(LISTEN)),
        Family::V6 => (address(CLIENT6), address(LISTEN6)),
    };
    Packet::new(client, service).payload(b"within")
}

/// The segment in a tunnel from the balancer to the backend.
fn through(outer: Family, kind: Kind, inner: Packet) -> Tunnelled {
    let (from, to) = match outer {
        Family::V4 => (BALANCER4, BACKEND4),
        Family::V6 => (BALANCER6, BACKEND6),
    };
    let tunnelled = Tunnelled::ipip(ip(from), ip(to), inner);
    match kind {
        Kind::Ipip => tunnelled,
        Kind::Gue => tunnelled.gue(GUE_PORT),
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}
