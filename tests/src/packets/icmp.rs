//! ICMP messages in frames, as descriptions that can be built, changed and built again.

use std::net::IpAddr;

use super::{
    checksum::{checksum, wrong_by},
    ip::{Ipv4, Ipv6, Network},
    packet::{Link, Packet, Tag},
};

/// A frame with an ICMP or ICMPv6 message.
#[derive(Clone, Debug, PartialEq)]
pub struct Icmp {
    pub link: Link,
    pub network: Network,
    pub kind: u8,
    pub code: u8,
    /// The word behind the checksum: identifier and sequence number, an MTU, or nothing.
    pub rest: u32,
    pub body: Body,
    /// By how much the message's checksum is wrong.
    pub checksum_error: u16,
    /// What stands in the frame behind the IP packet.
    pub padding: Vec<u8>,
}

/// What follows a message's first 8 bytes.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    Bytes(Vec<u8>),
    /// So many bytes of the packet, or all of it.
    Quote(Box<Packet>, Option<usize>),
}

impl Icmp {
    /// A message without a body, with Ethernet addresses that mean nothing.
    pub fn new(source: IpAddr, destination: IpAddr, kind: u8, code: u8) -> Self {
        let mut network = Network::new(source, destination);
        match &mut network {
            Network::V4(ip) => ip.protocol = 1,
            Network::V6(ip) => ip.protocol = 58,
        }
        Self {
            link: Link {
                to: [2, 0, 0, 0, 0, 2],
                from: [2, 0, 0, 0, 0, 1],
                tags: Vec::new(),
            },
            network,
            kind,
            code,
            rest: 0,
            body: Body::Bytes(Vec::new()),
            checksum_error: 0,
            padding: Vec::new(),
        }
    }

    /// An echo request with some data.
    pub fn echo(source: IpAddr, destination: IpAddr, data: &[u8]) -> Self {
        let kind = if source.is_ipv4() { 8 } else { 128 };
        let mut message = Self::new(source, destination, kind, 0);
        message.rest = 0x1234_0001;
        message.body = Body::Bytes(data.to_vec());
        message
    }

    /// "Too big" from somebody to whoever sent this packet, which it quotes whole.
    pub fn too_big(sender: IpAddr, packet: Packet, mtu: u16) -> Self {
        let receiver = packet.source().ip();
        let (kind, code) = if sender.is_ipv4() { (3, 4) } else { (2, 0) };
        let mut message = Self::new(sender, receiver, kind, code);
        message.rest = mtu.into();
        message.body = Body::Quote(Box::new(packet), None);
        message
    }

    /// With no more than so many bytes of the quoted packet.
    #[must_use]
    pub fn cut(mut self, bytes: usize) -> Self {
        if let Body::Quote(_, length) = &mut self.body {
            *length = Some(bytes);
        }
        self
    }

    /// With something else quoted.
    #[must_use]
    pub fn quoting(mut self, change: impl FnOnce(Packet) -> Packet) -> Self {
        if let Body::Quote(packet, _) = &mut self.body {
            **packet = change((**packet).clone());
        }
        self
    }

    /// As another message.
    #[must_use]
    pub fn kind(mut self, kind: u8, code: u8) -> Self {
        (self.kind, self.code) = (kind, code);
        self
    }

    #[must_use]
    pub fn link(mut self, link: Link) -> Self {
        self.link = link;
        self
    }

    #[must_use]
    pub fn tags(mut self, tags: &[Tag]) -> Self {
        self.link.tags = tags.to_vec();
        self
    }

    #[must_use]
    pub fn padding(mut self, bytes: usize) -> Self {
        self.padding = vec![0xaa; bytes];
        self
    }

    #[must_use]
    pub fn checksum_error(mut self, error: u16) -> Self {
        self.checksum_error = error;
        self
    }

