//! Frames for the generator, and a check of those that come back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use lb_common::lab::{Generator, Layout};

pub(in crate::bench) const SYN: u8 = 0x02;
pub(in crate::bench) const ACK: u8 = 0x10;
pub(in crate::bench) const SYN_ACK: u8 = SYN | ACK;

const ETHERNET: usize = 14;
const IPV4: usize = 20;
const IPV6: usize = 40;
const UDP_HEADER: usize = 8;
const HOP_LIMIT: u8 = 64;

/// Protocol numbers.
const IPV4_INSIDE: u8 = 4;
const TCP: u8 = 6;
const UDP: u8 = 17;
const IPV6_INSIDE: u8 = 41;

/// Which of the programs in `lb-lab` makes the frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::bench) enum Maker {
    /// Requests.
    Request,
    /// Requests, for a program that puts a header in front.
    Tunnelled,
    Reply,
    /// Replies to flows that are in the list.
    ListedReply,
    /// Requests of one client to many services' addresses, IPv4: of flows that are in the list.
    Spread,
}

/// A frame between a service or backend and the clients of one network, whose lowest 16 bits and
/// ports the generator makes. With [`Maker::Spread`] it makes the service's lowest 16 bits instead.
#[derive(Clone, Copy, Debug)]
pub(in crate::bench) struct Template {
    pub(in crate::bench) maker: Maker,
    pub(in crate::bench) clients: IpAddr,
    /// The client's port of flow 0.
    pub(in crate::bench) port: u16,
    pub(in crate::bench) other: SocketAddr,
    pub(in crate::bench) flags: u8,
}

impl Template {
    /// The program in `lb-lab` that makes this frame.
    pub(in crate::bench) fn generator(&self) -> &'static str {
        match (self.maker, self.other.is_ipv4()) {
            (Maker::Request, true) => "request4",
            (Maker::Request, false) => "request6",
            (Maker::Tunnelled, true) => "tunnelled4",
            (Maker::Tunnelled, false) => "tunnelled6",
            (Maker::Reply, true) => "reply4",
            (Maker::Reply, false) => "reply6",
            (Maker::ListedReply, true) => "listed_reply4",
            (Maker::ListedReply, false) => "listed_reply6",
            (Maker::Spread, _) => "spread4",
        }
    }

    /// Bytes of the frame.
    pub(in crate::bench) fn length(&self) -> usize {
        let words = if self.other.is_ipv4() {
            Generator::WORDS4
        } else {
            Generator::WORDS6
        };
        words * size_of::<u64>()
    }

    /// The frame of flow 0.
    pub(in crate::bench) fn words(&self) -> [u64; Generator::WORDS6] {
        let client = SocketAddr::new(self.clients, self.port);
        let (source, destination) = match self.maker {
            Maker::Request | Maker::Tunnelled | Maker::Spread => (client, self.other),
            Maker::Reply | Maker::ListedReply => (self.other, client),
        };
        let mut frame = [0; Generator::WORDS6 * size_of::<u64>()];
        frame[..6].copy_from_slice(&BALANCER);
        frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 2]);
        let segment = match (source.ip(), destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                frame[12..14].copy_from_slice(&[0x08, 0x00]);
                let ip = &mut frame[ETHERNET..ETHERNET + IPV4];
                ip[0] = 0x45;
                ip[2..4].copy_from_slice(&40u16.to_be_bytes());
                ip[8..10].copy_from_slice(&[HOP_LIMIT, TCP]);
                ip[12..16].copy_from_slice(&source.octets());
                ip[16..20].copy_from_slice(&destination.octets());
                let checksum = !sum(ip);
                ip[10..12].copy_from_slice(&checksum.to_be_bytes());
                ETHERNET + IPV4
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                frame[12..14].copy_from_slice(&[0x86, 0xdd]);
                let ip = &mut frame[ETHERNET..ETHERNET + IPV6];
                ip[0] = 0x60;
                ip[4..6].copy_from_slice(&20u16.to_be_bytes());
                ip[6..8].copy_from_slice(&[TCP, HOP_LIMIT]);
                ip[8..24].copy_from_slice(&source.octets());
                ip[24..40].copy_from_slice(&destination.octets());
                ETHERNET + IPV6
            }
            _ => unreachable!("a template's clients are of the other side's family"),
        };
        let tcp = &mut frame[segment..segment + 20];
        tcp[0..2].copy_from_slice(&source.port().to_be_bytes());
        tcp[2..4].copy_from_slice(&destination.port().to_be_bytes());
        tcp[12] = 5 << 4;
        tcp[13] = self.flags;
        tcp[14..16].copy_from_slice(&0xffff_u16.to_be_bytes());
        let packet = &frame[ETHERNET..self.length()];
        if let Some(Packet {
            pseudo_sum,
            payload,
            ..
        }) = Packet::parse(packet)
        {
            let checksum = !add(pseudo_sum, sum(payload));
            let at = self.layout().tcp_checksum;
            frame[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        }
        let mut words = frame.chunks_exact(size_of::<u64>());
        std::array::from_fn(|_| {
            let word = words.next().and_then(|word| word.try_into().ok());
            u64::from_ne_bytes(word.unwrap_or_default())
        })
    }

    fn layout(&self) -> Layout {
        if self.other.is_ipv4() {
            Layout::REQUEST4
        } else {
            Layout::REQUEST6
        }
    }
}

