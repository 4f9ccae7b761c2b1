//! What the sender of a refused packet is told: §9.

use std::net::IpAddr;

use lb_common::reason::Reason;
use lb_userspace::model::NoBackend;

use super::{
    checksum,
    emit::frame,
    header,
    rewrite::pseudo_header,
    segment::{Link, Segment},
};

/// What is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Nothing,
    Reset,
    PortUnreachable,
    /// The MTU in bytes.
    TooBig(u16),
}

impl From<NoBackend> for Answer {
    fn from(answer: NoBackend) -> Self {
        match answer {
            NoBackend::Rst => Self::Reset,
            NoBackend::Drop => Self::Nothing,
            NoBackend::Icmp => Self::PortUnreachable,
        }
    }
}

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

const TCP: u8 = 6;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// Most bytes of a packet that an error quotes.
const QUOTE: usize = 548;
const QUOTE6: usize = 1232;

/// The frame that goes back, and what it is counted as; `None` if none does.
pub(super) fn build(segment: &Segment<'_>, answer: Answer) -> Option<(Vec<u8>, Reason)> {
    if !is_one_host(segment.source.ip()) {
        return None;
    }
    let (packet, counted) = match answer {
        Answer::Nothing => return None,
        Answer::Reset if segment.flags.rst() => return None,
        Answer::Reset => (reset(segment), Reason::RstSent),
        Answer::PortUnreachable if segment.ipv6 => (error(segment, 1, 4, 0), Reason::IcmpSent),
        Answer::PortUnreachable => (error(segment, 3, 3, 0), Reason::IcmpSent),
        Answer::TooBig(mtu) if segment.ipv6 => (error(segment, 2, 0, mtu), Reason::IcmpSent),
        Answer::TooBig(mtu) => (error(segment, 3, 4, mtu), Reason::IcmpSent),
    };
    let back = Link {
        to: segment.link.from,
        from: segment.link.to,
        tags: segment.link.tags,
    };
    Some((frame(&back, segment.ipv6, &packet), counted))
}

/// Whether an address can be a single host's out there.
pub(super) fn is_one_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !matches!(address.octets()[0], 0 | 127 | 224..),
        IpAddr::V6(address) => {
            !address.is_unspecified() && !address.is_loopback() && !address.is_multicast()
        }
    }
}

/// RFC 9293 §3.10.7.1: the reset of a host that has no such connection.
fn reset(segment: &Segment<'_>) -> Vec<u8> {
    let header = &segment.packet[segment.tcp..];
    let number = |at: usize| u32::from_be_bytes(std::array::from_fn(|n| header[at + n]));
    let (sequence, acknowledgement, flags) = if segment.flags.0 & ACK != 0 {
        (number(8), 0, RST)
    } else {
        let payload = segment.length - segment.tcp - segment.header_length();
        let flags = segment.flags.0;
        let length = payload as u32 + u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        (0, number(4).wrapping_add(length), RST | ACK)
    };
    let mut tcp = segment.destination.port().to_be_bytes().to_vec();
    tcp.extend_from_slice(&segment.source.port().to_be_bytes());
    tcp.extend_from_slice(&sequence.to_be_bytes());
    tcp.extend_from_slice(&acknowledgement.to_be_bytes());
    tcp.extend_from_slice(&[5 << 4, flags, 0, 0, 0, 0, 0, 0]);
    let mut packet = header_back(segment, TCP, 0, tcp.len());
    let pseudo = pseudo_header(&packet, segment.ipv6, TCP, tcp.len());
    let check = checksum::with_error(&[&pseudo, &tcp], 0);
    tcp[16..18].copy_from_slice(&check.to_be_bytes());
    packet.extend_from_slice(&tcp);
    packet
}

/// An ICMP or ICMPv6 error that quotes the packet.
fn error(segment: &Segment<'_>, kind: u8, code: u8, mtu: u16) -> Vec<u8> {
    let most = if segment.ipv6 { QUOTE6 } else { QUOTE };
    let quoted = segment.length.min(most).min(segment.linear) / 4 * 4;
    let mut message = vec![kind, code, 0, 0];
    message.extend_from_slice(&u32::from(mtu).to_be_bytes());
    message.extend_from_slice(&segment.packet[..quoted]);
    let protocol = if segment.ipv6 { ICMPV6 } else { ICMP };
    let mut packet = header_back(segment, protocol, 0xc0, message.len());
    let pseudo = if segment.ipv6 {
        pseudo_header(&packet, true, protocol, message.len())
    } else {
        Vec::new()
    };
    let check = checksum::with_error(&[&pseudo, &message], 0);
    message[2..4].copy_from_slice(&check.to_be_bytes());
    packet.extend_from_slice(&message);
    packet
}

/// An IP header from the packet's destination to its source. `tos` is for IPv4 only.
fn header_back(segment: &Segment<'_>, protocol: u8, tos: u8, payload: usize) -> Vec<u8> {
    match (segment.destination.ip(), segment.source.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => header::ipv4(tos, payload, protocol, from, to),
        (IpAddr::V6(from), IpAddr::V6(to)) => header::ipv6(0, 0, payload, protocol, from, to),
        _ => unreachable!("both addresses stand in one header"),
    }
}
