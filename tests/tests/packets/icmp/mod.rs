//! ICMP: echo requests, and errors about balanced connections (docs/packets.md §8).

mod broken;
mod echo;
mod errors;
mod full_nat;
mod modes;
mod owner;
mod random;
mod state;

use std::net::{IpAddr, SocketAddr};

use lb_common::reason::Reason;
use lb_tests::packets::{
    BALANCER, CLIENT, CLIENT6, Expect, GATEWAY, Icmp, LISTEN, LISTEN6, Link, Packet, SERVER,
    SERVER6, WEB, WEB6, address, backend_mac, flags,
};
use lb_userspace::model::ServiceId;

/// A service of one family, its only backend, a client, and a router on either side.
#[derive(Clone, Copy, Debug)]
struct Family {
    service: ServiceId,
    listen: &'static str,
    server: &'static str,
    index: u16,
    client: &'static str,
    front_router: &'static str,
    back_router: &'static str,
}

const FAMILIES: [Family; 2] = [
    Family {
        service: WEB,
        listen: LISTEN,
        server: SERVER,
        index: 1,
        client: CLIENT,
        front_router: "198.51.100.1",
        back_router: "10.0.0.254",
    },
    Family {
        service: WEB6,
        listen: LISTEN6,
        server: SERVER6,
        index: 2,
        client: CLIENT6,
        front_router: "2001:db8:c::1",
        back_router: "fd00::fe",
    },
];

fn ip(text: &str) -> IpAddr {
    text.parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// How a backend's answer is quoted, in the words of whoever got it.
fn data(from: SocketAddr, to: SocketAddr) -> Packet {
    Packet::new(from, to)
        .flags(flags::ACK | flags::PSH)
        .payload(b"an answer of the backend's")
}

impl Family {
    fn is_ipv4(&self) -> bool {
        self.index == 1
    }

    /// Bytes of an IP header without options.
    fn header(&self) -> usize {
        if self.is_ipv4() { 20 } else { 40 }
    }

    fn front_link(&self) -> Link {
        Link {
            to: BALANCER,
            from: GATEWAY,
            tags: Vec::new(),
        }
    }

    fn back_link(&self) -> Link {
        Link {
            to: BALANCER,
            from: backend_mac(self.index),
            tags: Vec::new(),
        }
    }

    /// A router on the clients' side says that the service's packet is too big.
    fn towards_backend(&self) -> Icmp {
        let quoted = data(address(self.listen), address(self.client));
        Icmp::too_big(ip(self.front_router), quoted, 1400).link(self.front_link())
    }

    /// A router on the backends' side says so of the client's packet.
    fn towards_client(&self) -> Icmp {
        let quoted = data(address(self.client), address(self.server));
        Icmp::too_big(ip(self.back_router), quoted, 1400).link(self.back_link())
    }

    /// The error as this backend is to get it.
    fn at_backend(&self, message: Icmp, index: u16, server: &str) -> Icmp {
        let link = Link {
            to: backend_mac(index),
            from: BALANCER,
            tags: Vec::new(),
        };
        let server = address(server);
        message
            .forwarded(link)
            .to(server.ip())
            .quoting(|packet| packet.from(server))
    }

    /// The error as the client is to get it, from this service's address if it is the backend's own.
    fn at_client(&self, message: Icmp, listen: &str) -> Icmp {
        let link = Link {
            to: GATEWAY,
            from: BALANCER,
            tags: Vec::new(),
        };
        let listen = address(listen);
        let sender = match message.source() {
            sender if sender == address(self.server).ip() => listen.ip(),
            sender => sender,
        };
        message
            .forwarded(link)
            .from(sender)
            .quoting(|packet| packet.to(listen))
    }

    /// Sent on as this, and counted as an error that was led to whom it concerns.
    fn led(&self, message: &Icmp) -> Expect {
        translated(self.service, message)
    }
}

fn translated(service: ServiceId, message: &Icmp) -> Expect {
    let sent = Box::new(Expect::Transmit(message.build()));
    Expect::Counted(Some(service), Reason::IcmpTranslated, sent)
}
