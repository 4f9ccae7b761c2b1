//! The few BPF programs that the lab's own hosts need, assembled by hand.
//!
//! Each is a handful of instructions, so there is no object file, no build step and no loader:
//! the two system calls `BPF_PROG_LOAD` and `BPF_LINK_CREATE` do. A link lives as long as its
//! descriptor, so nothing stays behind, however the process ends.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use anyhow::{Context, Result};

use super::{Netns, VlanTag, sys};

/// A program attached to an interface until this is dropped.
#[derive(Debug)]
pub(super) struct Link {
    _descriptor: OwnedFd,
}

/// Attaches an XDP program that lets everything pass, in native mode.
///
/// A veth interface transmits what its peer's XDP program sends by `XDP_TX` or `XDP_REDIRECT`
/// only where the receiving end runs NAPI, which an XDP program of its own switches on.
pub(super) fn xdp_pass(netns: &Netns, interface: &str) -> Result<Link> {
    let program = [Instruction::mov(R0, XDP_PASS), Instruction::exit()];
    attach(netns, interface, PROG_TYPE_XDP, ATTACH_XDP, &program)
}

/// Drops whatever arrives at an interface, ARP and neighbour discovery included.
pub(super) fn drop_ingress(netns: &Netns, interface: &str) -> Result<Link> {
    let program = [Instruction::mov(R0, TCX_DROP), Instruction::exit()];
    attach(
        netns,
        interface,
        PROG_TYPE_SCHED_CLS,
        ATTACH_TCX_INGRESS,
        &program,
    )
}

/// Makes an interface speak with VLAN tags, outermost first, while its host knows of none.
///
/// What leaves is tagged; what arrives is dropped unless it bears just these tags, and loses them.
/// XDP programs of the interface see the tags. It needs no 802.1Q devices in the kernel.
pub(super) fn vlan(netns: &Netns, interface: &str, tags: &[VlanTag]) -> Result<[Link; 2]> {
    let attach = |point, program: &[Instruction]| {
        attach(netns, interface, PROG_TYPE_SCHED_CLS, point, program)
    };
    Ok([
        attach(ATTACH_TCX_EGRESS, &push_tags(tags))?,
        attach(ATTACH_TCX_INGRESS, &pop_tags(tags))?,
    ])
}

fn push_tags(tags: &[VlanTag]) -> Vec<Instruction> {
    let mut program = vec![Instruction::copy(R6, R1)];
    for tag in tags.iter().rev() {
        program.extend([
            Instruction::copy(R1, R6),
            Instruction::mov(R2, i32::from(tag.protocol().to_be())),
            Instruction::mov(R3, i32::from(tag.id())),
            Instruction::call(HELPER_SKB_VLAN_PUSH),
        ]);
    }
    program.extend([Instruction::mov(R0, TCX_NEXT), Instruction::exit()]);
    program
}

fn pop_tags(tags: &[VlanTag]) -> Vec<Instruction> {
    const PER_TAG: usize = 7;
    let mut program = vec![Instruction::copy(R6, R1)];
    for (done, tag) in tags.iter().enumerate() {
        // The refusal stands behind the tags still to come and the two instructions of success;
        // a jump counts from the instruction after it.
        let end = (tags.len() - done) * PER_TAG + 2;
        let refusal_from = |position: usize| (end - position - 1) as i16;
        let block: [_; PER_TAG] = [
            Instruction::load_u32(R2, R6, SKB_VLAN_TCI),
            Instruction::and(R2, 0xfff),
            Instruction::jump_unless(R2, i32::from(tag.id()), refusal_from(2)),
            Instruction::load_u32(R2, R6, SKB_VLAN_PROTO),
            Instruction::jump_unless(R2, i32::from(tag.protocol().to_be()), refusal_from(4)),
            Instruction::copy(R1, R6),
            Instruction::call(HELPER_SKB_VLAN_POP),
        ];
        program.extend(block);
    }
    program.extend([
        Instruction::mov(R0, TCX_NEXT),
        Instruction::exit(),
        Instruction::mov(R0, TCX_DROP),
        Instruction::exit(),
    ]);
    program
}