    /// With the IPv4 header changed.
    ///
    /// # Panics
    ///
    /// If there is none.
    #[must_use]
    pub fn v4(mut self, change: impl FnOnce(&mut Ipv4)) -> Self {
        match &mut self.network {
            Network::V4(ip) => change(ip),
            Network::V6(_) => panic!("an ICMPv6 message has no IPv4 header"),
        }
        self
    }

    /// With the IPv6 header changed.
    ///
    /// # Panics
    ///
    /// If there is none.
    #[must_use]
    pub fn v6(mut self, change: impl FnOnce(&mut Ipv6)) -> Self {
        match &mut self.network {
            Network::V6(ip) => change(ip),
            Network::V4(_) => panic!("an ICMP message has no IPv6 header"),
        }
        self
    }

    pub fn is_ipv4(&self) -> bool {
        matches!(self.network, Network::V4(_))
    }

    pub fn source(&self) -> IpAddr {
        match &self.network {
            Network::V4(ip) => ip.source.into(),
            Network::V6(ip) => ip.source.into(),
        }
    }

    pub fn destination(&self) -> IpAddr {
        match &self.network {
            Network::V4(ip) => ip.destination.into(),
            Network::V6(ip) => ip.destination.into(),
        }
    }

    /// From somebody else.
    ///
    /// # Panics
    ///
    /// If that one is of the other family.
    #[must_use]
    pub fn from(mut self, source: IpAddr) -> Self {
        match (&mut self.network, source) {
            (Network::V4(ip), IpAddr::V4(source)) => ip.source = source,
            (Network::V6(ip), IpAddr::V6(source)) => ip.source = source,
            _ => panic!("{source} is of the other family"),
        }
        self
    }

    /// To somebody else.
    ///
    /// # Panics
    ///
    /// As [`Icmp::from`].
    #[must_use]
    pub fn to(mut self, destination: IpAddr) -> Self {
        match (&mut self.network, destination) {
            (Network::V4(ip), IpAddr::V4(to)) => ip.destination = to,
            (Network::V6(ip), IpAddr::V6(to)) => ip.destination = to,
            _ => panic!("{destination} is of the other family"),
        }
        self
    }

    /// With this TTL or hop limit.
    #[must_use]
    pub fn hops(mut self, hops: u8) -> Self {
        *self.hops_mut() = hops;
        self
    }

    fn hops_mut(&mut self) -> &mut u8 {
        match &mut self.network {
            Network::V4(ip) => &mut ip.ttl,
            Network::V6(ip) => &mut ip.hop_limit,
        }
    }

    /// What a router makes of it that sends it out like this.
    #[must_use]
    pub fn forwarded(mut self, link: Link) -> Self {
        *self.hops_mut() -= 1;
        self.link(link)
    }

    pub fn build(&self) -> Vec<u8> {
        let mut frame = self.link.build(self.network.ether_type());
        frame.extend_from_slice(&self.network.build(&self.message()));
        frame.extend_from_slice(&self.padding);
        frame
    }

    /// The message behind the IP header.
    fn message(&self) -> Vec<u8> {
        let mut bytes = vec![self.kind, self.code, 0, 0];
        bytes.extend_from_slice(&self.rest.to_be_bytes());
        bytes.extend(match &self.body {
            Body::Bytes(body) => body.clone(),
            Body::Quote(packet, length) => {
                let mut quoted = packet.build_ip();
                quoted.truncate(length.unwrap_or(usize::MAX));
                quoted
            }
        });
        let right = match &self.network {
            Network::V4(_) => checksum(&[&bytes]),
            // RFC 4443 §2.3
            Network::V6(ip) => {
                let length = (bytes.len() as u32).to_be_bytes();
                let ends = [ip.source.octets(), ip.destination.octets()].concat();
                checksum(&[&ends, &length, &[0, 0, 0, 58], &bytes])
            }
        };
        bytes[2..4].copy_from_slice(&wrong_by(right, self.checksum_error).to_be_bytes());
        bytes
    }
}
