//! IP headers, and the Internet checksum (RFC 1071).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_common::checksum::fold;

pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
/// Like that of the packets which the data plane makes.
const TTL: u8 = 64;

/// Source and destination of a packet, of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addresses {
    V4 {
        source: Ipv4Addr,
        destination: Ipv4Addr,
    },
    V6 {
        source: Ipv6Addr,
        destination: Ipv6Addr,
    },
}

impl Addresses {
    /// `None`: they are of different families.
    pub fn new(source: IpAddr, destination: IpAddr) -> Option<Self> {
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Some(Self::V4 {
                source,
                destination,
            }),
            (IpAddr::V6(source), IpAddr::V6(destination)) => Some(Self::V6 {
                source,
                destination,
            }),
            _ => None,
        }
    }

    /// As they stand in a header of either family and in its pseudo-header.
    fn bytes(self) -> Vec<u8> {
        match self {
            Self::V4 {
                source,
                destination,
            } => [source.octets(), destination.octets()].concat(),
            Self::V6 {
                source,
                destination,
            } => [source.octets(), destination.octets()].concat(),
        }
    }

    /// The packet with this payload, which is shorter than 65 000 bytes: DSCP and ECN 0; IPv4 with
    /// DF and id 0 (RFC 6864 §4.1).
    pub(super) fn packet(self, protocol: u8, flow_label: u32, payload: &[u8]) -> Vec<u8> {
        let length = payload.len() as u16;
        let mut packet = Vec::with_capacity(40 + payload.len());
        match self {
            Self::V4 { .. } => {
                let [high, low] = (20 + length).to_be_bytes();
                packet.extend([0x45, 0, high, low, 0, 0, 0x40, 0, TTL, protocol, 0, 0]);
                packet.extend(self.bytes());
                let checksum = checksum(&[&packet]);
                packet[10..12].copy_from_slice(&checksum);
            }
            Self::V6 { .. } => {
                packet.extend((6 << 28 | flow_label & 0xf_ffff).to_be_bytes());
                packet.extend(length.to_be_bytes());
                packet.extend([protocol, TTL]);
                packet.extend(self.bytes());
            }
        }
        packet.extend_from_slice(payload);
        packet
    }

    /// The checksum of a TCP segment or UDP datagram whose own checksum field is zero, with the
    /// pseudo-header (RFC 9293 §3.1, RFC 8200 §8.1).
    pub(super) fn transport_checksum(self, protocol: u8, payload: &[u8]) -> [u8; 2] {
        let length = (payload.len() as u32).to_be_bytes();
        checksum(&[&self.bytes(), &length, &[0, 0, 0, protocol], payload])
    }
}

/// As it is to be stored. All parts but the last have even lengths.
fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let sum = words
        .map(|word| match *word {
            [high, low] => u32::from(u16::from_be_bytes([high, low])),
            [high] => u32::from(high) << 8,
            _ => 0,
        })
        .sum();
    (!fold(sum)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 1071 §3, whose sum is ddf2.
    #[test]
    fn checksums_are_rfc_1071s() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        let expected = (!0xddf2_u16).to_be_bytes();
        assert_eq!(checksum(&[&bytes]), expected);
        assert_eq!(checksum(&[&bytes[..2], &bytes[2..]]), expected);
        assert_eq!(checksum(&[&[0x12]]), (!0x1200_u16).to_be_bytes());
    }

    #[test]
    fn families_do_not_mix() {
        let (four, six): (IpAddr, IpAddr) = ([192, 0, 2, 1].into(), Ipv6Addr::LOCALHOST.into());
        assert!(Addresses::new(four, six).is_none() && Addresses::new(six, four).is_none());
        assert!(Addresses::new(four, four).is_some() && Addresses::new(six, six).is_some());
    }
}
