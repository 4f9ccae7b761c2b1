//! A TCP segment in a frame, as a description that can be built, changed and built again.

use std::net::{IpAddr, SocketAddr};

use super::{
    checksum::{checksum, wrong_by},
    ip::{Ipv4, Ipv6, Network},
};

pub type Mac = [u8; 6];

/// TCP flags as they stand in byte 13 of the header.
pub mod flags {
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const PSH: u8 = 0x08;
    pub const ACK: u8 = 0x10;
    pub const URG: u8 = 0x20;
    pub const ECE: u8 = 0x40;
    pub const CWR: u8 = 0x80;
    pub const SYN_ACK: u8 = SYN | ACK;
}

/// A frame with a TCP segment.
#[derive(Clone, Debug, PartialEq)]
pub struct Packet {
    pub link: Link,
    pub network: Network,
    pub tcp: Tcp,
    /// What stands in the frame behind the IP packet.
    pub padding: Vec<u8>,
}

/// Ethernet header and VLAN tags, outermost first.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    pub to: Mac,
    pub from: Mac,
    pub tags: Vec<Tag>,
}

/// A VLAN tag.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tag {
    /// `0x8100` for 802.1Q, `0x88a8` for 802.1ad.
    pub protocol: u16,
    /// Priority, drop eligible indicator and VLAN id.
    pub control: u16,
}

impl Tag {
    pub fn dot1q(control: u16) -> Self {
        Self {
            protocol: 0x8100,
            control,
        }
    }

    pub fn dot1ad(control: u16) -> Self {
        Self {
            protocol: 0x88a8,
            control,
        }
    }
}

/// A TCP segment.
#[derive(Clone, Debug, PartialEq)]
pub struct Tcp {
    pub source: u16,
    pub destination: u16,
    pub sequence: u32,
    pub acknowledgement: u32,
    pub flags: u8,
    pub window: u16,
    pub urgent: u16,
    /// Padded to whole words.
    pub options: Vec<u8>,
    pub payload: Vec<u8>,
    /// In words of 4 bytes, where it is not to be what it should be.
    pub data_offset: Option<u8>,
    /// By how much the checksum is wrong.
    pub checksum_error: u16,
}

impl Packet {
    /// A bare ACK between two endpoints, with Ethernet addresses that mean nothing.
    pub fn new(source: SocketAddr, destination: SocketAddr) -> Self {
        Self {
            link: Link {
                to: [2, 0, 0, 0, 0, 2],
                from: [2, 0, 0, 0, 0, 1],
                tags: Vec::new(),
            },
            network: Network::new(source.ip(), destination.ip()),
            tcp: Tcp {
                source: source.port(),
                destination: destination.port(),
                sequence: 0x0102_0304,
                acknowledgement: 0xfffe_fdfc,
                flags: flags::ACK,
                window: 0xfaf0,
                urgent: 0,
                options: Vec::new(),
                payload: Vec::new(),
                data_offset: None,
                checksum_error: 0,
            },
            padding: Vec::new(),
        }
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
    pub fn flags(mut self, flags: u8) -> Self {
        self.tcp.flags = flags;
        self
    }

    #[must_use]
    pub fn payload(mut self, payload: &[u8]) -> Self {
        self.tcp.payload = payload.to_vec();
        self
    }

    #[must_use]
    pub fn padding(mut self, bytes: usize) -> Self {
        self.padding = vec![0xaa; bytes];
        self
    }

    /// With the TCP header changed.
    #[must_use]
    pub fn tcp(mut self, change: impl FnOnce(&mut Tcp)) -> Self {
        change(&mut self.tcp);
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
            Network::V6(_) => panic!("an IPv6 packet has no IPv4 header"),
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
            Network::V4(_) => panic!("an IPv4 packet has no IPv6 header"),
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

    pub fn source(&self) -> SocketAddr {
        let address: IpAddr = match &self.network {
            Network::V4(ip) => ip.source.into(),
            Network::V6(ip) => ip.source.into(),
        };
        (address, self.tcp.source).into()
    }

    pub fn destination(&self) -> SocketAddr {
        let address: IpAddr = match &self.network {
            Network::V4(ip) => ip.destination.into(),
            Network::V6(ip) => ip.destination.into(),
        };
        (address, self.tcp.destination).into()
    }

    /// From somebody else.
    #[must_use]
    pub fn from(mut self, source: SocketAddr) -> Self {
        match (&mut self.network, source) {
            (Network::V4(ip), SocketAddr::V4(source)) => ip.source = *source.ip(),
            (Network::V6(ip), SocketAddr::V6(source)) => ip.source = *source.ip(),
            _ => panic!("{source} is of the other family"),
        }
        self.tcp.source = source.port();
        self
    }

    /// To somebody else.
    #[must_use]
    pub fn to(mut self, destination: SocketAddr) -> Self {
        match (&mut self.network, destination) {
            (Network::V4(ip), SocketAddr::V4(to)) => ip.destination = *to.ip(),
            (Network::V6(ip), SocketAddr::V6(to)) => ip.destination = *to.ip(),
            _ => panic!("{destination} is of the other family"),
        }
        self.tcp.destination = destination.port();
        self
    }

    /// What a router makes of it that sends it out like this: one hop less to go.
    #[must_use]
    pub fn forwarded(mut self, link: Link) -> Self {
        *self.hops_mut() -= 1;
        self.link(link)
    }

    /// Bytes of the IP packet.
    pub fn ip_length(&self) -> usize {
        self.build_ip().len()
    }

    pub fn build(&self) -> Vec<u8> {
        let mut frame = self.link.build(self.network.ether_type());
        frame.extend_from_slice(&self.build_ip());
        frame.extend_from_slice(&self.padding);
        frame
    }

    /// The IP packet alone.
    pub fn build_ip(&self) -> Vec<u8> {
        self.network.build(&self.tcp.build(&self.network))
    }
}

impl Link {
    /// Ethernet header and tags in front of a packet of this EtherType.
    pub(super) fn build(&self, ether_type: u16) -> Vec<u8> {
        let mut bytes = [self.to, self.from].concat();
        for tag in &self.tags {
            bytes.extend_from_slice(&tag.protocol.to_be_bytes());
            bytes.extend_from_slice(&tag.control.to_be_bytes());
        }
        bytes.extend_from_slice(&ether_type.to_be_bytes());
        bytes
    }
}

impl Tcp {
    fn build(&self, network: &Network) -> Vec<u8> {
        let mut options = self.options.clone();
        options.resize(options.len().next_multiple_of(4), 0);
        let words = self.data_offset.unwrap_or(5 + (options.len() / 4) as u8);
        let mut bytes = Vec::with_capacity(20 + options.len() + self.payload.len());
        bytes.extend_from_slice(&self.source.to_be_bytes());
        bytes.extend_from_slice(&self.destination.to_be_bytes());
        bytes.extend_from_slice(&self.sequence.to_be_bytes());
        bytes.extend_from_slice(&self.acknowledgement.to_be_bytes());
        bytes.extend_from_slice(&[words << 4, self.flags]);
        bytes.extend_from_slice(&self.window.to_be_bytes());
        bytes.extend_from_slice(&[0, 0]);
        bytes.extend_from_slice(&self.urgent.to_be_bytes());
        bytes.extend_from_slice(&options);
        bytes.extend_from_slice(&self.payload);
        let right = checksum(&[&network.pseudo_header(bytes.len()), &bytes]);
        bytes[16..18].copy_from_slice(&wrong_by(right, self.checksum_error).to_be_bytes());
        bytes
    }
}
