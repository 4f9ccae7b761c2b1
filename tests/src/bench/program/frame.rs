//! Frames for the generator, and a check of those that come back.

use std::net::{IpAddr, SocketAddr};

use lb_common::lab::{FIRST_PORT, Generator, Layout};

pub(super) const SYN: u8 = 0x02;
pub(super) const ACK: u8 = 0x10;
pub(super) const SYN_ACK: u8 = SYN | ACK;

const ETHERNET: usize = 14;
const TCP: u8 = 6;
const HOP_LIMIT: u8 = 64;

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Request,
    Reply,
}

/// A frame between a service or backend and the clients of one network, whose lowest 16 bits and
/// ports the generator makes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Template {
    pub(super) direction: Direction,
    pub(super) clients: IpAddr,
    pub(super) other: SocketAddr,
    pub(super) flags: u8,
}

impl Template {
    /// The program in `lb-lab` that makes this frame.
    pub(super) fn generator(&self) -> &'static str {
        match (self.direction, self.other.is_ipv4()) {
            (Direction::Request, true) => "request4",
            (Direction::Reply, true) => "reply4",
            (Direction::Request, false) => "request6",
            (Direction::Reply, false) => "reply6",
        }
    }

    /// Bytes of the frame.
    pub(super) fn length(&self) -> usize {
        let words = if self.other.is_ipv4() {
            Generator::WORDS4
        } else {
            Generator::WORDS6
        };
        words * size_of::<u64>()
    }

    /// The frame of flow 0.
    pub(super) fn words(&self) -> [u64; Generator::WORDS6] {
        let client = SocketAddr::new(self.clients, FIRST_PORT);
        let (source, destination) = match self.direction {
            Direction::Request => (client, self.other),
            Direction::Reply => (self.other, client),
        };
        let mut frame = [0; Generator::WORDS6 * size_of::<u64>()];
        frame[..6].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
        frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 2]);
        let segment = match (source.ip(), destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                frame[12..14].copy_from_slice(&[0x08, 0x00]);
                let ip = &mut frame[ETHERNET..34];
                ip[0] = 0x45;
                ip[2..4].copy_from_slice(&40u16.to_be_bytes());
                ip[8..10].copy_from_slice(&[HOP_LIMIT, TCP]);
                ip[12..16].copy_from_slice(&source.octets());
                ip[16..20].copy_from_slice(&destination.octets());
                let checksum = !sum(ip);
                ip[10..12].copy_from_slice(&checksum.to_be_bytes());
                34
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                frame[12..14].copy_from_slice(&[0x86, 0xdd]);
                let ip = &mut frame[ETHERNET..54];
                ip[0] = 0x60;
                ip[4..6].copy_from_slice(&20u16.to_be_bytes());
                ip[6..8].copy_from_slice(&[TCP, HOP_LIMIT]);
                ip[8..24].copy_from_slice(&source.octets());
                ip[24..40].copy_from_slice(&destination.octets());
                54
            }
            _ => unreachable!("a template's clients are of the other side's family"),
        };
        let tcp = &mut frame[segment..segment + 20];
        tcp[0..2].copy_from_slice(&source.port().to_be_bytes());
        tcp[2..4].copy_from_slice(&destination.port().to_be_bytes());
        tcp[12] = 5 << 4;
        tcp[13] = self.flags;
        tcp[14..16].copy_from_slice(&0xffff_u16.to_be_bytes());
        let checksum = !tcp_sum(&frame, self.other.is_ipv4());
        let at = self.layout().tcp_checksum;
        frame[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
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

/// Whether the checksums of a frame without VLAN tags and IP options hold.
pub(super) fn checksums_hold(frame: &[u8]) -> bool {
    match frame.get(12..14) {
        Some([0x08, 0x00]) if frame.len() >= 54 => {
            sum(&frame[ETHERNET..34]) == 0xffff && tcp_sum(frame, true) == 0xffff
        }
        Some([0x86, 0xdd]) if frame.len() >= 74 => tcp_sum(frame, false) == 0xffff,
        _ => false,
    }
}

/// Of pseudo-header and a header without payload (RFC 9293 §3.1).
fn tcp_sum(frame: &[u8], ipv4: bool) -> u16 {
    let (addresses, segment) = if ipv4 {
        (&frame[26..34], &frame[34..54])
    } else {
        (&frame[22..54], &frame[54..74])
    };
    sum(&[addresses, &[0, TCP, 0, 20], segment].concat())
}

/// Ones' complement sum of big-endian words (RFC 1071).
fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks_exact(2);
    let sum = words
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    lb_common::checksum::fold(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_have_right_checksums_and_others_are_noticed() {
        for (clients, other) in [
            ("10.1.0.0", "192.0.2.1:80"),
            ("2001:db8:1::", "[2001:db8::1]:80"),
        ] {
            for direction in [Direction::Request, Direction::Reply] {
                let template = Template {
                    direction,
                    clients: clients.parse().unwrap(),
                    other: other.parse().unwrap(),
                    flags: SYN,
                };
                let mut frame: Vec<u8> = template
                    .words()
                    .iter()
                    .flat_map(|word| word.to_ne_bytes())
                    .collect();
                frame.truncate(template.length());
                assert!(checksums_hold(&frame));
                frame[35] ^= 1;
                assert!(!checksums_hold(&frame));
            }
        }
    }
}
