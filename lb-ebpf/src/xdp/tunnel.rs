//! Outer headers: IP in IP (RFC 2003, 2473, 4213) and GUE variant 1 (draft-ietf-intarea-gue §4),
//! which is IP in UDP without a header of its own.

use aya_ebpf::programs::XdpContext;
use lb_common::{
    checksum,
    reason::Reason,
    records::{Backend, Tunnel, forwarding},
};
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};

use super::{
    Stop,
    emit::{self, Way},
    family::Family,
    fib,
    frame::{self, Cursor, Frame, Header},
    ipv4::Ipv4,
    ipv6::Ipv6,
    maps,
    request::Target,
    sum::{address4, address6, protocol_and_length},
};

const IPIP: u8 = 4;
const TCP: u8 = 6;
const UDP: u8 = 17;
const IPV6: u8 = 41;
const ICMPV6: u8 = 58;

/// TTL or hop limit of the outer header.
const HOPS: u8 = 64;
const DONT_FRAGMENT: [u8; 2] = [0x40, 0];
/// The first of the ports that nobody is assigned (RFC 6335 §6).
const FIRST_SOURCE_PORT: u16 = 0xc000;

#[repr(C)]
struct UdpHeader {
    source: [u8; 2],
    destination: [u8; 2],
    length: [u8; 2],
    checksum: [u8; 2],
}

// SAFETY: byte arrays only.
unsafe impl Header for UdpHeader {}

/// What an outer header has to know of the packet inside.
#[derive(Clone, Copy)]
struct Inner {
    protocol: u8,
    traffic_class: u8,
    /// Bytes of the IP packet.
    length: u16,
    /// The sum of its words, as far as it is known without reading it all.
    sum: Option<u32>,
}

/// What an outer header is made of, beside the addresses.
struct Outer {
    service: u16,
    hash: u64,
    tunnel: &'static Tunnel,
    gue: bool,
}

/// Puts the outer headers in front that the [errand](super::errand) asks for, and sends the packet.
#[inline(always)]
pub(crate) fn encapsulate(ctx: &XdpContext) -> Result<u32, Stop> {
    let errand = maps::errand().ok_or(Stop::Pass)?;
    let frame = Frame::parse(ctx).ok_or(Stop::Pass)?;
    let drop = |reason| Stop::drop(errand.service, reason);
    let backend = maps::backend(errand.backend).ok_or(drop(Reason::NoBackend))?;
    let service = maps::service(errand.service).ok_or(drop(Reason::NoBackend))?;
    let target = Target {
        id: errand.service,
        service,
    };
    if frame.is_ipv4() {
        wrap(&frame, target, backend, errand.hash, inner4(&frame))
    } else {
        wrap(&frame, target, backend, errand.hash, inner6(&frame))
    }
}

/// Puts the outer headers in front of a packet of a known connection, and sends it.
#[inline(always)]
pub(crate) fn send<F: Family>(
    frame: &Frame<'_>,
    target: Target,
    backend: &Backend,
    hash: u64,
) -> Result<u32, Stop> {
    let inner = match F::AF {
        Ipv4::AF => inner4(frame),
        _ => inner6(frame),
    };
    wrap(frame, target, backend, hash, inner)
}

#[inline(always)]
fn wrap(
    frame: &Frame<'_>,
    Target { id, service }: Target,
    backend: &Backend,
    hash: u64,
    inner: Option<Inner>,
) -> Result<u32, Stop> {
    let drop = |reason| Stop::drop(id, reason);
    let inner = inner.ok_or(drop(Reason::MalformedIp))?;
    let outer = Outer {
        service: id,
        hash,
        tunnel: maps::tunnel(id).ok_or(drop(Reason::NoBackend))?,
        gue: service.forwarding == forwarding::GUE,
    };
    if backend.flags & Backend::IPV6 != 0 {
        wrap6(frame, outer, backend, inner)
    } else {
        wrap4(frame, outer, backend, inner)
    }
}

