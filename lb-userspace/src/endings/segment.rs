//! Bare ACKs as whole Ethernet frames.

use std::hash::{BuildHasher as _, RandomState};

use lb_common::{
    records::{Hop, VlanTag},
    tcp::Flags,
};

use crate::{
    dataplane::Prod,
    wire::{Addresses, Link, Segment, frame},
};

/// Sequence and acknowledgement numbers that nobody can foresee (RFC 5961 §1: who could, might
/// have them hit a window).
pub(super) struct Numbers {
    key: RandomState,
    drawn: u64,
}

impl Numbers {
    pub(super) fn new() -> Self {
        Self {
            key: RandomState::new(),
            drawn: 0,
        }
    }

    pub(super) fn draw(&mut self) -> (u32, u32) {
        self.drawn += 1;
        let number = self.key.hash_one(self.drawn);
        ((number >> 32) as u32, number as u32)
    }
}

/// A segment with ACK and nothing else (RFC 9293 §3.1), as it leaves by this way; `None` where the
/// two ends are not of one address family.
pub(super) fn ack(prod: &Prod, sequence: u32, acknowledgement: u32) -> Option<Vec<u8>> {
    let Prod { hop, from, to } = prod;
    let segment = Segment {
        addresses: Addresses::new(from.ip(), to.ip())?,
        source_port: from.port(),
        destination_port: to.port(),
        sequence,
        acknowledgement,
        flags: Flags::ACK,
        window: 0,
    };
    Some(frame(&link(hop), &segment.packet()))
}

fn link(hop: &Hop) -> Link {
    let tags = hop.tags().into_iter().take(usize::from(hop.tag_count()));
    Link {
        destination: hop.destination().bytes(),
        source: hop.source().bytes(),
        tags: tags
            .map(
                |VlanTag {
                     tpid: [a, b],
                     tci: [c, d],
                 }| [a, b, c, d],
            )
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use lb_common::{checksum, records::Mac};

    use super::*;

    /// The Internet checksum (RFC 1071) of an even number of bytes, as it stands in a packet.
    fn sum(bytes: &[u8]) -> [u8; 2] {
        let words = bytes.chunks_exact(2);
        let sum = words.map(|word| u32::from(u16::from_ne_bytes([word[0], word[1]])));
        (!checksum::fold(sum.sum())).to_ne_bytes()
    }

    fn hop(tags: &[[u8; 4]]) -> Hop {
        let [destination, source] = [1, 2].map(|last| Mac::new([2, 0, 0, 0, 0, last]));
        let mut both = [VlanTag::default(); 2];
        for (tag, [a, b, c, d]) in both.iter_mut().zip(tags) {
            *tag = VlanTag {
                tpid: [*a, *b],
                tci: [*c, *d],
            };
        }
        Hop::new(destination, source, 7).tagged(tags.len() as u16, both)
    }

    fn prod(from: &str, to: &str, tags: &[[u8; 4]]) -> Prod {
        Prod {
            hop: hop(tags),
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
        }
    }

    /// The checksums were computed by another program.
    #[test]
    fn an_ipv4_frame_byte_by_byte() {
        let prod = prod("192.0.2.10:80", "198.51.100.7:40000", &[]);
        let frame = ack(&prod, 0x0102_0304, 0xfffe_fdfc).unwrap();
        let expected = [
            &[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00][..],
            &[0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0x4e, 0x8b],
            &[192, 0, 2, 10, 198, 51, 100, 7],
            &[0, 80, 0x9c, 0x40, 1, 2, 3, 4, 0xff, 0xfe, 0xfd, 0xfc],
            &[0x50, 0x10, 0, 0, 0x24, 0xfd, 0, 0],
        ];
        assert_eq!(frame, expected.concat(), "{frame:02x?}");
    }

    #[test]
    fn checksums_verify_in_both_families() {
        for (from, to, network, pseudo) in [
            ("192.0.2.10:80", "198.51.100.7:40000", 20, 12..20),
            ("[2001:db8::10]:80", "[2001:db8:c::7]:65535", 40, 8..40),
        ] {
            for (sequence, acknowledgement) in [(0, 0), (u32::MAX, u32::MAX), (0xdead, 0xbeef)] {
                let frame = ack(&prod(from, to, &[]), sequence, acknowledgement).unwrap();
                let (ip, tcp) = frame[14..].split_at(network);
                assert_eq!(tcp.len(), 20);
                if network == 20 {
                    assert_eq!(sum(ip), [0, 0]);
                }
                let whole = [&ip[pseudo.clone()], &[0, 6, 0, 20], tcp].concat();
                assert_eq!(sum(&whole), [0, 0], "{from}");
            }
        }
    }

    /// S-FWD-6: by the tags that the client's packets came with.
    #[test]
    fn tags_are_put_in_front() {
        let tags = [[0x88, 0xa8, 0, 100], [0x81, 0, 0, 7]];
        let tagged = prod("[fd00::1]:80", "[fd00::2]:5", &tags);
        let plain = ack(&prod("[fd00::1]:80", "[fd00::2]:5", &[]), 1, 2).unwrap();
        let frame = ack(&tagged, 1, 2).unwrap();
        assert_eq!(frame[..12], plain[..12]);
        assert_eq!(frame[12..20], tags.concat());
        assert_eq!(frame[20..], plain[12..]);
    }

    #[test]
    fn families_do_not_mix() {
        assert_eq!(ack(&prod("[fd00::1]:80", "10.0.0.1:5", &[]), 1, 2), None);
    }

    #[test]
    fn numbers_are_not_repeated() {
        let (mut one, mut other) = (Numbers::new(), Numbers::new());
        let drawn: std::collections::HashSet<_> =
            (0..1000).flat_map(|_| [one.draw(), other.draw()]).collect();
        assert_eq!(drawn.len(), 2000);
    }
}
