//! Packets with something odd or wrong in them.

use super::{random::Random, traffic::limits, world::World};
use crate::packets::{Extension, Icmp, Ipv4, Ipv6, Network, Packet};

/// Does one to three odd things to a description, from which a frame is built with whatever
/// lengths and checksums fit.
pub(super) fn packet(random: &mut Random, mut packet: Packet, world: &World) -> Packet {
    for _ in 0..random.range(1..=3) {
        match random.below(10) {
            0..4 => match &mut packet.network {
                Network::V4(ip) => ipv4(random, ip),
                Network::V6(ip) => ipv6(random, ip),
            },
            4 => {
                packet.tcp.data_offset = Some(random.byte() & 0xf);
            }
            5 => packet.tcp.checksum_error = random.of(&[1, 0x8000, 0xfffe, 0x1234]),
            6 => packet.tcp.options = tcp_options(random),
            7 => {
                let count = random.below(40);
                packet.padding = random.bytes(count);
            }
            8 => {
                packet.tcp.urgent = random.word();
                packet.tcp.window = random.word();
            }
            _ => {
                if let Some(limit) = random.pick(&limits(world)) {
                    let wanted = usize::from(*limit) + random.below(2);
                    let without = packet.ip_length() - packet.tcp.payload.len();
                    packet.tcp.payload = random.bytes(wanted.saturating_sub(without));
                }
            }
        }
    }
    packet
}

/// The same to an ICMP message.
pub(super) fn message(random: &mut Random, message: &mut Icmp) {
    match random.below(6) {
        0..4 => match &mut message.network {
            Network::V4(ip) => ipv4(random, ip),
            Network::V6(ip) => ipv6(random, ip),
        },
        4 => message.checksum_error = random.of(&[1, 0x8000, 0xfffe, 0x1234]),
        _ => {
            let count = random.below(40);
            message.padding = random.bytes(count);
        }
    }
}

fn ipv4(random: &mut Random, ip: &mut Ipv4) {
    match random.below(12) {
        0 | 1 => {
            let words = random.range(1..=10);
            ip.options = random.bytes(4 * words);
        }
        2 => ip.ttl = random.of(&[0, 1, 2, 255]),
        3 => ip.service_type = random.byte(),
        4 => ip.checksum_error = random.of(&[1, 0x0100, 0xfffe]),
        5 => ip.total_length = Some(random.of(&[0, 19, 20, 39, 40, 41, 60, 1500, 0xffff])),
        6 => ip.fragment = random.of(&[0x2000, 0x6000, 0x1fff, 1, 0x8000, 0xc000, 0]),
        7 => ip.header_length = Some(random.byte() & 0xf),
        8 => ip.version = random.of(&[0, 5, 6, 15]),
        9 => ip.protocol = random.of(&[1, 17, 58, 132, 41, 4]),
        10 => ip.identification = random.word(),
        _ => ip.fragment = 0,
    }
}

fn ipv6(random: &mut Random, ip: &mut Ipv6) {
    match random.below(12) {
        0..4 => {
            let count = random.of(&[1, 1, 2, 3, 5, 6, 7]);
            ip.extensions = (0..count).map(|_| extension(random)).collect();
        }
        4 => ip.hop_limit = random.of(&[0, 1, 2, 255]),
        5 => ip.traffic_class = random.byte(),
        6 => ip.payload_length = Some(random.of(&[0, 19, 20, 21, 28, 1460, 0xffff])),
        7 => ip.version = random.of(&[0, 4, 5, 15]),
        8 => ip.protocol = random.of(&[17, 58, 59, 50, 132, 43]),
        9 => ip.flow_label = random.bits() as u32,
        _ => ip.extensions = vec![extension(random)],
    }
}

fn extension(random: &mut Random) -> Extension {
    match random.below(8) {
        0 => Extension::fragment(0, false),
        1 if random.chance(30) => Extension::fragment(random.word(), random.chance(50)),
        2 if random.chance(20) => Extension::new(Extension::DESTINATION_OPTIONS, random.byte()),
        _ => {
            let kind = random.of(&[
                Extension::HOP_BY_HOP,
                Extension::ROUTING,
                Extension::DESTINATION_OPTIONS,
            ]);
            Extension::new(kind, random.of(&[0, 0, 1, 2, 5]))
        }
    }
}

/// TCP options, well-formed more often than not, an MSS among them anywhere.
pub(super) fn tcp_options(random: &mut Random) -> Vec<u8> {
    let mut options = Vec::new();
    for _ in 0..random.range(0..=6) {
        match random.below(10) {
            0..3 => {
                let [high, low] = random
                    .of(&[536_u16, 1460, 1440, 100, 65_495, 0, 640])
                    .to_be_bytes();
                options.extend_from_slice(&[2, 4, high, low]);
            }
            3..5 => options.push(1),
            5 => options.extend_from_slice(&[3, 3, 7]),
            6 => options.extend_from_slice(&[4, 2]),
            7 => {
                options.extend_from_slice(&[8, 10]);
                options.extend_from_slice(&random.bytes(8));
            }
            8 => {
                // Another kind with a length that may lie.
                let length = random.below(6);
                options.extend_from_slice(&[random.byte(), random.below(8) as u8]);
                options.extend_from_slice(&random.bytes(length));
            }
            _ => options.extend_from_slice(&[2, random.below(6) as u8, 0xff, 0xff]),
        }
    }
    options.truncate(40);
    options
}

/// Does something to the bytes; nothing fits any more.
pub(super) fn frame(random: &mut Random, frame: &mut Vec<u8>) {
    match random.below(8) {
        0..4 => {
            for _ in 0..random.range(1..=3) {
                // Headers are where it matters.
                let end = if random.chance(80) { 90 } else { frame.len() };
                let at = random.below(frame.len().min(end));
                frame[at] ^= 1 << random.below(8);
            }
        }
        4 | 5 => {
            let length = random.range(14..=frame.len());
            frame.truncate(length);
        }
        6 => {
            let at = random.range(12..=frame.len() - 2);
            let word = random.of(&[0, 0xffff, 0x8100, 0x88a8, 0x0800, 0x86dd]);
            frame[at..at + 2].copy_from_slice(&u16::to_be_bytes(word));
        }
        _ => {
            let count = random.below(64);
            let bytes = random.bytes(count);
            frame.extend_from_slice(&bytes);
        }
    }
}
