use aya_ebpf::maps::HashMap;
use lb_common::{
    endpoints,
    flow::{Bucket6, FlowKey6, Table},
    reason::Reason,
};
use network_types::ip::Ipv6Hdr;

use super::{
    Program,
    family::{Family, Parsed, Segment},
    frame::{Frame, Header},
    maps,
    shared::{SharedWord, forget},
    sum,
    tcp::TcpHeader,
};

pub(crate) struct Ipv6;

// SAFETY: byte arrays only.
unsafe impl Header for Ipv6Hdr {}
// SAFETY: byte arrays only.
unsafe impl Header for Extension {}

/// What the extension headers have in common (RFC 8200 §4), to the length of the shortest.
#[repr(C)]
struct Extension {
    next: u8,
    /// Of hop-by-hop, routing and destination options: in units of 8 bytes, less the first.
    length: u8,
    /// Of a fragment header: 13 bits of offset, two reserved, more-fragments flag.
    fragment: [u8; 2],
    rest: [u8; 4],
}

const HOP_BY_HOP: u8 = 0;
const ICMP: u8 = 58;
const TCP: u8 = 6;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;
/// Fragment offset and more-fragments flag.
const FRAGMENT_BITS: u16 = 0xfff9;
/// Extension headers that are read before a packet is given up (S-FWD-4). RFC 8200 §4.1
/// recommends at most five before TCP.
const MAX_EXTENSIONS: usize = 6;
/// Bytes of extension headers that are read, one less than a power of two.
const MAX_EXTENSION_BYTES: usize = 2047;

/// The connection table.
pub(crate) struct Table6;

impl Table for Table6 {
    type Bucket = Bucket6<SharedWord>;

    #[inline(always)]
    fn buckets(&self) -> u32 {
        maps::BUCKETS6.load()
    }

    #[inline(always)]
    fn bucket(&self, index: u32) -> Option<&Bucket6<SharedWord>> {
        maps::FLOWS6.get(index)
    }

    #[inline(always)]
    fn overflow_word(&self, index: u32) -> Option<&SharedWord> {
        maps::FLOW_OVERFLOWS6.get(index)
    }
}

impl Family for Ipv6 {
    type Address = [u64; 2];
    type Bucket = Bucket6<SharedWord>;
    type Table = Table6;
    type Header = Ipv6Hdr;
    type Key = FlowKey6;

    const OPEN: Program = Program::Open6;
    const RIVALS: Program = Program::Rivals6;
    const FULL_NAT: Program = Program::FullNat6;
    const ENDPOINTS_ARE_EXACT: bool = false;
    const AF: u8 = 10;
    const TCP_AND_IP: u16 = 60;

