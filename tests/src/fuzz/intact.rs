//! Checksums of frames, computed in full: what came in right goes out right, and what was wrong
//! stays wrong. Knows nothing of what the model or the program made of a frame.

use crate::model::verifies;

/// What the checksums of a frame say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sums {
    /// Every IPv4 header's.
    ip: bool,
    /// Every transport checksum that is there: TCP's and, around it, UDP's.
    transport: bool,
}

/// Compares a frame with what became of it; the difference in words.
pub(super) fn compare(before: &[u8], after: &[u8]) -> Result<(), String> {
    let Some(after_sums) = frame(after) else {
        return Err("what went out is no packet".to_owned());
    };
    if !after_sums.ip {
        return Err("an IPv4 header's checksum is wrong".to_owned());
    }
    match frame(before) {
        Some(before) if before.transport && !after_sums.transport => {
            Err("a right checksum became wrong".to_owned())
        }
        Some(before) if !before.transport && after_sums.transport => {
            Err("a wrong checksum became right".to_owned())
        }
        _ => Ok(()),
    }
}

/// An answer of the balancer's own is right, whatever it answers.
pub(super) fn answer(frame_out: &[u8]) -> Result<(), String> {
    match frame(frame_out) {
        Some(Sums {
            ip: true,
            transport: true,
        }) => Ok(()),
        sums => Err(format!("an answer with wrong checksums: {sums:?}")),
    }
}

fn frame(frame: &[u8]) -> Option<Sums> {
    let mut at = 12;
    while matches!(frame.get(at..at + 2)?, [0x81, 0x00] | [0x88, 0xa8]) {
        at += 4;
    }
    let packet = frame.get(at + 2..)?;
    match frame.get(at..at + 2)? {
        [0x08, 0x00] => ipv4(packet),
        [0x86, 0xdd] => ipv6(packet),
        _ => None,
    }
}

fn ipv4(packet: &[u8]) -> Option<Sums> {
    let header = usize::from(packet.first()? & 0xf) * 4;
    let length = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
    let payload = packet.get(header..length)?;
    let mut sums = inside(packet[9], payload, packet.get(12..20)?)?;
    sums.ip &= verifies(&[&packet[..header]]);
    Some(sums)
}

fn ipv6(packet: &[u8]) -> Option<Sums> {
    let length = 40 + usize::from(u16::from_be_bytes([*packet.get(4)?, *packet.get(5)?]));
    let mut next = *packet.get(6)?;
    let mut at = 40;
    while [0, 43, 44, 60].contains(&next) {
        let units = if next == 44 {
            0
        } else {
            usize::from(*packet.get(at + 1)?)
        };
        next = *packet.get(at)?;
        at += 8 + 8 * units;
    }
    inside(next, packet.get(at..length)?, packet.get(8..40)?)
}

/// `payload` of a protocol between these two addresses.
fn inside(protocol: u8, payload: &[u8], addresses: &[u8]) -> Option<Sums> {
    let pseudo = [
        addresses,
        &(payload.len() as u32).to_be_bytes(),
        &[0, 0, 0, protocol],
    ]
    .concat();
    match protocol {
        4 => ipv4(payload),
        41 => ipv6(payload),
        1 => Some(Sums {
            ip: true,
            transport: verifies(&[payload]),
        }),
        6 | 58 => Some(Sums {
            ip: true,
            transport: verifies(&[&pseudo, payload]),
        }),
        17 => {
            let inner = match payload.get(8)? >> 4 {
                4 => ipv4(&payload[8..]),
                _ => ipv6(&payload[8..]),
            }?;
            let without = payload[6..8] == [0, 0];
            let own = verifies(&[&pseudo, payload]);
            // UDP and TCP are right and wrong together.
            let agree = without || own == inner.transport;
            agree.then_some(inner)
        }
        _ => None,
    }
}
