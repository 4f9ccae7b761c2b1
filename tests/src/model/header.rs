//! IP headers of packets that the balancer makes itself: around others (§12), and of answers (§9).

use std::net::{Ipv4Addr, Ipv6Addr};

use super::checksum;

const HOPS: u8 = 64;

/// DF, id 0, no options.
pub(super) fn ipv4(
    class: u8,
    payload: usize,
    protocol: u8,
    from: Ipv4Addr,
    to: Ipv4Addr,
) -> Vec<u8> {
    let mut header = vec![0x45, class];
    header.extend_from_slice(&(20 + payload as u16).to_be_bytes());
    header.extend_from_slice(&[0, 0, 0x40, 0, HOPS, protocol, 0, 0]);
    header.extend_from_slice(&from.octets());
    header.extend_from_slice(&to.octets());
    let right = checksum::with_error(&[&header], 0);
    header[10..12].copy_from_slice(&right.to_be_bytes());
    header
}

pub(super) fn ipv6(
    class: u8,
    label: u32,
    payload: usize,
    protocol: u8,
    from: Ipv6Addr,
    to: Ipv6Addr,
) -> Vec<u8> {
    let first = 6 << 28 | u32::from(class) << 20 | label;
    let mut header = first.to_be_bytes().to_vec();
    header.extend_from_slice(&(payload as u16).to_be_bytes());
    header.extend_from_slice(&[protocol, HOPS]);
    header.extend_from_slice(&from.octets());
    header.extend_from_slice(&to.octets());
    header
}
