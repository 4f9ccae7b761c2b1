use aya_ebpf::maps::HashMap;
use lb_common::{
    checksum, endpoints,
    flow::{Bucket4, FlowKey4, Table},
    reason::Reason,
};
use network_types::ip::Ipv4Hdr;

use super::{
    Program,
    family::{Family, Parsed, Segment},
    frame::{Frame, Header},
    maps,
    shared::SharedWord,
    sum,
    tcp::TcpHeader,
};

pub(crate) struct Ipv4;

// SAFETY: byte arrays only.
unsafe impl Header for Ipv4Hdr {}

const ICMP: u8 = 1;
const TCP: u8 = 6;
/// More-fragments flag and fragment offset (RFC 791 §3.1).
const FRAGMENT: u16 = 0x3fff;

/// The connection table.
pub(crate) struct Table4;

impl Table for Table4 {
    type Bucket = Bucket4<SharedWord>;

    #[inline(always)]
    fn buckets(&self) -> u32 {
        maps::BUCKETS4.load()
    }

    #[inline(always)]
    fn bucket(&self, index: u32) -> Option<&Bucket4<SharedWord>> {
        maps::FLOWS4.get(index)
    }

    #[inline(always)]
    fn overflow_word(&self, index: u32) -> Option<&SharedWord> {
        maps::FLOW_OVERFLOWS4.get(index)
    }
}

impl Family for Ipv4 {
    type Address = u32;
    type Bucket = Bucket4<SharedWord>;
    type Table = Table4;
    type Header = Ipv4Hdr;
    type Key = FlowKey4;

    const OPEN: Program = Program::Open4;
    const RIVALS: Program = Program::Rivals4;
    const FULL_NAT: Program = Program::FullNat4;
    const ENDPOINTS_ARE_EXACT: bool = true;
    const AF: u8 = 2;
    const TCP_AND_IP: u16 = 40;

