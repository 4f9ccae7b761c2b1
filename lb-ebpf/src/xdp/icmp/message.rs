//! An ICMP message in its packet, and what differs between ICMP and ICMPv6.

use lb_common::{checksum, reason::Reason};
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};

use crate::xdp::{
    family::Family,
    frame::{Cursor, Frame, Header},
    ipv4::{Ipv4, header_sum},
    ipv6::Ipv6,
    maps,
};

const TCP: u8 = 6;
/// Offset of an IPv4 fragment, in units of 8 bytes, and the more-fragments flag (RFC 791 §3.1).
const FRAGMENT_OFFSET: u16 = 0x1fff;
const MORE_FRAGMENTS: u16 = 0x2000;

/// What all messages begin with (RFC 792, RFC 4443 §2.1).
#[repr(C)]
pub(super) struct IcmpHeader {
    pub(super) kind: u8,
    code: u8,
    checksum: [u8; 2],
    /// Identifier and sequence number of an echo; of an error what its type wants, or nothing.
    rest: [u8; 4],
}

// SAFETY: byte arrays only.
unsafe impl Header for IcmpHeader {}

impl IcmpHeader {
    /// Mends the checksum after a change ([`checksum::difference`]).
    #[inline(always)]
    pub(super) fn update_checksum(&mut self, difference: u16) {
        let checksum = u16::from_ne_bytes(self.checksum);
        self.checksum = checksum::update(checksum, difference).to_ne_bytes();
    }
}

/// ICMP of an address family.
pub(super) trait Messages: Family {
    const ECHO_REQUEST: u8;
    const ECHO_REPLY: u8;
    /// Whether addresses are covered by the message's checksum, in a pseudo-header (RFC 4443 §2.3),
    /// and not by one of the IP header.
    const PSEUDO_HEADER: bool;

    /// Errors that a quoted packet's sender can make use of.
    fn is_error(kind: u8) -> bool;
    /// Whether the message stands right behind the header, and all of it.
    fn is_plain(ip: &Self::Header) -> bool;
    /// Bytes from this quoted header to the TCP header; `None` if there is none.
    fn to_quoted_tcp(ip: &Self::Header) -> Option<usize>;
    /// Whether the checksum of a header that [`Messages::is_plain`] is right.
    fn verifies(ip: &Self::Header) -> bool;
    fn set_hop_limit(ip: &mut Self::Header, hops: u8);
}

/// A message, with what lies before and behind its header.
pub(super) struct Message<'p, F: Family> {
    pub(super) ip: &'p mut F::Header,
    pub(super) icmp: &'p mut IcmpHeader,
    pub(super) body: Cursor<'p>,
    /// Bytes from the IP header to the end of the frame's first buffer.
    room: usize,
}

impl<'p, F: Messages> Message<'p, F> {
    #[inline(always)]
    pub(super) fn parse(frame: &Frame<'p>) -> Option<Self> {
        let mut cursor = frame.network();
        let room = cursor.remaining();
        let ip = cursor.take::<F::Header>()?;
        if !F::is_plain(ip) {
            return None;
        }
        Some(Self {
            ip,
            icmp: cursor.take::<IcmpHeader>()?,
            body: cursor,
            room,
        })
    }

    #[inline(always)]
    pub(super) fn is_echo_request(&self) -> bool {
        (self.icmp.kind, self.icmp.code) == (F::ECHO_REQUEST, 0)
    }

    /// What a router would refuse, of a message that takes at least `least` bytes with its IP header.
    #[inline(always)]
    pub(super) fn check(&self, frame: &Frame<'_>, least: usize) -> Result<(), Reason> {
        if !F::verifies(self.ip) {
            return Err(Reason::BadIpChecksum);
        }
        let length = F::length(self.ip);
        let is_whole = length <= self.room
            || maps::is_multi_buffer() && length <= frame.network_length(self.room);
        if length < least || !is_whole {
            return Err(Reason::MalformedIp);
        }
        Ok(())
    }
}

impl Messages for Ipv4 {
    const ECHO_REQUEST: u8 = 8;
    const ECHO_REPLY: u8 = 0;
    const PSEUDO_HEADER: bool = false;

    /// Destination unreachable, time exceeded, parameter problem.
    #[inline(always)]
    fn is_error(kind: u8) -> bool {
        matches!(kind, 3 | 11 | 12)
    }

    #[inline(always)]
    fn is_plain(ip: &Ipv4Hdr) -> bool {
        ip.version() == 4
            && ip.ihl() as usize == Ipv4Hdr::LEN
            && u16::from_be_bytes(ip.frags) & (FRAGMENT_OFFSET | MORE_FRAGMENTS) == 0
    }

    #[inline(always)]
    fn to_quoted_tcp(ip: &Ipv4Hdr) -> Option<usize> {
        let header = ip.ihl() as usize;
        (ip.version() == 4
            && header >= Ipv4Hdr::LEN
            && ip.proto == TCP
            && u16::from_be_bytes(ip.frags) & FRAGMENT_OFFSET == 0)
            .then_some(header)
    }

    #[inline(always)]
    fn verifies(ip: &Ipv4Hdr) -> bool {
        checksum::fold(header_sum(ip)) == 0xffff
    }

    #[inline(always)]
    fn set_hop_limit(ip: &mut Ipv4Hdr, hops: u8) {
        let old = u16::from_ne_bytes([ip.ttl, ip.proto]);
        let new = u16::from_ne_bytes([hops, ip.proto]);
        ip.ttl = hops;
        let difference = checksum::combine(!old, new);
        ip.check = checksum::update(u16::from_ne_bytes(ip.check), difference).to_ne_bytes();
    }
}

impl Messages for Ipv6 {
    const ECHO_REQUEST: u8 = 128;
    const ECHO_REPLY: u8 = 129;
    const PSEUDO_HEADER: bool = true;

    /// Destination unreachable, packet too big, time exceeded, parameter problem.
    #[inline(always)]
    fn is_error(kind: u8) -> bool {
        matches!(kind, 1..=4)
    }

    #[inline(always)]
    fn is_plain(ip: &Ipv6Hdr) -> bool {
        // That ICMP comes next is why the packet is here.
        ip.version() == 6
    }

    #[inline(always)]
    fn to_quoted_tcp(ip: &Ipv6Hdr) -> Option<usize> {
        (ip.version() == 6 && ip.next_hdr == TCP).then_some(Ipv6Hdr::LEN)
    }

    #[inline(always)]
    fn verifies(_ip: &Ipv6Hdr) -> bool {
        true
    }

    #[inline(always)]
    fn set_hop_limit(ip: &mut Ipv6Hdr, hops: u8) {
        ip.hop_limit = hops;
    }
}
