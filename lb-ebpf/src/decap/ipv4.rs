use lb_common::{checksum, ecn::Ecn};
use network_types::ip::Ipv4Hdr;

use super::{
    frame::{self, Cursor, Header},
    ip::Ip,
    maps,
};

pub(crate) struct Ipv4;

// SAFETY: byte arrays only.
unsafe impl Header for Ipv4Hdr {}

/// More-fragments flag and fragment offset (RFC 791 §3.1).
const FRAGMENT: u16 = 0x3fff;

impl Ip for Ipv4 {
    type Header = Ipv4Hdr;

    const ETHER_TYPE: u16 = frame::IPV4;
    const VERSION: u8 = 4;

    #[inline(always)]
    fn header_length(ip: &Ipv4Hdr) -> usize {
        usize::from(ip.vihl & 0xf) * 4
    }

    #[inline(always)]
    fn length(ip: &Ipv4Hdr) -> usize {
        u16::from_be_bytes(ip.tot_len).into()
    }

    #[inline(always)]
    fn protocol(ip: &Ipv4Hdr) -> u8 {
        ip.proto
    }

    #[inline(always)]
    fn is_fragment(ip: &Ipv4Hdr) -> bool {
        u16::from_be_bytes(ip.frags) & FRAGMENT != 0
    }

    #[inline(always)]
    fn is_own(ip: &Ipv4Hdr) -> bool {
        maps::is_own4(u32::from_ne_bytes(ip.dst_addr))
    }

    /// RFC 791 §3.1: all words of the header, its checksum too, add up to 0xFFFF.
    #[inline(always)]
    fn verifies(ip: &Ipv4Hdr, options: Cursor<'_>) -> bool {
        let word = |bytes: [u8; 2]| u32::from(u16::from_ne_bytes(bytes));
        let address = |bytes: [u8; 4]| word([bytes[0], bytes[1]]) + word([bytes[2], bytes[3]]);
        let mut sum = word([ip.vihl, ip.tos])
            + word(ip.tot_len)
            + word(ip.id)
            + word(ip.frags)
            + word([ip.ttl, ip.proto])
            + word(ip.check)
            + address(ip.src_addr)
            + address(ip.dst_addr);
        let mut options = options;
        let mut offset = Ipv4Hdr::LEN;
        while offset < Self::header_length(ip) {
            let Some(bytes) = options.take::<[u8; 2]>() else {
                break;
            };
            sum += word(*bytes);
            offset += 2;
        }
        checksum::fold(sum) == 0xffff
    }

    #[inline(always)]
    fn traffic_class(ip: &Ipv4Hdr) -> u8 {
        ip.tos
    }

    #[inline(always)]
    fn set_ecn(ip: &mut Ipv4Hdr, ecn: Ecn) {
        let word = |tos| u16::from_ne_bytes([ip.vihl, tos]);
        let tos = ip.tos & !Ecn::MASK | ecn.bits();
        // One word changes: RFC 1624 equation 3.
        let change = checksum::fold(u32::from(!word(ip.tos)) + u32::from(word(tos)));
        ip.check = checksum::update(u16::from_ne_bytes(ip.check), change).to_ne_bytes();
        ip.tos = tos;
    }
}
