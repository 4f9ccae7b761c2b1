//! Outer headers: §12.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_userspace::{
    dataplane::ServiceRecord,
    model::{Forwarding, Tunnel},
};

use super::{
    checksum, header,
    rewrite::{pseudo_header, tcp_error},
    segment::Segment,
};

const IPV4_INSIDE: u8 = 4;
const IPV6_INSIDE: u8 = 41;
const UDP: u8 = 17;

/// `inner`, which is `segment`'s packet as it is to arrive, behind outer headers of the family of
/// the backend's address. `hash` is the flow's.
pub(super) fn wrap(
    segment: &Segment<'_>,
    inner: &[u8],
    service: &ServiceRecord,
    backend: IpAddr,
    hash: u64,
) -> Vec<u8> {
    let entropy = (hash >> 16) as u16;
    let gue = service.forwarding == Forwarding::Gue;
    let protocol = match (gue, segment.ipv6) {
        (true, _) => UDP,
        (false, false) => IPV4_INSIDE,
        (false, true) => IPV6_INSIDE,
    };
    let payload = segment.length + if gue { 8 } else { 0 };
    let class = segment.traffic_class();
    let mut packet = match backend {
        IpAddr::V4(backend) => {
            let source = source4(&service.tunnel, entropy);
            header::ipv4(class, payload, protocol, source, backend)
        }
        IpAddr::V6(backend) => {
            let label = (hash >> 12) as u32 & 0xf_ffff;
            let source = source6(&service.tunnel, entropy);
            header::ipv6(class, label, payload, protocol, source, backend)
        }
    };
    if gue {
        let port = 0xc000 | (entropy & 0x3fff);
        let udp = udp(segment, inner, &packet, backend.is_ipv6(), port, service);
        packet.extend_from_slice(&udp);
    }
    packet.extend_from_slice(inner);
    packet
}

/// How many low bits of the source the flow's entropy sets.
fn entropy_mask(host_bits: u8) -> u16 {
    match host_bits {
        0..16 => (1 << host_bits) - 1,
        _ => u16::MAX,
    }
}

fn source4(tunnel: &Tunnel, entropy: u16) -> Ipv4Addr {
    let net = tunnel.source_ipv4;
    let host = entropy & entropy_mask(32 - net.prefix_len());
    Ipv4Addr::from(u32::from(net.network()) | u32::from(host))
}

fn source6(tunnel: &Tunnel, entropy: u16) -> Ipv6Addr {
    let net = tunnel.source_ipv6;
    let host = entropy & entropy_mask(128 - net.prefix_len());
    Ipv6Addr::from(u128::from(net.network()) | u128::from(host))
}

/// The UDP header of GUE, behind the outer IP header `outer`.
fn udp(
    segment: &Segment<'_>,
    inner: &[u8],
    outer: &[u8],
    outer_ipv6: bool,
    source: u16,
    service: &ServiceRecord,
) -> Vec<u8> {
    let inner = &inner[..segment.length];
    let length = 8 + inner.len();
    let mut header = source.to_be_bytes().to_vec();
    header.extend_from_slice(&service.tunnel.port.to_be_bytes());
    header.extend_from_slice(&(length as u16).to_be_bytes());
    header.extend_from_slice(&[0, 0]);
    if segment.has_extension_headers() {
        return header;
    }
    let error = tcp_error(inner, segment.ipv6, segment.tcp, segment.length);
    let pseudo = pseudo_header(outer, outer_ipv6, UDP, length);
    // "No checksum" is 0 here (RFC 768), so the other zero stands for 0.
    let field = match checksum::with_error(&[&pseudo, &header, inner], error) {
        0 => 0xffff,
        field => field,
    };
    header[6..8].copy_from_slice(&field.to_be_bytes());
    header
}
