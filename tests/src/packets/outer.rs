//! Reads the outer headers of a tunnelled packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{checksum::verifies, dissect::link, packet::Link};

/// Outer headers without options, and what is inside.
#[derive(Clone, Debug, PartialEq)]
pub struct Outer {
    pub link: Link,
    pub source: IpAddr,
    pub destination: IpAddr,
    /// DSCP and ECN.
    pub traffic_class: u8,
    pub hops: u8,
    /// Of what the outer header is followed by.
    pub protocol: u8,
    /// IPv4: identification, flags and fragment offset.
    pub fragment: Option<(u16, u16)>,
    pub flow_label: Option<u32>,
    pub udp: Option<Udp>,
    /// From the inner IP header to the end of the outer packet.
    pub inner: Vec<u8>,
    /// Behind the outer packet.
    pub padding: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Udp {
    pub source: u16,
    pub destination: u16,
    /// As it stands in the header.
    pub checksum: u16,
    pub checksum_verifies: bool,
}

impl Outer {
    /// Takes a frame apart; every length and checksum but UDP's must be right.
    ///
    /// # Panics
    ///
    /// When one is not, or a header is cut short.
    pub fn of(frame: &[u8]) -> Self {
        let (link, ether_type, packet) = link(frame).expect("an Ethernet header");
        let mut outer = match ether_type {
            0x0800 => ipv4(link, packet),
            0x86dd => ipv6(link, packet),
            other => panic!("EtherType {other:#06x}"),
        };
        if outer.protocol == 17 {
            outer.take_udp();
        }
        outer
    }

    fn take_udp(&mut self) {
        let udp = &self.inner;
        let word = |at: usize| u16::from_be_bytes([udp[at], udp[at + 1]]);
        assert_eq!(usize::from(word(4)), udp.len(), "length of UDP");
        let octets = |address: IpAddr| match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let length = (udp.len() as u32).to_be_bytes();
        let pseudo = [
            octets(self.source),
            octets(self.destination),
            length.to_vec(),
            vec![0, 0, 0, 17],
        ]
        .concat();
        self.udp = Some(Udp {
            source: word(0),
            destination: word(2),
            checksum: word(6),
            checksum_verifies: verifies(&[&pseudo, udp]),
        });
        self.inner.drain(..8);
    }
}

fn ipv4(link: Link, packet: &[u8]) -> Outer {
    let word = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
    let address = |at: usize| -> [u8; 4] { packet[at..at + 4].try_into().expect("4 bytes") };
    assert_eq!(packet[0], 0x45);
    assert!(verifies(&[&packet[..20]]), "outer header checksum");
    let length = usize::from(word(2));
    Outer {
        link,
        source: Ipv4Addr::from(address(12)).into(),
        destination: Ipv4Addr::from(address(16)).into(),
        traffic_class: packet[1],
        hops: packet[8],
        protocol: packet[9],
        fragment: Some((word(4), word(6))),
        flow_label: None,
        udp: None,
        inner: packet[20..length].to_vec(),
        padding: packet[length..].to_vec(),
    }
}

fn ipv6(link: Link, packet: &[u8]) -> Outer {
    let address = |at: usize| -> [u8; 16] { packet[at..at + 16].try_into().expect("16 bytes") };
    let first = u32::from_be_bytes([packet[0], packet[1], packet[2], packet[3]]);
    assert_eq!(first >> 28, 6);
    let length = 40 + usize::from(u16::from_be_bytes([packet[4], packet[5]]));
    Outer {
        link,
        source: Ipv6Addr::from(address(8)).into(),
        destination: Ipv6Addr::from(address(24)).into(),
        traffic_class: (first >> 20) as u8,
        hops: packet[7],
        protocol: packet[6],
        fragment: None,
        flow_label: Some(first & 0xf_ffff),
        udp: None,
        inner: packet[40..length].to_vec(),
        padding: packet[length..].to_vec(),
    }
}
