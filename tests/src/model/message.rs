//! An ICMP or ICMPv6 message, and the packet that an error quotes.

use std::net::{IpAddr, SocketAddr};

use lb_common::reason::Reason;

use super::{checksum, rewrite::pseudo_header, segment::Link};

const TCP: u8 = 6;
const ICMPV6: u8 = 58;
const HOPS: u8 = 64;

/// Where TCP's checksum ends in its header.
const TCP_CHECKSUM_END: usize = 18;

#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'f> {
    pub(super) link: Link,
    pub(super) ifindex: u32,
    /// The frame from the IP header on, its padding included.
    pub(super) packet: &'f [u8],
    /// How much of that the first buffer holds.
    pub(super) linear: usize,
    pub(super) ipv6: bool,
    /// The IP packet's own length.
    pub(super) length: usize,
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) hops: u8,
}

/// Ends of a quoted TCP segment, and where it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quote {
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    /// Where the quoted TCP header begins, from the outer IP header on.
    pub(super) tcp: usize,
    /// Where the message begins.
    pub(super) message: usize,
}

impl Quote {
    /// Bytes of the message that the quote takes at least.
    pub(super) fn reach(&self) -> usize {
        self.tcp + 8 - self.message
    }
}

impl Message<'_> {
    /// Where the message begins.
    fn at(&self) -> usize {
        if self.ipv6 { 40 } else { 20 }
    }

    fn kind(&self) -> (u8, u8) {
        (self.packet[self.at()], self.packet[self.at() + 1])
    }

    pub(super) fn is_echo_request(&self) -> bool {
        self.kind() == if self.ipv6 { (128, 0) } else { (8, 0) }
    }

    /// TOS or traffic class.
    pub(super) fn traffic_class(&self) -> u8 {
        if self.ipv6 {
            self.packet[0] << 4 | self.packet[1] >> 4
        } else {
            self.packet[1]
        }
    }

    /// What is to be right about a message of at least so many bytes.
    pub(super) fn check(&self, bytes: usize) -> Result<(), Reason> {
        if !self.ipv6 && !checksum::verifies(&[&self.packet[..20]]) {
            return Err(Reason::BadIpChecksum);
        }
        if self.length < self.at() + bytes || self.length > self.packet.len() {
            return Err(Reason::MalformedIp);
        }
        Ok(())
    }

    /// The TCP segment that an error is about.
    pub(super) fn quote(&self) -> Option<Quote> {
        let errors: &[u8] = if self.ipv6 {
            &[1, 2, 3, 4]
        } else {
            &[3, 11, 12]
        };
        if !errors.contains(&self.kind().0) {
            return None;
        }
        let start = self.at() + 8;
        let buffer = &self.packet[..self.linear];
        let inner = buffer.get(start..)?;
        let (header, source, destination): (usize, IpAddr, IpAddr) = if self.ipv6 {
            let header = inner.get(..40)?;
            if header[0] >> 4 != 6 || header[6] != TCP {
                return None;
            }
            let address = |at: usize| -> [u8; 16] { std::array::from_fn(|n| header[at + n]) };
            (40, address(8).into(), address(24).into())
        } else {
            let header = inner.get(..20)?;
            let length = usize::from(header[0] & 0xf) * 4;
            let offset = (u16::from(header[6]) << 8 | u16::from(header[7])) & 0x1fff;
            if header[0] >> 4 != 4 || length < 20 || offset != 0 || header[9] != TCP {
                return None;
            }
            let address = |at: usize| -> [u8; 4] { std::array::from_fn(|n| header[at + n]) };
            (length, address(12).into(), address(16).into())
        };
        let tcp = inner.get(header..header + 8)?;
        let port = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
        Some(Quote {
            source: (source, port(0)).into(),
            destination: (destination, port(2)).into(),
            tcp: start + header,
            message: self.at(),
        })
    }

    /// The answer to this echo request.
    pub(super) fn echo_reply(&self) -> Vec<u8> {
        let mut packet = self.packet.to_vec();
        write(&mut packet, self.ipv6, 0, self.destination);
        write(&mut packet, self.ipv6, 1, self.source);
        packet[if self.ipv6 { 7 } else { 8 }] = HOPS;
        packet[self.at()] = if self.ipv6 { 129 } else { 0 };
        self.mend(&mut packet);
        packet
    }

    /// The packet between other ends, with a hop less to go, quoting a packet between other ends.
    pub(super) fn rewritten(
        &self,
        source: IpAddr,
        destination: IpAddr,
        quote: &Quote,
        inside: &Quote,
    ) -> Vec<u8> {
        let mut packet = self.packet.to_vec();
        write(&mut packet, self.ipv6, 0, source);
        write(&mut packet, self.ipv6, 1, destination);
        packet[if self.ipv6 { 7 } else { 8 }] -= 1;
        let start = self.at() + 8;
        let tcp = quote.tcp;
        let ends = |packet: &[u8]| {
            let addresses = if self.ipv6 { 8..40 } else { 12..20 };
            let addresses = &packet[start..][addresses];
            [addresses, &packet[tcp..tcp + 4]].concat()
        };
        let before = ends(&packet);
        write(&mut packet[start..], self.ipv6, 0, inside.source.ip());
        write(&mut packet[start..], self.ipv6, 1, inside.destination.ip());
        packet[tcp..tcp + 2].copy_from_slice(&inside.source.port().to_be_bytes());
        packet[tcp + 2..tcp + 4].copy_from_slice(&inside.destination.port().to_be_bytes());
        let after = ends(&packet);
        if before != after {
            if !self.ipv6 {
                let old = &self.packet[start..tcp];
                let error = checksum::error(&[old]);
                packet[start + 10..start + 12].fill(0);
                let field = checksum::with_error(&[&packet[start..tcp]], error);
                packet[start + 10..start + 12].copy_from_slice(&field.to_be_bytes());
            }
            let end = tcp + TCP_CHECKSUM_END;
            if end <= self.length && end <= self.linear {
                // The segment is not there as a whole: only the difference can be told.
                let field = [packet[end - 2], packet[end - 1]];
                let kept = checksum::error(&[&before, &field]);
                let field = checksum::with_error(&[&after], kept);
                packet[end - 2..end].copy_from_slice(&field.to_be_bytes());
            }
        }
        self.mend(&mut packet);
        packet
    }

    /// By how much the message's checksum is wrong.
    pub(super) fn checksum_error(&self) -> u16 {
        self.error_of(self.packet)
    }

    fn error_of(&self, packet: &[u8]) -> u16 {
        let message = &packet[self.at()..self.length];
        checksum::error(&[&self.pseudo_header(packet), message])
    }

    fn pseudo_header(&self, packet: &[u8]) -> Vec<u8> {
        if self.ipv6 {
            pseudo_header(packet, true, ICMPV6, self.length - self.at())
        } else {
            Vec::new()
        }
    }

    /// Makes the checksums of the IPv4 header right and the message's as wrong as it was.
    fn mend(&self, packet: &mut [u8]) {
        if !self.ipv6 {
            packet[10..12].fill(0);
            let right = checksum::with_error(&[&packet[..20]], 0);
            packet[10..12].copy_from_slice(&right.to_be_bytes());
        }
        let (at, length) = (self.at(), self.length);
        let unchanged = packet[at..length] == self.packet[at..length]
            && self.pseudo_header(packet) == self.pseudo_header(self.packet);
        if unchanged {
            return;
        }
        let error = self.error_of(self.packet);
        packet[at + 2..at + 4].fill(0);
        let pseudo = self.pseudo_header(packet);
        let field = checksum::with_error(&[&pseudo, &packet[at..length]], error);
        packet[at + 2..at + 4].copy_from_slice(&field.to_be_bytes());
    }
}

/// Writes the source (0) or the destination (1) of an IP header.
fn write(header: &mut [u8], ipv6: bool, which: usize, address: IpAddr) {
    match address {
        IpAddr::V4(address) if !ipv6 => {
            let at = 12 + 4 * which;
            header[at..at + 4].copy_from_slice(&address.octets());
        }
        IpAddr::V6(address) if ipv6 => {
            let at = 8 + 16 * which;
            header[at..at + 16].copy_from_slice(&address.octets());
        }
        _ => {}
    }
}