/// The Ethernet address that all frames are sent to.
pub(in crate::bench) const BALANCER: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// An IP packet without options and extension headers.
struct Packet<'f> {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    payload: &'f [u8],
    header_holds: bool,
    /// Of addresses, protocol and length: what TCP and UDP add to their checksum.
    pseudo_sum: u16,
}

impl<'f> Packet<'f> {
    /// `None` for anything else, and for what is shorter than it says.
    fn parse(packet: &'f [u8]) -> Option<Self> {
        let number = |at: usize| Some(u16::from_be_bytes(packet.get(at..at + 2)?.try_into().ok()?));
        let (source, destination, protocol, payload, addresses, header_holds);
        if packet.first()? == &0x45 {
            let bytes = |at: usize| -> Option<[u8; 4]> { packet.get(at..at + 4)?.try_into().ok() };
            (source, destination) = (
                Ipv4Addr::from(bytes(12)?).into(),
                Ipv4Addr::from(bytes(16)?).into(),
            );
            protocol = *packet.get(9)?;
            payload = packet.get(IPV4..usize::from(number(2)?))?;
            addresses = sum(packet.get(12..20)?);
            header_holds = sum(packet.get(..IPV4)?) == 0xffff;
        } else if packet.first()? >> 4 == 6 {
            let bytes =
                |at: usize| -> Option<[u8; 16]> { packet.get(at..at + 16)?.try_into().ok() };
            (source, destination) = (
                Ipv6Addr::from(bytes(8)?).into(),
                Ipv6Addr::from(bytes(24)?).into(),
            );
            protocol = *packet.get(6)?;
            payload = packet.get(IPV6..IPV6 + usize::from(number(4)?))?;
            addresses = sum(packet.get(8..40)?);
            header_holds = true;
        } else {
            return None;
        }
        Some(Self {
            source,
            destination,
            protocol,
            payload,
            header_holds,
            pseudo_sum: add(addresses, add(u16::from(protocol), payload.len() as u16)),
        })
    }

    /// Whether all checksums hold, those of the packet inside included.
    fn holds(&self) -> bool {
        let transport = add(self.pseudo_sum, sum(self.payload)) == 0xffff;
        let inside = |packet: Option<&'f [u8]>| {
            packet
                .and_then(Packet::parse)
                .is_some_and(|packet| packet.holds())
        };
        self.header_holds
            && match self.protocol {
                TCP => transport,
                UDP => transport && inside(self.payload.get(UDP_HEADER..)),
                IPV4_INSIDE | IPV6_INSIDE => inside(Some(self.payload)),
                _ => false,
            }
    }
}

