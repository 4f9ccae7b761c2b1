//! What a tunnel puts around a packet (docs/packets.md §12).

use std::net::IpAddr;

use ipnet::{Ipv4Net, Ipv6Net};

use super::ip::{Addresses, UDP};
use crate::model::Tunnel;

const IPV4_INSIDE: u8 = 4;
const IPV6_INSIDE: u8 = 41;
/// GUE's source ports are those from here on.
const GUE_SOURCE_PORTS: u16 = 0xc000;

/// How a packet is put into another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encapsulation {
    Ipip,
    /// Variant 1.
    Gue,
}

/// A tunnel to one host.
#[derive(Clone, Copy, Debug)]
pub struct Outer<'a> {
    pub encapsulation: Encapsulation,
    pub tunnel: &'a Tunnel,
    /// The host's own address, of either family.
    pub destination: IpAddr,
    /// Stands where the data plane has bits of the flow's hash: constant for each flow.
    pub entropy: u32,
}

impl Outer<'_> {
    /// The packet around an IP packet of either family, whose DSCP and ECN are 0.
    pub fn around(&self, inner: &[u8]) -> Vec<u8> {
        let addresses = self.addresses();
        match self.encapsulation {
            Encapsulation::Ipip => {
                let protocol = match inner.first().map(|byte| byte >> 4) {
                    Some(6) => IPV6_INSIDE,
                    _ => IPV4_INSIDE,
                };
                addresses.packet(protocol, self.entropy, inner)
            }
            Encapsulation::Gue => {
                let mut datagram = Vec::with_capacity(8 + inner.len());
                let source = GUE_SOURCE_PORTS | self.entropy as u16 & 0x3fff;
                datagram.extend(source.to_be_bytes());
                datagram.extend(self.tunnel.port.to_be_bytes());
                datagram.extend((8 + inner.len() as u16).to_be_bytes());
                datagram.extend([0, 0]);
                datagram.extend_from_slice(inner);
                let checksum = match addresses.transport_checksum(UDP, &datagram) {
                    // Zero means that there is none (RFC 768).
                    [0, 0] => [0xff, 0xff],
                    checksum => checksum,
                };
                datagram[6..8].copy_from_slice(&checksum);
                addresses.packet(UDP, self.entropy, &datagram)
            }
        }
    }

    fn addresses(&self) -> Addresses {
        let Tunnel {
            source_ipv4,
            source_ipv6,
            ..
        } = self.tunnel;
        match self.destination {
            IpAddr::V4(destination) => Addresses::V4 {
                source: ipv4_source(source_ipv4, self.entropy),
                destination,
            },
            IpAddr::V6(destination) => Addresses::V6 {
                source: ipv6_source(source_ipv6, self.entropy),
                destination,
            },
        }
    }
}

fn ipv4_source(network: &Ipv4Net, entropy: u32) -> std::net::Ipv4Addr {
    let bits = u32::from(network.network()) | entropy & entropy_mask(32 - network.prefix_len());
    bits.into()
}

fn ipv6_source(network: &Ipv6Net, entropy: u32) -> std::net::Ipv6Addr {
    let bits = entropy & entropy_mask(128 - network.prefix_len());
    (u128::from(network.network()) | u128::from(bits)).into()
}

fn entropy_mask(host_bits: u8) -> u32 {
    (1 << host_bits.min(Tunnel::ENTROPY_BITS)) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const INNER4: [u8; 20] = [
        0x45, 0, 0, 20, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 2, 0, 1, 192, 0, 2, 10,
    ];

    fn around(
        encapsulation: Encapsulation,
        destination: &str,
        entropy: u32,
        inner: &[u8],
    ) -> Vec<u8> {
        let outer = Outer {
            encapsulation,
            tunnel: &Tunnel::default(),
            destination: destination.parse().unwrap(),
            entropy,
        };
        outer.around(inner)
    }

    /// S-DSR-3: as docs/packets.md §12 has it for the data plane.
    #[test]
    fn ipip_says_what_is_inside_and_carries_entropy_in_its_source() {
        let packet = around(Encapsulation::Ipip, "10.2.0.11", 0xfedc_ba98, &INNER4);
        #[rustfmt::skip]
        let expected = [
            0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 4, 0xca, 0x1c, 172, 16, 0xba, 0x98, 10, 2, 0, 11,
        ];
        assert_eq!((&packet[..20], &packet[20..]), (&expected[..], &INNER4[..]));

        let mut inner6 = [0; 40];
        inner6[0] = 0x60;
        let packet = around(Encapsulation::Ipip, "fd00:2::11", 0xfedc_ba98, &inner6);
        assert_eq!(packet[..8], [0x60, 0x0c, 0xba, 0x98, 0, 40, 41, 64]);
        let source: IpAddr = "100::ba98".parse().unwrap();
        assert_eq!(
            IpAddr::from(<[u8; 16]>::try_from(&packet[8..24]).unwrap()),
            source
        );
        assert_eq!(packet[40..], inner6);
    }

    /// S-DSR-3.
    #[test]
    fn gue_carries_entropy_in_its_source_port_and_a_checksum() {
        for (destination, header) in [("10.2.0.11", 20), ("fd00:2::11", 40)] {
            let packet = around(Encapsulation::Gue, destination, 0xfedc_ba98, &INNER4);
            let udp = &packet[header..];
            assert_eq!(udp[..6], [0xfa, 0x98, 0x17, 0xc0, 0, 28]);
            assert_eq!(udp[8..], INNER4);
            let outer = Addresses::new(
                match header {
                    20 => "172.16.186.152",
                    _ => "100::ba98",
                }
                .parse()
                .unwrap(),
                destination.parse().unwrap(),
            );
            // With its own checksum in it, a datagram sums up to nothing.
            assert_eq!(outer.unwrap().transport_checksum(UDP, udp), [0, 0]);
        }
    }

    #[test]
    fn entropy_stays_within_the_tunnels_source() {
        let source = |network: &str| ipv4_source(&network.parse().unwrap(), u32::MAX).to_string();
        assert_eq!(source("192.0.2.1/32"), "192.0.2.1");
        assert_eq!(source("192.0.2.0/28"), "192.0.2.15");
        assert_eq!(source("10.0.0.0/8"), "10.0.255.255");
        let source = |network: &str| ipv6_source(&network.parse().unwrap(), u32::MAX).to_string();
        assert_eq!(source("2001:db8::/64"), "2001:db8::ffff");
        assert_eq!(source("2001:db8::1/128"), "2001:db8::1");
    }
}
