//! IP headers of answers.

use lb_common::checksum;
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};

use super::icmp::Icmp;
use crate::xdp::{
    family::Family,
    frame::Cursor,
    ipv4::{self, Ipv4},
    ipv6::Ipv6,
    sum::{address4, address6, protocol_and_length},
};

/// TTL or hop limit.
const HOPS: u8 = 64;
const DONT_FRAGMENT: [u8; 2] = [0x40, 0];

/// What an answer's IP header says.
pub(super) struct Head<F: Family> {
    pub(super) source: F::Address,
    pub(super) destination: F::Address,
    pub(super) protocol: u8,
    /// Of IPv4; traffic class and flow label of IPv6 are 0.
    pub(super) service_type: u8,
    /// Bytes behind the header.
    pub(super) payload: u16,
}

pub(super) trait Headers: Family {
    /// Bytes of a header.
    const LENGTH: usize;
    const VERSION: u8;
    const ICMP: Icmp;

    /// As it stands in a map record.
    fn record(address: Self::Address) -> [u8; 16];

    /// Writes a header without options.
    fn write(head: &Head<Self>, cursor: &mut Cursor<'_>) -> Option<()>;
    /// The sum of the words of the pseudo-header that TCP and ICMPv6 have in their checksums.
    fn pseudo_header(head: &Head<Self>) -> u32;
}

impl Headers for Ipv4 {
    const LENGTH: usize = Ipv4Hdr::LEN;
    const VERSION: u8 = 4;
    const ICMP: Icmp = Icmp {
        protocol: 1,
        port_unreachable: [3, 3],
        too_big: [3, 4],
        max_quote: 548,
        has_pseudo_header: false,
    };

    #[inline(always)]
    fn record(address: u32) -> [u8; 16] {
        u128::from(address).to_ne_bytes()
    }

    #[inline(always)]
    fn write(head: &Head<Self>, cursor: &mut Cursor<'_>) -> Option<()> {
        let ip = cursor.take::<Ipv4Hdr>()?;
        ip.vihl = 0x45;
        ip.tos = head.service_type;
        ip.tot_len = (head.payload + Ipv4Hdr::LEN as u16).to_be_bytes();
        ip.id = [0; 2];
        ip.frags = DONT_FRAGMENT;
        ip.ttl = HOPS;
        ip.proto = head.protocol;
        ip.check = [0; 2];
        ip.src_addr = head.source.to_ne_bytes();
        ip.dst_addr = head.destination.to_ne_bytes();
        ip.check = (!checksum::fold(ipv4::header_sum(ip))).to_ne_bytes();
        Some(())
    }

    #[inline(always)]
    fn pseudo_header(head: &Head<Self>) -> u32 {
        address4(head.source.to_ne_bytes())
            + address4(head.destination.to_ne_bytes())
            + protocol_and_length(head.protocol, head.payload)
    }
}

impl Headers for Ipv6 {
    const LENGTH: usize = Ipv6Hdr::LEN;
    const VERSION: u8 = 6;
    const ICMP: Icmp = Icmp {
        protocol: 58,
        port_unreachable: [1, 4],
        too_big: [2, 0],
        max_quote: 1232,
        has_pseudo_header: true,
    };

    #[inline(always)]
    fn record([first, second]: [u64; 2]) -> [u8; 16] {
        (u128::from(first) | u128::from(second) << 64).to_ne_bytes()
    }

    #[inline(always)]
    fn write(head: &Head<Self>, cursor: &mut Cursor<'_>) -> Option<()> {
        let ip = cursor.take::<Ipv6Hdr>()?;
        ip.vcf = [0x60, 0, 0, 0];
        ip.payload_len = head.payload.to_be_bytes();
        ip.next_hdr = head.protocol;
        ip.hop_limit = HOPS;
        Ipv6::set_source(ip, head.source, 0);
        Ipv6::set_destination(ip, head.destination, 0);
        Some(())
    }

    #[inline(always)]
    fn pseudo_header(head: &Head<Self>) -> u32 {
        address6(head.source)
            + address6(head.destination)
            + protocol_and_length(head.protocol, head.payload)
    }
}
