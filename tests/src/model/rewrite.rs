//! An IP packet that is changed on its way, with its checksums brought along.

use std::net::{IpAddr, SocketAddr};

use super::{checksum, mss, segment::Segment};

/// A copy of a segment's packet.
pub(super) struct Rewrite<'s, 'f> {
    segment: &'s Segment<'f>,
    packet: Vec<u8>,
}

impl<'s, 'f> Rewrite<'s, 'f> {
    pub(super) fn new(segment: &'s Segment<'f>) -> Self {
        Self {
            segment,
            packet: segment.packet.to_vec(),
        }
    }

    pub(super) fn source(mut self, source: SocketAddr) -> Self {
        let at = if self.segment.ipv6 { 8 } else { 12 };
        self.write(at, source.ip());
        self.write_port(0, source.port());
        self
    }

    pub(super) fn destination(mut self, destination: SocketAddr) -> Self {
        let at = if self.segment.ipv6 { 24 } else { 16 };
        self.write(at, destination.ip());
        self.write_port(2, destination.port());
        self
    }

    /// One hop less to go.
    pub(super) fn hop(mut self) -> Self {
        let at = if self.segment.ipv6 { 7 } else { 8 };
        self.packet[at] -= 1;
        self
    }

    /// Lowers the MSS of a SYN to what a packet of `max_packet` bytes holds (0: not known).
    pub(super) fn clamp(mut self, max_packet: u16) -> Self {
        if let Some(at) = mss::option(self.segment) {
            let headers = if self.segment.ipv6 { 60 } else { 40 };
            let value = u16::from_be_bytes([self.packet[at], self.packet[at + 1]]);
            if max_packet != 0 && value > max_packet - headers {
                self.packet[at..at + 2].copy_from_slice(&(max_packet - headers).to_be_bytes());
            }
        }
        self
    }

    fn write(&mut self, at: usize, address: IpAddr) {
        match address {
            IpAddr::V4(ip) => self.packet[at..at + 4].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => self.packet[at..at + 16].copy_from_slice(&ip.octets()),
        }
    }

    fn write_port(&mut self, at: usize, port: u16) {
        let at = self.segment.tcp + at;
        self.packet[at..at + 2].copy_from_slice(&port.to_be_bytes());
    }

    /// The packet with its checksums: the IPv4 header's is right, TCP's as wrong as it was.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let (tcp, length) = (self.segment.tcp, self.segment.length);
        let error = tcp_error(self.segment.packet, self.segment.ipv6, tcp, length);
        if !self.segment.ipv6 {
            self.packet[10..12].fill(0);
            let right = checksum::with_error(&[&self.packet[..tcp]], 0);
            self.packet[10..12].copy_from_slice(&right.to_be_bytes());
        }
        let pseudo = pseudo_header(&self.packet, self.segment.ipv6, 6, length - tcp);
        let pseudo_before = pseudo_header(self.segment.packet, self.segment.ipv6, 6, length - tcp);
        if pseudo == pseudo_before && self.packet[tcp..] == self.segment.packet[tcp..] {
            return self.packet;
        }
        self.packet[tcp + 16..tcp + 18].fill(0);
        let field = checksum::with_error(&[&pseudo, &self.packet[tcp..length]], error);
        self.packet[tcp + 16..tcp + 18].copy_from_slice(&field.to_be_bytes());
        self.packet
    }
}

/// By how much the checksum of the TCP segment at `tcp` is wrong: 0 if it is right.
pub(super) fn tcp_error(packet: &[u8], ipv6: bool, tcp: usize, length: usize) -> u16 {
    let pseudo = pseudo_header(packet, ipv6, 6, length - tcp);
    checksum::error(&[&pseudo, &packet[tcp..length]])
}

/// The pseudo-header of `length` bytes of a protocol in this packet (RFC 9293 §3.1, 8200 §8.1).
pub(super) fn pseudo_header(packet: &[u8], ipv6: bool, protocol: u8, length: usize) -> Vec<u8> {
    let addresses = if ipv6 { 8..40 } else { 12..20 };
    let mut bytes = packet[addresses].to_vec();
    bytes.extend_from_slice(&(length as u32).to_be_bytes());
    bytes.extend_from_slice(&[0, 0, 0, protocol]);
    bytes
}