/// A packet that is forwarded has one hop less to go inside, too (RFC 2003 §3.1).
#[inline(always)]
fn inner4(frame: &Frame<'_>) -> Option<Inner> {
    let ip = frame.network().take::<Ipv4Hdr>()?;
    Ipv4::decrement_hop_limit(ip);
    let length = u16::from_be_bytes(ip.tot_len);
    let payload = length.wrapping_sub(u16::from(ip.ihl()));
    // The header sums up to 0xFFFF, which is zero. So does what TCP's checksum covers: the
    // segment is what its pseudo-header lacks of that.
    let pseudo = address4(ip.src_addr) + address4(ip.dst_addr) + protocol_and_length(TCP, payload);
    Some(Inner {
        protocol: IPIP,
        traffic_class: ip.tos,
        length,
        sum: Some(match ip.proto {
            TCP => complement(pseudo),
            // ICMP has no pseudo-header.
            _ => 0,
        }),
    })
}

#[inline(always)]
fn inner6(frame: &Frame<'_>) -> Option<Inner> {
    let ip = frame.network().take::<Ipv6Hdr>()?;
    Ipv6::decrement_hop_limit(ip);
    let payload = u16::from_be_bytes(ip.payload_len);
    // Addresses and length are in the header and, with the other sign, in what the pseudo-header
    // leaves of the segment.
    let first = u32::from_ne_bytes(ip.vcf);
    let sum = (first & 0xffff)
        + (first >> 16)
        + u32::from(u16::from_ne_bytes([ip.next_hdr, ip.hop_limit]))
        + complement(u32::from(u16::from_ne_bytes([0, ip.next_hdr])));
    Some(Inner {
        protocol: IPV6,
        traffic_class: traffic_class(ip.vcf),
        length: Ipv6Hdr::LEN as u16 + payload,
        sum: matches!(ip.next_hdr, TCP | ICMPV6).then_some(sum),
    })
}

#[inline(always)]
fn traffic_class(vcf: [u8; 4]) -> u8 {
    vcf[0] << 4 | vcf[1] >> 4
}

#[inline(always)]
fn wrap4(frame: &Frame<'_>, outer: Outer, backend: &Backend, inner: Inner) -> Result<u32, Stop> {
    let source = source4(outer.tunnel, outer.hash);
    let destination = Ipv4::address(&backend.address);
    let bytes = Ipv4Hdr::LEN + udp_bytes(outer.gue);
    let way = way::<Ipv4>(
        frame,
        outer.service,
        backend,
        source,
        destination,
        inner.length as usize + bytes,
    )?;
    let cursor = emit::address(frame, &way, frame::IPV4, bytes)?;
    write4(cursor, &outer, source, destination, inner)
        .ok_or(Stop::drop(outer.service, Reason::NoHeadroom))?;
    emit::leave(frame, &way)
}

#[inline(always)]
fn write4(
    mut cursor: Cursor<'_>,
    outer: &Outer,
    source: u32,
    destination: u32,
    inner: Inner,
) -> Option<()> {
    let ip = cursor.take::<Ipv4Hdr>()?;
    let bytes = Ipv4Hdr::LEN + udp_bytes(outer.gue);
    let length = inner.length.wrapping_add(bytes as u16);
    ip.vihl = 0x45;
    ip.tos = inner.traffic_class;
    ip.tot_len = length.to_be_bytes();
    ip.id = [0; 2];
    ip.frags = DONT_FRAGMENT;
    ip.ttl = HOPS;
    ip.proto = if outer.gue { UDP } else { inner.protocol };
    ip.check = [0; 2];
    ip.src_addr = source.to_ne_bytes();
    ip.dst_addr = destination.to_ne_bytes();
    ip.check = (!checksum::fold(super::ipv4::header_sum(ip))).to_ne_bytes();
    if outer.gue {
        let addresses = address4(ip.src_addr) + address4(ip.dst_addr);
        write_udp(cursor, outer, addresses, inner)?;
    }
    Some(())
}

#[inline(always)]
fn wrap6(frame: &Frame<'_>, outer: Outer, backend: &Backend, inner: Inner) -> Result<u32, Stop> {
    let source = source6(outer.tunnel, outer.hash);
    let destination = Ipv6::address(&backend.address);
    let bytes = Ipv6Hdr::LEN + udp_bytes(outer.gue);
    let way = way::<Ipv6>(
        frame,
        outer.service,
        backend,
        source,
        destination,
        inner.length as usize + bytes,
    )?;
    let cursor = emit::address(frame, &way, frame::IPV6, bytes)?;
    write6(cursor, &outer, source, destination, inner)
        .ok_or(Stop::drop(outer.service, Reason::NoHeadroom))?;
    emit::leave(frame, &way)
}