/// One instruction as the kernel reads it (`struct bpf_insn`, linux/bpf.h; RFC 9669 §3).
#[repr(C)]
#[derive(Clone, Copy)]
struct Instruction {
    opcode: u8,
    /// Destination in the lower half, source in the upper.
    registers: u8,
    offset: i16,
    immediate: i32,
}

impl Instruction {
    const fn new(opcode: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Self {
        Self {
            opcode,
            registers: if cfg!(target_endian = "little") {
                source << 4 | destination
            } else {
                destination << 4 | source
            },
            offset,
            immediate,
        }
    }

    const fn mov(destination: u8, value: i32) -> Self {
        Self::new(0xb7, destination, 0, 0, value)
    }

    const fn copy(destination: u8, source: u8) -> Self {
        Self::new(0xbf, destination, source, 0, 0)
    }

    const fn load_u32(destination: u8, base: u8, offset: i16) -> Self {
        Self::new(0x61, destination, base, offset, 0)
    }

    const fn and(destination: u8, mask: i32) -> Self {
        Self::new(0x57, destination, 0, 0, mask)
    }

    const fn jump_unless(register: u8, value: i32, forward: i16) -> Self {
        Self::new(0x55, register, 0, forward, value)
    }

    const fn call(helper: i32) -> Self {
        Self::new(0x85, 0, 0, 0, helper)
    }

    const fn exit() -> Self {
        Self::new(0x95, 0, 0, 0, 0)
    }
}

const R0: u8 = 0;
const R1: u8 = 1;
const R2: u8 = 2;
const R3: u8 = 3;
/// The first register that survives a call.
const R6: u8 = 6;

// linux/bpf.h
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_LINK_CREATE: libc::c_long = 28;
const PROG_TYPE_SCHED_CLS: u32 = 3;
const PROG_TYPE_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;
const ATTACH_TCX_INGRESS: u32 = 46;
const ATTACH_TCX_EGRESS: u32 = 47;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
const XDP_PASS: i32 = 2;
const TCX_NEXT: i32 = -1;
const TCX_DROP: i32 = 2;
const HELPER_SKB_VLAN_PUSH: i32 = 18;
const HELPER_SKB_VLAN_POP: i32 = 19;
/// Offsets in `struct __sk_buff`; the protocol there is in network order.
const SKB_VLAN_TCI: i16 = 24;
const SKB_VLAN_PROTO: i16 = 28;

/// The beginning of `union bpf_attr` as `BPF_PROG_LOAD` reads it; the kernel takes the rest as 0.
#[repr(C)]
struct LoadAttributes {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
}

/// The beginning of `union bpf_attr` as `BPF_LINK_CREATE` reads it.
#[repr(C)]
struct LinkAttributes {
    program: u32,
    interface: u32,
    attach_type: u32,
    flags: u32,
}

fn attach(
    netns: &Netns,
    interface: &str,
    program_type: u32,
    attach_type: u32,
    program: &[Instruction],
) -> Result<Link> {
    let link = || -> io::Result<Link> {
        let program = bpf(
            BPF_PROG_LOAD,
            &LoadAttributes {
                program_type,
                instruction_count: program.len() as u32,
                instructions: program.as_ptr() as u64,
                license: c"GPL".as_ptr() as u64,
            },
        )?;
        let descriptor = bpf(
            BPF_LINK_CREATE,
            &LinkAttributes {
                program: program.as_raw_fd().cast_unsigned(),
                interface: sys::interface_index(interface)?,
                attach_type,
                flags: match attach_type {
                    ATTACH_XDP => XDP_FLAGS_DRV_MODE,
                    _ => 0,
                },
            },
        )?;
        Ok(Link {
            _descriptor: descriptor,
        })
    };
    netns
        .run(link)
        .with_context(|| format!("cannot attach a program to {interface} of {}", netns.name()))
}

/// A `bpf` system call whose result is a new descriptor.
fn bpf<Attributes>(command: libc::c_long, attributes: &Attributes) -> io::Result<OwnedFd> {
    // SAFETY: `attributes` is a prefix of `union bpf_attr` of the size given; the kernel reads it
    // and what it points to, all of which `attach` borrows for longer than the call, and writes
    // to none of it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attributes),
            size_of::<Attributes>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both commands return a new descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(result as i32) })
}

