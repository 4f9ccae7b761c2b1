//! Which packets the kernel copies to an ear, in classic BPF (`man 7 packet`, `SO_ATTACH_FILTER`).

use lb_common::tcp::Flags;

use super::{ip::TCP, socket::Family};

// linux/bpf_common.h
const LOAD_BYTE: u16 = 0x30;
const LOAD_HALF: u16 = 0x28;
/// At an offset from X.
const LOAD_BYTE_FROM_X: u16 = 0x50;
const LOAD_HALF_FROM_X: u16 = 0x48;
const X_IS: u16 = 0x01;
/// X = 4 × the lower half of the byte: an IPv4 header's length.
const X_IS_HEADER_LENGTH: u16 = 0xb1;
const AND: u16 = 0x54;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_ANY: u16 = 0x45;
const RETURN: u16 = 0x06;

/// Longer than the headers of IPv4 or IPv6 and of TCP, each with all options.
pub(super) const SNAP: u32 = 128;

/// Lets through what may answer a SYN: TCP segments with SYN and ACK, or with RST, that acknowledge
/// a number whose upper half is a given one.
///
/// A host gets few segments of this kind that are not answers to it, but whoever wants to drown
/// the others can send any number of them. Not knowing the number, he must send 65 536 for one to
/// come through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    pub family: Family,
    /// Upper half of the acknowledgement number.
    pub mark: u16,
}

/// Where a jump leads, as a place in the program.
struct Targets {
    accept: usize,
    refuse: usize,
}

impl Filter {
    /// The program for packets that begin with their IP header.
    pub(super) fn program(self) -> Vec<libc::sock_filter> {
        let head: &[(u16, u32)] = match self.family {
            // Only the first fragment of several has a TCP header.
            Family::V4 => &[
                (LOAD_BYTE, 9),
                (JUMP_IF_EQUAL, TCP as u32),
                (LOAD_HALF, 6),
                (JUMP_IF_ANY, 0x1fff),
                (X_IS_HEADER_LENGTH, 0),
            ],
            Family::V6 => &[(LOAD_BYTE, 6), (JUMP_IF_EQUAL, TCP as u32), (X_IS, 40)],
        };
        let syn_ack = u32::from(Flags::SYN | Flags::ACK);
        let tail = [
            (LOAD_HALF_FROM_X, 8),
            (JUMP_IF_EQUAL, u32::from(self.mark)),
            (LOAD_BYTE_FROM_X, 13),
            (JUMP_IF_ANY, u32::from(Flags::RST)),
            (AND, syn_ack),
            (JUMP_IF_EQUAL, syn_ack),
            (RETURN, SNAP),
            (RETURN, 0),
        ];
        let steps: Vec<(u16, u32)> = head.iter().chain(&tail).copied().collect();
        let targets = Targets {
            accept: steps.len() - 2,
            refuse: steps.len() - 1,
        };
        let instruction = |(at, &(code, k)): (usize, &(u16, u32))| {
            let next = at + 1;
            let (if_true, if_false) = match (code, k) {
                (JUMP_IF_EQUAL, _) => (next, targets.refuse),
                (JUMP_IF_ANY, 0x1fff) => (targets.refuse, next),
                (JUMP_IF_ANY, _) => (targets.accept, next),
                // No jump.
                _ => (next, next),
            };
            libc::sock_filter {
                code,
                jt: (if_true - next) as u8,
                jf: (if_false - next) as u8,
                k,
            }
        };
        steps.iter().enumerate().map(instruction).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::wire::{Addresses, Segment};

    const MARK: u16 = 0xbeef;

    /// What the kernel's interpreter does with the instructions that are used here.
    fn run(program: &[libc::sock_filter], packet: &[u8]) -> u32 {
        let (mut a, mut x, mut at) = (0_u32, 0_usize, 0_usize);
        loop {
            let libc::sock_filter { code, jt, jf, k } = program[at];
            at += 1;
            let byte = |offset: usize| packet.get(offset).map(|&byte| u32::from(byte));
            let half = |offset| Some(byte(offset)? << 8 | byte(offset + 1)?);
            let offset = k as usize;
            let loaded = match code {
                RETURN => return k,
                X_IS => {
                    x = offset;
                    continue;
                }
                X_IS_HEADER_LENGTH => {
                    x = byte(offset).unwrap_or(0) as usize % 16 * 4;
                    continue;
                }
                JUMP_IF_EQUAL | JUMP_IF_ANY => {
                    let jumps = match code {
                        JUMP_IF_EQUAL => a == k,
                        _ => a & k != 0,
                    };
                    at += usize::from(if jumps { jt } else { jf });
                    continue;
                }
                AND => Some(a & k),
                LOAD_BYTE => byte(offset),
                LOAD_HALF => half(offset),
                LOAD_BYTE_FROM_X => byte(x + offset),
                LOAD_HALF_FROM_X => half(x + offset),
                _ => panic!("{code:#x}"),
            };
            // A load from beyond the packet refuses it.
            let Some(loaded) = loaded else { return 0 };
            a = loaded;
        }
    }

    fn packet(source: &str, destination: &str, flags: u8, acknowledgement: u32) -> Vec<u8> {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let segment = Segment {
            addresses: Addresses::new(address(source), address(destination)).unwrap(),
            source_port: 80,
            destination_port: 40_000,
            sequence: 0,
            acknowledgement,
            flags,
            window: 0,
        };
        segment.packet()
    }

    /// S-DSR-3: answers are heard, and nothing else.
    #[test]
    fn answers_with_the_mark_pass() {
        let ours = u32::from(MARK) << 16 | 5;
        let (syn, ack, rst) = (Flags::SYN, Flags::ACK, Flags::RST);
        for (family, source, destination) in [
            (Family::V4, "192.0.2.10", "10.2.0.1"),
            (Family::V6, "2001:db8::10", "fd00:2::1"),
        ] {
            let program = Filter { family, mark: MARK }.program();
            let passes = |packet: &[u8]| run(&program, packet) == SNAP;
            for (flags, acknowledgement, expected) in [
                (syn | ack, ours, true),
                (rst | ack, ours, true),
                (rst, ours, true),
                (syn, ours, false),
                (ack, ours, false),
                (Flags::FIN | ack, ours, false),
                (syn | ack, ours ^ 1 << 16, false),
                (rst | ack, 5, false),
            ] {
                let packet = packet(source, destination, flags, acknowledgement);
                assert_eq!(passes(&packet), expected, "{flags:#x} {acknowledgement:#x}");
                let cut = &packet[..packet.len() - 10];
                assert!(!passes(cut) && !passes(&[]));
            }
            let mut udp = packet(source, destination, syn | ack, ours);
            let protocol = if family == Family::V4 { 9 } else { 6 };
            udp[protocol] = 17;
            assert!(!passes(&udp));
        }
        let program = Filter {
            family: Family::V4,
            mark: MARK,
        }
        .program();
        let mut with_options = packet("192.0.2.10", "10.2.0.1", syn | ack, ours);
        with_options[0] = 0x46;
        with_options.splice(20..20, [1, 1, 1, 0]);
        assert_eq!(run(&program, &with_options), SNAP);
        with_options[7] = 1;
        assert_eq!(run(&program, &with_options), 0);
    }
}
