//! Outer headers: §12.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_userspace::{
    dataplane::ServiceRecord,
    model::{Forwarding, Tunnel},
};

use super::{checksum, header, rewrite::pseudo_header};

const IPV4_INSIDE: u8 = 4;
const IPV6_INSIDE: u8 = 41;
const UDP: u8 = 17;

/// The packet inside.
pub(super) struct Inner {
    pub(super) ipv6: bool,
    /// Its own length in bytes.
    pub(super) length: usize,
    /// TOS or traffic class: DSCP and ECN.
    pub(super) traffic_class: u8,
    /// By how much its own transport checksum is wrong; `None`: UDP gets no checksum.
    pub(super) error: Option<u16>,
}

/// `packet`, with its padding, behind outer headers of the family of the backend's address. `hash`
/// is the flow's.
pub(super) fn wrap(
    inner: &Inner,
    packet: &[u8],
    service: &ServiceRecord,
    backend: IpAddr,
    hash: u64,
) -> Vec<u8> {
    let entropy = (hash >> 16) as u16;
    let gue = service.forwarding == Forwarding::Gue;
    let protocol = match (gue, inner.ipv6) {
        (true, _) => UDP,
        (false, false) => IPV4_INSIDE,
        (false, true) => IPV6_INSIDE,
    };
    let payload = inner.length + if gue { 8 } else { 0 };
    let class = inner.traffic_class;
    let mut wrapped = match backend {
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
        let udp = udp(inner, packet, &wrapped, backend.is_ipv6(), port, service);
        wrapped.extend_from_slice(&udp);
    }
    wrapped.extend_from_slice(packet);
    wrapped
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
    inner: &Inner,
    packet: &[u8],
    outer: &[u8],
    outer_ipv6: bool,
    source: u16,
    service: &ServiceRecord,
) -> Vec<u8> {
    let packet = &packet[..inner.length];
    let length = 8 + packet.len();
    let mut header = source.to_be_bytes().to_vec();
    header.extend_from_slice(&service.tunnel.port.to_be_bytes());
    header.extend_from_slice(&(length as u16).to_be_bytes());
    header.extend_from_slice(&[0, 0]);
    let Some(error) = inner.error else {
        return header;
    };
    let pseudo = pseudo_header(outer, outer_ipv6, UDP, length);
    // "No checksum" is 0 here (RFC 768), so the other zero stands for 0.
    let field = match checksum::with_error(&[&pseudo, &header, packet], error) {
        0 => 0xffff,
        field => field,
    };
    header[6..8].copy_from_slice(&field.to_be_bytes());
    header
}