#[cfg(test)]
mod tests {
    use std::{fs, net::UdpSocket, time::Duration};

    use super::*;
    use crate::lab::{Lab, Topology, wait_until};

    const PATIENCE: Duration = Duration::from_secs(10);

    /// What `XDP_PASS` on the peer is for; without it nothing of this arrives.
    #[test]
    fn what_the_balancer_sends_back_by_xdp_arrives() {
        const XDP_TX: i32 = 3;
        let lab = Lab::new("xdp-tx").unwrap();
        let client = lab.client().netns();
        let reflect = [Instruction::mov(R0, XDP_TX), Instruction::exit()];
        let _link = attach(
            lab.lb().netns(),
            "eth0",
            PROG_TYPE_XDP,
            ATTACH_XDP,
            &reflect,
        )
        .unwrap();

        let before = client.run(received_packets);
        let socket = client.run(|| UdpSocket::bind("10.1.0.11:0")).unwrap();
        wait_until(PATIENCE, "packets have come back", || {
            socket.send_to(b"hello", "10.1.0.1:9").unwrap();
            client.run(received_packets) >= before + 10
        });
    }

    #[test]
    fn xdp_programs_see_the_tags_of_clients() {
        let plain = Lab::new("untagged").unwrap();
        let tagged = Topology {
            client_tags: vec![VlanTag::Customer(7)],
            ..Topology::default()
        };
        let tagged = Lab::with("tagged", &tagged).unwrap();
        for (lab, passes) in [(&plain, false), (&tagged, true)] {
            let _servers = lab.serve_identity(8080).unwrap();
            let netns = lab.lb().netns();
            let _link = attach(netns, "eth0", PROG_TYPE_XDP, ATTACH_XDP, &tagged_only()).unwrap();
            let client = lab.client().netns();
            let connected = client.run(|| {
                let backend = lab.backends()[0].v4(8080);
                std::net::TcpStream::connect_timeout(&backend, Duration::from_secs(1)).is_ok()
            });
            assert_eq!(connected, passes, "{}", lab.name());
        }
    }

    /// Passes frames whose EtherType is that of 802.1Q, and drops the rest.
    fn tagged_only() -> [Instruction; 11] {
        const ETHER_TYPE: i16 = 12;
        const XDP_DROP: i32 = 1;
        let (data, data_end) = (0, 4);
        let load_u16 = Instruction::new(0x69, R3, R2, ETHER_TYPE, 0);
        let jump_if_r3_exceeds_r6 = Instruction::new(0x2d, R3, R6, 4, 0);
        [
            Instruction::load_u32(R2, R1, data),
            Instruction::load_u32(R6, R1, data_end),
            Instruction::copy(R3, R2),
            Instruction::new(0x07, R3, 0, 0, 14),
            jump_if_r3_exceeds_r6,
            load_u16,
            Instruction::jump_unless(R3, i32::from(0x8100_u16.to_be()), 2),
            Instruction::mov(R0, XDP_PASS),
            Instruction::exit(),
            Instruction::mov(R0, XDP_DROP),
            Instruction::exit(),
        ]
    }

    /// Packets that the interface of the current namespace has received.
    fn received_packets() -> u64 {
        let table = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
        let line = table.lines().find(|line| line.contains("eth0:")).unwrap();
        line.split_whitespace().nth(2).unwrap().parse().unwrap()
    }
}
