//! IP headers, right and wrong ones.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::checksum::{checksum, wrong_by};

/// The network header that a TCP segment travels in.
#[derive(Clone, Debug, PartialEq)]
pub enum Network {
    V4(Ipv4),
    V6(Ipv6),
}

/// An IPv4 header. What is `None` or zero among the last fields is computed as it should be.
#[derive(Clone, Debug, PartialEq)]
pub struct Ipv4 {
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    /// DSCP and ECN.
    pub service_type: u8,
    pub identification: u16,
    /// Flags (DF is `0x4000`, MF `0x2000`) and offset in units of 8 bytes.
    pub fragment: u16,
    pub ttl: u8,
    pub protocol: u8,
    /// Padded to whole words.
    pub options: Vec<u8>,
    pub version: u8,
    /// In words of 4 bytes.
    pub header_length: Option<u8>,
    pub total_length: Option<u16>,
    /// By how much the header's checksum is wrong.
    pub checksum_error: u16,
}

/// An IPv6 header with extension headers.
#[derive(Clone, Debug, PartialEq)]
pub struct Ipv6 {
    pub source: Ipv6Addr,
    pub destination: Ipv6Addr,
    pub traffic_class: u8,
    /// 20 bits.
    pub flow_label: u32,
    pub hop_limit: u8,
    pub extensions: Vec<Extension>,
    /// What follows the last extension header.
    pub protocol: u8,
    pub version: u8,
    pub payload_length: Option<u16>,
}

/// An IPv6 extension header (RFC 8200 §4).
#[derive(Clone, Debug, PartialEq)]
pub struct Extension {
    /// By which the header before announces it.
    pub kind: u8,
    /// Everything behind the next-header byte.
    pub body: Vec<u8>,
}

impl Extension {
    pub const DESTINATION_OPTIONS: u8 = 60;
    pub const FRAGMENT: u8 = 44;
    pub const HOP_BY_HOP: u8 = 0;
    pub const ROUTING: u8 = 43;

    /// One of `kind` of `8 * (1 + units)` bytes, filled with a PadN option.
    pub fn new(kind: u8, units: u8) -> Self {
        let padding = 8 * usize::from(units) + 4;
        let mut body = vec![units, 1, padding.min(255) as u8];
        body.resize(8 * (1 + usize::from(units)) - 1, 0);
        Self { kind, body }
    }

    /// A fragment header; `offset` in units of 8 bytes.
    pub fn fragment(offset: u16, more: bool) -> Self {
        let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
        Self {
            kind: Self::FRAGMENT,
            body: vec![0, high, low, 0xde, 0xad, 0xbe, 0xef],
        }
    }
}

impl Network {
    /// A header without anything special.
    ///
    /// # Panics
    ///
    /// If the addresses are of different families.
    pub fn new(source: IpAddr, destination: IpAddr) -> Self {
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Self::V4(Ipv4 {
                source,
                destination,
                service_type: 0,
                identification: 0x4711,
                fragment: 0x4000,
                ttl: 64,
                protocol: 6,
                options: Vec::new(),
                version: 4,
                header_length: None,
                total_length: None,
                checksum_error: 0,
            }),
            (IpAddr::V6(source), IpAddr::V6(destination)) => Self::V6(Ipv6 {
                source,
                destination,
                traffic_class: 0,
                flow_label: 0x1_2345,
                hop_limit: 64,
                extensions: Vec::new(),
                protocol: 6,
                version: 6,
                payload_length: None,
            }),
            _ => panic!("{source} and {destination} are of different families"),
        }
    }

    pub(super) fn ether_type(&self) -> u16 {
        match self {
            Self::V4(_) => 0x0800,
            Self::V6(_) => 0x86dd,
        }
    }

    /// The pseudo-header of a TCP segment of `length` bytes (RFC 9293 §3.1, RFC 8200 §8.1).
    pub(super) fn pseudo_header(&self, length: usize) -> Vec<u8> {
        let length = length as u32;
        match self {
            Self::V4(ip) => pseudo_header(&ip.source.octets(), &ip.destination.octets(), length),
            Self::V6(ip) => pseudo_header(&ip.source.octets(), &ip.destination.octets(), length),
        }
    }

    /// The header in front of `payload`.
    pub(super) fn build(&self, payload: &[u8]) -> Vec<u8> {
        let mut bytes = match self {
            Self::V4(ip) => ip.build(payload.len()),
            Self::V6(ip) => ip.build(payload.len()),
        };
        bytes.extend_from_slice(payload);
        bytes
    }
}

pub(super) fn pseudo_header(source: &[u8], destination: &[u8], length: u32) -> Vec<u8> {
    let tail = [0, 0, 0, 6];
    [source, destination, &length.to_be_bytes(), &tail].concat()
}

impl Ipv4 {
    fn build(&self, payload: usize) -> Vec<u8> {
        let mut options = self.options.clone();
        options.resize(options.len().next_multiple_of(4), 0);
        let length = 20 + options.len();
        let words = self.header_length.unwrap_or((length / 4) as u8);
        let total = self.total_length.unwrap_or((length + payload) as u16);
        let mut bytes = vec![self.version << 4 | words, self.service_type];
        bytes.extend_from_slice(&total.to_be_bytes());
        bytes.extend_from_slice(&self.identification.to_be_bytes());
        bytes.extend_from_slice(&self.fragment.to_be_bytes());
        bytes.extend_from_slice(&[self.ttl, self.protocol, 0, 0]);
        bytes.extend_from_slice(&self.source.octets());
        bytes.extend_from_slice(&self.destination.octets());
        bytes.extend_from_slice(&options);
        let check = wrong_by(checksum(&[&bytes]), self.checksum_error);
        bytes[10..12].copy_from_slice(&check.to_be_bytes());
        bytes
    }
}

impl Ipv6 {
    fn build(&self, payload: usize) -> Vec<u8> {
        let extensions: usize = self.extensions.iter().map(|e| 1 + e.body.len()).sum();
        let length = self.payload_length.unwrap_or((extensions + payload) as u16);
        let first = u32::from(self.version) << 28
            | u32::from(self.traffic_class) << 20
            | self.flow_label & 0xf_ffff;
        let mut kinds = self.extensions.iter().map(|extension| extension.kind);
        let mut bytes = first.to_be_bytes().to_vec();
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.push(kinds.next().unwrap_or(self.protocol));
        bytes.push(self.hop_limit);
        bytes.extend_from_slice(&self.source.octets());
        bytes.extend_from_slice(&self.destination.octets());
        for extension in &self.extensions {
            bytes.push(kinds.next().unwrap_or(self.protocol));
            bytes.extend_from_slice(&extension.body);
        }
        bytes
    }
}