    #[inline(always)]
    fn parse<'p>(frame: &Frame<'p>) -> Parsed<'p, Self> {
        let mut cursor = frame.network();
        let room = cursor.remaining();
        let Some(ip) = cursor.take::<Ipv6Hdr>() else {
            return Parsed::Other;
        };
        let suspect = |reason| Parsed::Suspect {
            destination: words(ip.dst_addr),
            reason,
        };
        if ip.next_hdr == ICMP {
            return Parsed::Icmp;
        }
        let options = cursor;
        let noise = u64::from(ip.dst_addr[15]) << 8 | u64::from(ip.src_addr[15]);
        let mut walk = cursor;
        let mut extensions = 0;
        let mut next = ip.next_hdr;
        for _ in 0..MAX_EXTENSIONS {
            if next == TCP {
                break;
            }
            if !is_extension(next) {
                return Parsed::Other;
            }
            let Some(extension) = walk.take::<Extension>() else {
                return suspect(Reason::MalformedIp);
            };
            let mut more = 0;
            if next == FRAGMENT {
                // An "atomic" fragment is whole (RFC 6946).
                if u16::from_be_bytes(extension.fragment) & FRAGMENT_BITS != 0 {
                    return match extension.next {
                        next if next == TCP || is_extension(next) => suspect(Reason::Fragment),
                        _ => Parsed::Other,
                    };
                }
            } else {
                more = extension.length as usize * 8;
                walk.skip(more);
            }
            next = extension.next;
            extensions += size_of::<Extension>() + more;
        }
        if next != TCP && !is_extension(next) {
            return Parsed::Other;
        }
        if ip.version() != 6 {
            return suspect(Reason::MalformedIp);
        }
        if next != TCP || extensions > MAX_EXTENSION_BYTES {
            return suspect(Reason::ExtensionHeaders);
        }
        // The verifier is to walk what follows once, not once for each length.
        let extensions = forget::<{ MAX_EXTENSION_BYTES as u64 }>(extensions, noise);
        cursor.skip(extensions);
        match cursor.take::<TcpHeader>() {
            Some(tcp) => Parsed::Segment(Segment {
                ip,
                tcp,
                options,
                tcp_options: cursor,
                tcp_offset: Ipv6Hdr::LEN + extensions,
                room,
            }),
            None => suspect(Reason::MalformedTcp),
        }
    }

    #[inline(always)]
    fn check(_segment: &Segment<'_, Self>) -> Result<(), Reason> {
        Ok(())
    }

    #[inline(always)]
    fn source(ip: &Ipv6Hdr) -> [u64; 2] {
        words(ip.src_addr)
    }

    #[inline(always)]
    fn destination(ip: &Ipv6Hdr) -> [u64; 2] {
        words(ip.dst_addr)
    }

    #[inline(always)]
    fn set_source(ip: &mut Ipv6Hdr, address: [u64; 2], _difference: u16) {
        ip.src_addr = bytes(address);
    }

    #[inline(always)]
    fn set_destination(ip: &mut Ipv6Hdr, address: [u64; 2], _difference: u16) {
        ip.dst_addr = bytes(address);
    }

    #[inline(always)]
    fn hop_limit(ip: &Ipv6Hdr) -> u8 {
        ip.hop_limit
    }

    #[inline(always)]
    fn decrement_hop_limit(ip: &mut Ipv6Hdr) {
        ip.hop_limit = ip.hop_limit.wrapping_sub(1);
    }

    #[inline(always)]
    fn length(ip: &Ipv6Hdr) -> usize {
        Ipv6Hdr::LEN + u16::from_be_bytes(ip.payload_len) as usize
    }

    /// Not multicast, unspecified or loopback (RFC 4291 §2.4).
    #[inline(always)]
    fn is_host([first, second]: [u64; 2]) -> bool {
        first.to_ne_bytes()[0] != 0xff && (first != 0 || u64::from_be(second) > 1)
    }

    #[inline(always)]
    fn address(record: &[u8; 16]) -> [u64; 2] {
        words(*record)
    }

    #[inline(always)]
    fn sum(address: [u64; 2]) -> u32 {
        sum::address6(address)
    }

    #[inline(always)]
    fn fib_words([first, second]: [u64; 2]) -> [u32; 4] {
        [
            first as u32,
            (first >> 32) as u32,
            second as u32,
            (second >> 32) as u32,
        ]
    }

    #[inline(always)]
    fn endpoint(address: [u64; 2], port: [u8; 2]) -> u64 {
        endpoints::key6(address, u16::from_ne_bytes(port))
    }

    #[inline(always)]
    fn listens() -> &'static maps::EndpointTable {
        &maps::LISTENS6
    }

    #[inline(always)]
    fn repliers() -> &'static maps::EndpointTable {
        &maps::REPLIERS6
    }

    #[inline(always)]
    fn service_addresses() -> &'static HashMap<[u64; 2], u32> {
        &maps::SERVICE_ADDRESSES6
    }

    #[inline(always)]
    fn key(client: [u64; 2], port: [u8; 2], service: u16) -> FlowKey6 {
        FlowKey6::new(bytes(client), port, service)
    }

    #[inline(always)]
    fn client(key: FlowKey6) -> ([u64; 2], [u8; 2], u16) {
        (words(key.client()), key.port(), key.service())
    }

    #[inline(always)]
    fn hash(key: FlowKey6) -> u64 {
        key.hash(maps::flow_key())
    }

    #[inline(always)]
    fn selection_hash(key: FlowKey6, seed: u64) -> u64 {
        key.selection_hash(maps::selection_key(), seed)
    }

    #[inline(always)]
    fn table() -> &'static Table6 {
        &Table6
    }

    #[inline(always)]
    fn snat_map() -> &'static HashMap<[u64; 2], u32> {
        &maps::SNAT_BY_ADDRESS6
    }

    #[inline(always)]
    fn snat_bucket(address: u16, bucket: u32) -> Option<&'static Bucket6<SharedWord>> {
        maps::SNAT_PORTS6.get_value(u32::from(address), &bucket)
    }
}

/// An address as two words in memory order.
#[inline(always)]
fn words(address: [u8; 16]) -> [u64; 2] {
    let both = u128::from_ne_bytes(address);
    [both as u64, (both >> 64) as u64]
}

#[inline(always)]
fn bytes([first, second]: [u64; 2]) -> [u8; 16] {
    (u128::from(first) | u128::from(second) << 64).to_ne_bytes()
}

/// An extension header that is read here: behind any other, nobody can say what follows.
#[inline(always)]
fn is_extension(next: u8) -> bool {
    matches!(next, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS)
}