    #[inline(always)]
    fn parse<'p>(frame: &Frame<'p>) -> Parsed<'p, Self> {
        let mut cursor = frame.network();
        let room = cursor.remaining();
        let Some(ip) = cursor.take::<Ipv4Hdr>() else {
            return Parsed::Other;
        };
        if ip.proto != TCP {
            return match ip.proto {
                ICMP => Parsed::Icmp,
                _ => Parsed::Other,
            };
        }
        let suspect = |reason| Parsed::Suspect {
            destination: u32::from_ne_bytes(ip.dst_addr),
            reason,
        };
        if ip.version() != 4 || (ip.ihl() as usize) < Ipv4Hdr::LEN {
            return suspect(Reason::MalformedIp);
        }
        if u16::from_be_bytes(ip.frags) & FRAGMENT != 0 {
            return suspect(Reason::Fragment);
        }
        let options = cursor;
        let tcp_offset = ip.ihl() as usize;
        cursor.skip(tcp_offset - Ipv4Hdr::LEN);
        match cursor.take::<TcpHeader>() {
            Some(tcp) => Parsed::Segment(Segment {
                ip,
                tcp,
                options,
                tcp_options: cursor,
                tcp_offset,
                room,
            }),
            None => suspect(Reason::MalformedTcp),
        }
    }

    #[inline(always)]
    fn check(segment: &Segment<'_, Self>) -> Result<(), Reason> {
        if segment.length() < segment.tcp_offset {
            return Err(Reason::MalformedIp);
        }
        if checksum::fold(header_sum(segment.ip) + options_sum(segment)) != 0xffff {
            return Err(Reason::BadIpChecksum);
        }
        Ok(())
    }

    #[inline(always)]
    fn source(ip: &Ipv4Hdr) -> u32 {
        u32::from_ne_bytes(ip.src_addr)
    }

    #[inline(always)]
    fn destination(ip: &Ipv4Hdr) -> u32 {
        u32::from_ne_bytes(ip.dst_addr)
    }

    #[inline(always)]
    fn set_source(ip: &mut Ipv4Hdr, address: u32, difference: u16) {
        ip.src_addr = address.to_ne_bytes();
        mend(ip, difference);
    }

    #[inline(always)]
    fn set_destination(ip: &mut Ipv4Hdr, address: u32, difference: u16) {
        ip.dst_addr = address.to_ne_bytes();
        mend(ip, difference);
    }

    #[inline(always)]
    fn hop_limit(ip: &Ipv4Hdr) -> u8 {
        ip.ttl
    }

    #[inline(always)]
    fn decrement_hop_limit(ip: &mut Ipv4Hdr) {
        ip.ttl = ip.ttl.wrapping_sub(1);
        mend(ip, checksum::TTL_DECREMENT);
    }

    #[inline(always)]
    fn length(ip: &Ipv4Hdr) -> usize {
        u16::from_be_bytes(ip.tot_len) as usize
    }

    /// Not of "this network", loopback, multicast, or reserved, with the broadcast address
    /// (RFC 6890).
    #[inline(always)]
    fn is_host(address: u32) -> bool {
        let [first, ..] = address.to_ne_bytes();
        first != 0 && first != 127 && first < 224
    }

    #[inline(always)]
    fn address(record: &[u8; 16]) -> u32 {
        u32::from_ne_bytes([record[0], record[1], record[2], record[3]])
    }

    #[inline(always)]
    fn sum(address: u32) -> u32 {
        sum::word32(address)
    }

    #[inline(always)]
    fn fib_words(address: u32) -> [u32; 4] {
        [address, 0, 0, 0]
    }

    #[inline(always)]
    fn endpoint(address: u32, port: [u8; 2]) -> u64 {
        endpoints::key4(address, u16::from_ne_bytes(port))
    }

    #[inline(always)]
    fn listens() -> &'static maps::EndpointTable {
        &maps::LISTENS4
    }

    #[inline(always)]
    fn repliers() -> &'static maps::EndpointTable {
        &maps::REPLIERS4
    }

    #[inline(always)]
    fn service_addresses() -> &'static HashMap<u32, u32> {
        &maps::SERVICE_ADDRESSES4
    }

    #[inline(always)]
    fn key(client: u32, port: [u8; 2], service: u16) -> FlowKey4 {
        FlowKey4::new(client.to_ne_bytes(), port, service)
    }

    #[inline(always)]
    fn client(key: FlowKey4) -> (u32, [u8; 2], u16) {
        (u32::from_ne_bytes(key.client()), key.port(), key.service())
    }

    #[inline(always)]
    fn hash(key: FlowKey4) -> u64 {
        key.hash(maps::flow_key())
    }

    #[inline(always)]
    fn selection_hash(key: FlowKey4, seed: u64) -> u64 {
        key.selection_hash(maps::selection_key(), seed)
    }

    #[inline(always)]
    fn table() -> &'static Table4 {
        &Table4
    }

    #[inline(always)]
    fn snat_map() -> &'static HashMap<u32, u32> {
        &maps::SNAT_BY_ADDRESS4
    }

    #[inline(always)]
    fn snat_bucket(address: u16, bucket: u32) -> Option<&'static Bucket4<SharedWord>> {
        maps::SNAT_PORTS4.get_value(u32::from(address), &bucket)
    }
}

#[inline(always)]
fn mend(ip: &mut Ipv4Hdr, difference: u16) {
    ip.check = checksum::update(u16::from_ne_bytes(ip.check), difference).to_ne_bytes();
}

/// The sum of the words of the header's fixed part; with those of the options it folds to 0xFFFF
/// where the checksum is right (RFC 791 §3.1).
#[inline(always)]
pub(crate) fn header_sum(ip: &Ipv4Hdr) -> u32 {
    let words = |a: [u8; 2], b: [u8; 2]| u64::from(u32::from_ne_bytes([a[0], a[1], b[0], b[1]]));
    let address = |address: [u8; 4]| u64::from(u32::from_ne_bytes(address));
    let sum = words([ip.vihl, ip.tos], ip.tot_len)
        + words(ip.id, ip.frags)
        + words([ip.ttl, ip.proto], ip.check)
        + address(ip.src_addr)
        + address(ip.dst_addr);
    // Sums of 32-bit words fold like those of 16-bit words.
    (sum & 0xffff) as u32 + (sum >> 16 & 0xffff) as u32 + (sum >> 32) as u32
}

/// The sum of the words of the header's options, at most 40 bytes.
#[inline(always)]
fn options_sum(segment: &Segment<'_, Ipv4>) -> u32 {
    let mut sum = 0;
    let mut options = segment.options;
    let mut offset = Ipv4Hdr::LEN;
    while offset < segment.tcp_offset {
        let Some(word) = options.take::<[u8; 2]>() else {
            break;
        };
        sum += u32::from(u16::from_ne_bytes(*word));
        offset += 2;
    }
    sum
}
