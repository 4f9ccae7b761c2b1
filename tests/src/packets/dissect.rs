//! Reads frames back, and says which checksums verify.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use super::{
    checksum::verifies,
    ip::{Extension, pseudo_header},
    packet::{Link, Tag},
};

/// A frame with a whole TCP segment, taken apart.
#[derive(Clone, PartialEq)]
pub struct Dissection {
    pub link: Link,
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub hops: u8,
    pub flags: u8,
    /// Of the IPv4 header; true for IPv6, which has none.
    pub ip_checksum_verifies: bool,
    pub tcp_checksum_verifies: bool,
    /// The IP packet and whatever stands behind it, with everything zeroed that translation
    /// changes: addresses, ports, checksums and hops.
    pub constant: Vec<u8>,
}

impl Dissection {
    /// Takes a frame apart; `None` where it does not hold a whole, unfragmented TCP segment.
    pub fn of(frame: &[u8]) -> Option<Self> {
        let (link, ether_type, packet) = link(frame)?;
        let ip = match ether_type {
            0x0800 => ipv4(packet)?,
            0x86dd => ipv6(packet)?,
            _ => return None,
        };
        let segment = packet.get(ip.header..ip.length)?;
        let header = usize::from(segment.get(12)? >> 4) * 4;
        if header < 20 || segment.len() < header {
            return None;
        }
        let port = |at: usize| u16::from_be_bytes([segment[at], segment[at + 1]]);
        let mut constant = packet.to_vec();
        constant[ip.header..ip.header + 4].fill(0);
        constant[ip.header + 16..ip.header + 18].fill(0);
        let pseudo = match (ip.source, ip.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                constant[8] = 0;
                constant[10..20].fill(0);
                pseudo_header(
                    &source.octets(),
                    &destination.octets(),
                    segment.len() as u32,
                )
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                constant[7..40].fill(0);
                pseudo_header(
                    &source.octets(),
                    &destination.octets(),
                    segment.len() as u32,
                )
            }
            _ => return None,
        };
        Some(Self {
            link,
            source: (ip.source, port(0)).into(),
            destination: (ip.destination, port(2)).into(),
            hops: ip.hops,
            flags: segment[13],
            ip_checksum_verifies: ip.checksum_verifies,
            tcp_checksum_verifies: verifies(&[&pseudo, segment]),
            constant,
        })
    }
}

impl fmt::Debug for Dissection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = |verifies| if verifies { "ok" } else { "WRONG" };
        write!(
            f,
            "{} > {} flags {:#04x} hops {} ip checksum {} tcp checksum {} {:02x?}",
            self.source,
            self.destination,
            self.flags,
            self.hops,
            verdict(self.ip_checksum_verifies),
            verdict(self.tcp_checksum_verifies),
            self.link,
        )
    }
}

/// What an IP header says. `header` is where TCP begins, `length` where the packet ends.
struct Ip {
    source: IpAddr,
    destination: IpAddr,
    hops: u8,
    checksum_verifies: bool,
    header: usize,
    length: usize,
}

/// The link header, the EtherType behind its tags, and what follows.
pub(super) fn link(frame: &[u8]) -> Option<(Link, u16, &[u8])> {
    let word = |at: usize| Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]));
    let mut tags = Vec::new();
    let mut at = 12;
    let mut ether_type = word(at)?;
    while matches!(ether_type, 0x8100 | 0x88a8) && tags.len() < 2 {
        tags.push(Tag {
            protocol: ether_type,
            control: word(at + 2)?,
        });
        at += 4;
        ether_type = word(at)?;
    }
    let link = Link {
        to: frame[0..6].try_into().ok()?,
        from: frame[6..12].try_into().ok()?,
        tags,
    };
    Some((link, ether_type, &frame[at + 2..]))
}

fn ipv4(packet: &[u8]) -> Option<Ip> {
    let first = *packet.first()?;
    let header = usize::from(first & 0xf) * 4;
    let bytes = packet.get(..header).filter(|bytes| bytes.len() >= 20)?;
    let fragment = u16::from_be_bytes([bytes[6], bytes[7]]) & 0x3fff;
    let address = |at: usize| Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]);
    (first >> 4 == 4 && bytes[9] == 6 && fragment == 0).then(|| Ip {
        source: address(12).into(),
        destination: address(16).into(),
        hops: bytes[8],
        checksum_verifies: verifies(&[bytes]),
        header,
        length: u16::from_be_bytes([bytes[2], bytes[3]]).into(),
    })
}

fn ipv6(packet: &[u8]) -> Option<Ip> {
    let bytes = packet.get(..40)?;
    let address = |at: usize| -> Option<Ipv6Addr> {
        let octets: [u8; 16] = bytes[at..at + 16].try_into().ok()?;
        Some(octets.into())
    };
    let mut header = 40;
    let mut next = bytes[6];
    while next != 6 {
        let extension = packet.get(header..header + 8)?;
        header += match next {
            Extension::FRAGMENT if extension[2] == 0 && extension[3] & 0xf9 == 0 => 8,
            Extension::HOP_BY_HOP | Extension::ROUTING | Extension::DESTINATION_OPTIONS => {
                8 * (1 + usize::from(extension[1]))
            }
            _ => return None,
        };
        next = extension[0];
    }
    (bytes[0] >> 4 == 6).then_some(())?;
    Some(Ip {
        source: address(8)?.into(),
        destination: address(24)?.into(),
        hops: bytes[7],
        checksum_verifies: true,
        header,
        length: 40 + usize::from(u16::from_be_bytes([bytes[4], bytes[5]])),
    })
}