#[inline(always)]
fn write6(
    mut cursor: Cursor<'_>,
    outer: &Outer,
    source: [u64; 2],
    destination: [u64; 2],
    inner: Inner,
) -> Option<()> {
    let ip = cursor.take::<Ipv6Hdr>()?;
    let payload = inner.length.wrapping_add(udp_bytes(outer.gue) as u16);
    // RFC 6438: the flow label carries the entropy.
    let label = (outer.hash >> 12) as u32 & 0xf_ffff;
    ip.vcf = (6 << 28 | u32::from(inner.traffic_class) << 20 | label).to_be_bytes();
    ip.payload_len = payload.to_be_bytes();
    ip.next_hdr = if outer.gue { UDP } else { inner.protocol };
    ip.hop_limit = HOPS;
    Ipv6::set_source(ip, source, 0);
    Ipv6::set_destination(ip, destination, 0);
    if outer.gue {
        let addresses = address6(source) + address6(destination);
        write_udp(cursor, outer, addresses, inner)?;
    }
    Some(())
}

#[inline(always)]
fn udp_bytes(gue: bool) -> usize {
    if gue { size_of::<UdpHeader>() } else { 0 }
}

/// The way that the daemon knows, or else the kernel.
#[inline(always)]
fn way<F: Family>(
    frame: &Frame<'_>,
    service: u16,
    backend: &Backend,
    source: F::Address,
    destination: F::Address,
    length: usize,
) -> Result<Way, Stop> {
    let hop = match backend.hop {
        hop if hop.ifindex() != 0 => hop,
        _ => fib::lookup::<F>(frame, length, source, destination)
            .ok_or(Stop::drop(service, Reason::NoNextHop))?,
    };
    Ok(Way { service, hop })
}

/// Sixteen bits of a flow's hash, for receivers that spread flows by their outer header (S-DSR-2).
#[inline(always)]
fn entropy(hash: u64) -> u16 {
    (hash >> 16) as u16
}

#[inline(always)]
fn source4(tunnel: &Tunnel, hash: u64) -> u32 {
    let host = u32::from(entropy(hash) & tunnel.entropy_mask4);
    u32::from_ne_bytes(tunnel.source4) | host.to_be()
}

#[inline(always)]
fn source6(tunnel: &Tunnel, hash: u64) -> [u64; 2] {
    let [first, second] = Ipv6::address(&tunnel.source6);
    let host = u64::from(entropy(hash) & tunnel.entropy_mask6);
    [first, second | host.to_be()]
}

/// A UDP header whose checksum is made of what is known of the packet inside: a packet that was
/// wrong stays wrong. Where too little is known it has none (RFC 6935 §5, RFC 768).
#[inline(always)]
fn write_udp(mut cursor: Cursor<'_>, outer: &Outer, addresses: u32, inner: Inner) -> Option<()> {
    let udp = cursor.take::<UdpHeader>()?;
    let length = inner.length.wrapping_add(size_of::<UdpHeader>() as u16);
    let source = FIRST_SOURCE_PORT | entropy(outer.hash) & !FIRST_SOURCE_PORT;
    udp.source = source.to_be_bytes();
    udp.destination = outer.tunnel.port;
    udp.length = length.to_be_bytes();
    udp.checksum = [0; 2];
    let Some(sum) = inner.sum else {
        return Some(());
    };
    let header = u32::from(u16::from_ne_bytes(udp.source))
        + u32::from(u16::from_ne_bytes(udp.destination))
        + u32::from(u16::from_ne_bytes(udp.length));
    let pseudo = addresses + protocol_and_length(UDP, length);
    let checksum = !checksum::fold(header + pseudo + sum);
    // Zero would say that there is none (RFC 768).
    let checksum = if checksum == 0 { 0xffff } else { checksum };
    udp.checksum = checksum.to_ne_bytes();
    Some(())
}

/// The ones' complement of a sum, as a sum.
#[inline(always)]
fn complement(sum: u32) -> u32 {
    u32::from(!checksum::fold(sum))
}
