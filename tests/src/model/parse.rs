//! From a frame to a segment: §1 to §3.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_common::reason::Reason;

use super::{
    Input,
    message::Message,
    segment::{Link, Segment},
    state::Flags,
};

/// What a frame turned out to be.
pub(super) enum Parsed<'f> {
    /// Nothing for the balancer.
    Foreign,
    /// To be refused if any service has this address.
    Suspect(IpAddr, Reason),
    Tcp(Segment<'f>),
    Icmp(Message<'f>),
}

const ICMP: u8 = 1;
const TCP: u8 = 6;
const ICMPV6: u8 = 58;
const FRAGMENT: u8 = 44;
/// Hop-by-hop options, routing, fragment, destination options.
const EXTENSIONS: [u8; 4] = [0, 43, FRAGMENT, 60];

const MOST_EXTENSIONS: usize = 6;
const MOST_EXTENSION_BYTES: usize = 2047;

/// §1
pub(super) fn frame(input: Input<'_>) -> Parsed<'_> {
    let buffer = &input.frame[..input.linear];
    if buffer.len() < 14 || buffer[0] & 1 != 0 {
        return Parsed::Foreign;
    }
    let mut link = Link {
        to: array(&buffer[..6]),
        from: array(&buffer[6..12]),
        tags: [None; 2],
    };
    let mut at = 12;
    let mut ether_type = word(buffer, at);
    for tag in &mut link.tags {
        if !matches!(ether_type, Some(0x8100 | 0x88a8)) {
            break;
        }
        *tag = buffer.get(at..at + 4).map(array);
        at += 4;
        ether_type = word(buffer, at);
    }
    at += 2;
    let Some(buffer) = buffer.get(at..) else {
        return Parsed::Foreign;
    };
    let place = Place {
        link,
        ifindex: input.ifindex,
        packet: &input.frame[at..],
        buffer,
    };
    match ether_type {
        Some(0x0800) => place.ipv4(),
        Some(0x86dd) => place.ipv6(),
        _ => Parsed::Foreign,
    }
}

/// Where an IP packet stands.
struct Place<'f> {
    link: Link,
    ifindex: u32,
    packet: &'f [u8],
    /// What of it is in the first buffer.
    buffer: &'f [u8],
}

impl<'f> Place<'f> {
    /// §2
    fn ipv4(self) -> Parsed<'f> {
        let Some(header) = self.buffer.get(..20) else {
            return Parsed::Foreign;
        };
        let source = Ipv4Addr::from(array(&header[12..16]));
        let destination = Ipv4Addr::from(array(&header[16..20]));
        let more_or_offset = (u16::from(header[6]) << 8 | u16::from(header[7])) & 0x3fff;
        let length = usize::from(header[2]) << 8 | usize::from(header[3]);
        let hops = header[8];
        if header[9] == ICMP && header[0] == 0x45 && more_or_offset == 0 {
            return self.icmp(false, length, source, destination, hops);
        }
        if header[9] != TCP {
            return Parsed::Foreign;
        }
        let suspect = |reason| Parsed::Suspect(destination.into(), reason);
        let (version, header_length) = (header[0] >> 4, usize::from(header[0] & 0xf) * 4);
        if version != 4 || header_length < 20 {
            return suspect(Reason::MalformedIp);
        }
        if more_or_offset != 0 {
            return suspect(Reason::Fragment);
        }
        match self.tcp(false, header_length, length, source, destination, hops) {
            Some(segment) => Parsed::Tcp(segment),
            None => suspect(Reason::MalformedTcp),
        }
    }

    /// §3
    fn ipv6(self) -> Parsed<'f> {
        let Some(header) = self.buffer.get(..40) else {
            return Parsed::Foreign;
        };
        let source = Ipv6Addr::from(array::<16>(&header[8..24]));
        let destination = Ipv6Addr::from(array::<16>(&header[24..40]));
        let suspect = |reason| Parsed::Suspect(destination.into(), reason);
        let length = 40 + (usize::from(header[4]) << 8 | usize::from(header[5]));
        let mut next = header[6];
        if next == ICMPV6 && header[0] >> 4 == 6 {
            return self.icmp(true, length, source, destination, header[7]);
        }
        let mut at = 40;
        let mut walked = 0;
        while EXTENSIONS.contains(&next) && walked < MOST_EXTENSIONS {
            let Some(extension) = self.buffer.get(at..at + 8) else {
                return suspect(Reason::MalformedIp);
            };
            let follower = extension[0];
            if next == FRAGMENT {
                let offset_or_more = u16::from(extension[2]) << 8 | u16::from(extension[3] & 0xf9);
                if offset_or_more != 0 {
                    let ours = follower == TCP || EXTENSIONS.contains(&follower);
                    return if ours {
                        suspect(Reason::Fragment)
                    } else {
                        Parsed::Foreign
                    };
                }
                at += 8;
            } else {
                at += 8 * (1 + usize::from(extension[1]));
            }
            next = follower;
            walked += 1;
        }
        let more = EXTENSIONS.contains(&next);
        if next != TCP && !more {
            return Parsed::Foreign;
        }
        if header[0] >> 4 != 6 {
            return suspect(Reason::MalformedIp);
        }
        if more || at - 40 > MOST_EXTENSION_BYTES {
            return suspect(Reason::ExtensionHeaders);
        }
        match self.tcp(true, at, length, source, destination, header[7]) {
            Some(segment) => Parsed::Tcp(segment),
            None => suspect(Reason::MalformedTcp),
        }
    }

    /// A message whose first 8 bytes the first buffer does not hold is none.
    fn icmp(
        &self,
        ipv6: bool,
        length: usize,
        source: impl Into<IpAddr>,
        destination: impl Into<IpAddr>,
        hops: u8,
    ) -> Parsed<'f> {
        let header = if ipv6 { 40 } else { 20 };
        if self.buffer.len() < header + 8 {
            return Parsed::Foreign;
        }
        Parsed::Icmp(Message {
            link: self.link,
            ifindex: self.ifindex,
            packet: self.packet,
            linear: self.buffer.len(),
            ipv6,
            length,
            source: source.into(),
            destination: destination.into(),
            hops,
        })
    }

    /// `None` if the first buffer does not hold a TCP header.
    fn tcp(
        &self,
        ipv6: bool,
        tcp: usize,
        length: usize,
        source: impl Into<IpAddr>,
        destination: impl Into<IpAddr>,
        hops: u8,
    ) -> Option<Segment<'f>> {
        let header = self.buffer.get(tcp..tcp + 20)?;
        Some(Segment {
            link: self.link,
            ifindex: self.ifindex,
            packet: self.packet,
            linear: self.buffer.len(),
            ipv6,
            tcp,
            length,
            source: (source.into(), word(header, 0)?).into(),
            destination: (destination.into(), word(header, 2)?).into(),
            hops,
            flags: Flags(header[13]),
        })
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// The first `N` bytes, of which there are that many.
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    std::array::from_fn(|n| bytes[n])
}
