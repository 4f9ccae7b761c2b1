//! TCP segments without data.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use lb_common::tcp::Flags;

use super::ip::{Addresses, TCP};

/// Of a TCP header without options.
const LENGTH: usize = 20;

/// A segment that is to be sent: without data and options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub addresses: Addresses,
    pub source_port: u16,
    pub destination_port: u16,
    pub sequence: u32,
    pub acknowledgement: u32,
    /// Of [`Flags`].
    pub flags: u8,
    pub window: u16,
}

impl Segment {
    /// The IP packet.
    pub fn packet(&self) -> Vec<u8> {
        let mut header = Vec::with_capacity(LENGTH);
        header.extend(self.source_port.to_be_bytes());
        header.extend(self.destination_port.to_be_bytes());
        header.extend(self.sequence.to_be_bytes());
        header.extend(self.acknowledgement.to_be_bytes());
        header.extend([(LENGTH as u8 / 4) << 4, self.flags]);
        header.extend(self.window.to_be_bytes());
        // Checksum and urgent pointer.
        header.extend([0; 4]);
        let checksum = self.addresses.transport_checksum(TCP, &header);
        header[16..18].copy_from_slice(&checksum);
        self.addresses.packet(TCP, 0, &header)
    }
}

/// What a segment that was heard says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub acknowledgement: u32,
    pub flags: Flags,
}

impl Heard {
    /// Reads an IP packet; `None`: it is not TCP, or too short. A segment behind IPv6 extension
    /// headers is none here: nobody puts them before the answer to a SYN. Checksums are left to
    /// the sender: where that is a neighbour on the same machine, they may not be complete.
    pub fn parse(packet: &[u8]) -> Option<Self> {
        let (source, destination, transport): (IpAddr, IpAddr, usize) = match packet.first()? >> 4 {
            4 => {
                let protocol = *packet.get(9)?;
                let fragment = u16::from_be_bytes(array(packet, 6)?) & 0x1fff;
                if protocol != TCP || fragment != 0 {
                    return None;
                }
                (
                    Ipv4Addr::from(array(packet, 12)?).into(),
                    Ipv4Addr::from(array(packet, 16)?).into(),
                    usize::from(packet[0] & 0xf) * 4,
                )
            }
            6 if *packet.get(6)? == TCP => (
                Ipv6Addr::from(array::<16>(packet, 8)?).into(),
                Ipv6Addr::from(array::<16>(packet, 24)?).into(),
                40,
            ),
            _ => return None,
        };
        let tcp = packet.get(transport..).filter(|tcp| tcp.len() >= LENGTH)?;
        let port = |at| array(tcp, at).map(u16::from_be_bytes);
        Some(Self {
            source: (source, port(0)?).into(),
            destination: (destination, port(2)?).into(),
            acknowledgement: u32::from_be_bytes(array(tcp, 8)?),
            flags: Flags::new(tcp[13]),
        })
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn syn(source: &str, destination: &str) -> Segment {
        let addresses = Addresses::new(source.parse().unwrap(), destination.parse().unwrap());
        Segment {
            addresses: addresses.unwrap(),
            source_port: 40_000,
            destination_port: 80,
            sequence: 0x0102_0304,
            acknowledgement: 0,
            flags: Flags::SYN,
            window: u16::MAX,
        }
    }

    /// S-DSR-3: byte for byte; the checksums are those of another implementation.
    #[test]
    fn a_syn_is_whole() {
        let packet = syn("10.2.0.1", "192.0.2.10").packet();
        #[rustfmt::skip]
        let expected = [
            0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0x6e, 0xc3, 10, 2, 0, 1, 192, 0, 2, 10,
            0x9c, 0x40, 0, 80, 1, 2, 3, 4, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0x43, 0x3f, 0, 0,
        ];
        assert_eq!(packet, expected);

        let packet = syn("fd00:2::1", "2001:db8::10").packet();
        assert_eq!(packet[..8], [0x60, 0, 0, 0, 0, 20, 6, 64]);
        assert_eq!(packet.len(), 60);
    }

    #[test]
    fn what_is_sent_can_be_heard() {
        for (source, destination) in [("10.2.0.1", "192.0.2.10"), ("fd00:2::1", "2001:db8::10")] {
            let packet = syn(source, destination).packet();
            let heard = Heard::parse(&packet).unwrap();
            assert_eq!(
                heard.source,
                (source.parse::<IpAddr>().unwrap(), 40_000).into()
            );
            assert_eq!(
                heard.destination,
                (destination.parse::<IpAddr>().unwrap(), 80).into()
            );
            assert!(heard.flags.syn() && !heard.flags.ack() && heard.acknowledgement == 0);
            for length in 0..packet.len() {
                assert_eq!(Heard::parse(&packet[..length]), None, "{length}");
            }
        }
    }

    #[test]
    fn options_are_skipped_and_fragments_are_none() {
        let mut packet = syn("10.2.0.1", "192.0.2.10").packet();
        packet[0] = 0x46;
        packet.splice(20..20, [1, 1, 1, 0]);
        assert_eq!(Heard::parse(&packet).unwrap().destination.port(), 80);
        packet[7] = 1;
        assert_eq!(Heard::parse(&packet), None);
        packet[7] = 0;
        packet[9] = 17;
        assert_eq!(Heard::parse(&packet), None);
    }
}