/// Whether the checksums of a frame without VLAN tags hold.
pub(in crate::bench) fn checksums_hold(frame: &[u8]) -> bool {
    let packet = frame.get(ETHERNET..).and_then(Packet::parse);
    packet.is_some_and(|packet| packet.holds())
}

/// Source and destination of a frame without VLAN tags: ports are TCP's, or 0 of anything else.
pub(in crate::bench) fn endpoints(frame: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let packet = Packet::parse(frame.get(ETHERNET..)?)?;
    let port = |at: usize| {
        let bytes = packet
            .payload
            .get(at..at + 2)
            .filter(|_| packet.protocol == TCP);
        bytes.map_or(0, |bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    };
    Some((
        SocketAddr::new(packet.source, port(0)),
        SocketAddr::new(packet.destination, port(2)),
    ))
}

/// What the generator is to add to an address whose low 16 bits are zero, and to a port that is
/// zero, to make these of them.
pub(in crate::bench) fn number(endpoint: SocketAddr) -> u32 {
    let low = match endpoint.ip() {
        IpAddr::V4(address) => [address.octets()[2], address.octets()[3]],
        IpAddr::V6(address) => [address.octets()[14], address.octets()[15]],
    };
    u32::from(u16::from_ne_bytes(low)) | u32::from(endpoint.port()) << 16
}

/// Ones' complement sum of big-endian words (RFC 1071); an odd byte is followed by a zero.
fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2);
    let sum = words
        .map(|word| u32::from(word[0]) << 8 | word.get(1).map_or(0, |&low| u32::from(low)))
        .sum();
    lb_common::checksum::fold(sum)
}

fn add(one: u16, other: u16) -> u16 {
    lb_common::checksum::fold(u32::from(one) + u32::from(other))
}

#[cfg(test)]
mod tests {
    use lb_common::lab::FIRST_PORT;

    use super::*;

    fn frame(maker: Maker, clients: &str, other: &str) -> Vec<u8> {
        let template = Template {
            maker,
            clients: clients.parse().unwrap(),
            port: FIRST_PORT,
            other: other.parse().unwrap(),
            flags: SYN,
        };
        let words = template.words();
        let mut frame: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        frame.truncate(template.length());
        frame
    }

    #[test]
    fn templates_have_right_checksums_and_others_are_noticed() {
        for (clients, other) in [
            ("10.1.0.0", "192.0.2.1:80"),
            ("2001:db8:1::", "[2001:db8::1]:80"),
        ] {
            for maker in [Maker::Request, Maker::Reply] {
                let mut frame = frame(maker, clients, other);
                assert!(checksums_hold(&frame));
                frame[35] ^= 1;
                assert!(!checksums_hold(&frame));
            }
        }
    }

    #[test]
    fn the_packet_in_a_tunnel_is_checked_too() {
        let inner = frame(Maker::Request, "10.1.0.0", "192.0.2.1:80");
        let mut outer = inner[..ETHERNET + IPV4].to_vec();
        outer[17] = 60;
        outer[23] = IPV4_INSIDE;
        outer[24..26].fill(0);
        let checksum = !sum(&outer[ETHERNET..]);
        outer[24..26].copy_from_slice(&checksum.to_be_bytes());
        outer.extend_from_slice(&inner[ETHERNET..]);
        assert!(checksums_hold(&outer));
        outer[ETHERNET + IPV4 + 12] ^= 1;
        assert!(!checksums_hold(&outer));
    }

    #[test]
    fn a_number_makes_an_endpoint_of_its_network() {
        let frame = frame(Maker::Request, "10.1.2.3", "192.0.2.1:80");
        let (source, destination) = endpoints(&frame).unwrap();
        assert_eq!(source, "10.1.2.3:32768".parse().unwrap());
        assert_eq!(destination, "192.0.2.1:80".parse().unwrap());
        let [a, b, ..] = number(source).to_ne_bytes();
        if cfg!(target_endian = "little") {
            assert_eq!([a, b], [2, 3]);
        }
        assert_eq!(number(source) >> 16, 32768);
    }
}
