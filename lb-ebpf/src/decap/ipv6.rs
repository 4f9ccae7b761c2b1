use lb_common::ecn::Ecn;

use super::{
    frame::{self, Cursor, Header},
    ip::Ip,
    maps,
};

pub(crate) struct Ipv6;

/// RFC 8200 §3.
#[repr(C)]
pub(crate) struct Ipv6Header {
    /// Version, traffic class and flow label: 4, 8 and 20 bits.
    first: [u8; 4],
    payload_length: [u8; 2],
    next_header: u8,
    hop_limit: u8,
    source: [u8; 16],
    destination: [u8; 16],
}

// SAFETY: bytes only.
unsafe impl Header for Ipv6Header {}

impl Ip for Ipv6 {
    type Header = Ipv6Header;

    const ETHER_TYPE: u16 = frame::IPV6;
    const VERSION: u8 = 6;

    /// Extension headers are no part of it: a packet with any is none of ours.
    #[inline(always)]
    fn header_length(_ip: &Ipv6Header) -> usize {
        size_of::<Ipv6Header>()
    }

    #[inline(always)]
    fn length(ip: &Ipv6Header) -> usize {
        size_of::<Ipv6Header>() + usize::from(u16::from_be_bytes(ip.payload_length))
    }

    #[inline(always)]
    fn protocol(ip: &Ipv6Header) -> u8 {
        ip.next_header
    }

    /// A fragment has a fragment header where a tunnel's payload would be.
    #[inline(always)]
    fn is_fragment(_ip: &Ipv6Header) -> bool {
        false
    }

    #[inline(always)]
    fn is_own(ip: &Ipv6Header) -> bool {
        let mut halves = [[0; 8]; 2];
        let (high, low) = ip.destination.split_at(8);
        halves[0].copy_from_slice(high);
        halves[1].copy_from_slice(low);
        maps::is_own6(halves.map(u64::from_ne_bytes))
    }

    /// IPv6 has no header checksum.
    #[inline(always)]
    fn verifies(_ip: &Ipv6Header, _options: Cursor<'_>) -> bool {
        true
    }

    #[inline(always)]
    fn traffic_class(ip: &Ipv6Header) -> u8 {
        ip.first[0] << 4 | ip.first[1] >> 4
    }

    #[inline(always)]
    fn set_ecn(ip: &mut Ipv6Header, ecn: Ecn) {
        ip.first[1] = ip.first[1] & !(Ecn::MASK << 4) | ecn.bits() << 4;
    }
}
