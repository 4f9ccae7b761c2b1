//! What stands in the maps, byte by byte.
//!
//! Everything is `repr(C)` without implicit padding, and its size is asserted. Addresses, ports and
//! checksums are in network order as they stand in packets; numbers are in host order. The daemon
//! writes services and backends through a memory mapping, word by word of 64 bits: what must
//! change together stands in one word.

use crate::tcp::TimeoutClass;

/// Changes whenever anything in this crate changes what stands in a map: the daemon pins its maps
/// below a directory of this name and never adopts those of another.
pub const LAYOUT_VERSION: u32 = 6;

/// Services have ids 1 to `MAX_SERVICES - 1`; 0 stands for "no service".
pub const MAX_SERVICES: u32 = 1024;
/// Backends have indices 1 to `MAX_BACKENDS - 1`; 0 stands for "no backend".
pub const MAX_BACKENDS: u32 = 16384;
/// Last hops have indices 1 to `MAX_LAST_HOPS - 1`; 0 stands for "unknown".
pub const MAX_LAST_HOPS: u32 = 4096;
/// Backend records that may share one address and port (the same backend in several services).
pub const MAX_SHARED_ENDPOINT: u32 = 8;
/// Lines of the tables by which services and backends are found ([`crate::endpoints`]).
pub const LISTEN_LINES: u32 = MAX_SERVICES;
pub const BACKEND_LINES: u32 = MAX_BACKENDS;
/// Slots of the largest table.
pub const MAX_SLOTS: u32 = 65_537;
/// Addresses to send from (`full-nat`) have indices 1 to `MAX_SNAT_ADDRESSES - 1`; 0 stands for
/// "none".
pub const MAX_SNAT_ADDRESSES: u32 = 256;

/// Seconds are too fine and a division too dear: time is counted in units of 2^30 ns (1.074 s)
/// since boot, modulo 2^22 (52 days).
pub const TICK_SHIFT: u32 = 30;

/// A service, by service id. One cache line.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// Mixed into the selection hash, so that two services spread one client differently; made of
    /// the listen address, so that two load balancers agree.
    pub seed: u64,
    /// Slots of the table; 0: there is no such service.
    pub slots: u32,
    /// Which half of the slot table is in use, 0 or 1.
    pub half: u32,
    /// Ticks of idleness after which a connection is forgotten, by [`TimeoutClass`].
    pub timeouts: [u32; TimeoutClass::COUNT],
    /// Listen address: 16 bytes of IPv6, or 4 bytes of IPv4 and 12 of zero.
    pub address: [u8; 16],
    /// Listen port, network order.
    pub port: [u8; 2],
    /// How packets reach the backends, one of [`forwarding`].
    pub forwarding: u8,
    /// What a client is told when no backend can take its connection, an [`Answer`].
    pub no_backend_answer: u8,
    /// Written by the packet path: until this tick, replies without a record may belong to a
    /// connection that found no place in the table, and are worth a hash.
    pub untracked_until: u32,
}

/// How a service's packets reach its backends: values of [`Service::forwarding`].
pub mod forwarding {
    /// Destination rewritten, and the source of replies rewritten back.
    pub const NAT: u8 = 0;
    /// Destination and source rewritten.
    pub const FULL_NAT: u8 = 1;
    /// Ethernet address rewritten only.
    pub const DSR: u8 = 2;
    /// An outer IP header in front.
    pub const IPIP: u8 = 3;
    /// Outer IP and UDP headers in front.
    pub const GUE: u8 = 4;

    /// Whether the backend answers past the load balancer, which then sees one direction only.
    #[inline(always)]
    #[must_use]
    pub const fn sees_one_direction(forwarding: u8) -> bool {
        forwarding >= DSR
    }

    #[inline(always)]
    #[must_use]
    pub const fn is_tunnel(forwarding: u8) -> bool {
        forwarding >= IPIP
    }
}

/// The programs that go on with a packet where the first one leaves off, as indices of a program
/// array.
pub mod program {
    /// Puts outer headers in front.
    pub const TUNNEL: u32 = 0;
    /// Balances connections of `full-nat` services, of IPv4.
    pub const FULL_NAT4: u32 = 1;
    /// Answers echo requests and leads ICMP errors to whom they concern.
    pub const ICMP: u32 = 2;
    /// Samples and answers what was refused.
    pub const REFUSE: u32 = 3;
    /// Handshakes, and whatever has no record, of IPv4.
    pub const OPEN4: u32 = 4;
    /// The same of IPv6.
    pub const OPEN6: u32 = 5;
    /// Clamps an MSS that is not a SYN's first option.
    pub const MSS: u32 = 6;
    /// The same as [`FULL_NAT4`] of IPv6.
    pub const FULL_NAT6: u32 = 7;
    /// Looks for rivals of a new connection whose backend shares its address, of IPv4.
    pub const RIVALS4: u32 = 8;
    /// The same of IPv6.
    pub const RIVALS6: u32 = 9;
    pub const COUNT: u32 = 10;
}

/// What the sender of a refused packet is told.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Nothing = 0,
    /// A TCP segment with RST (RFC 9293 §3.10.7.1).
    Rst = 1,
    /// ICMP "port unreachable".
    PortUnreachable = 2,
    /// ICMP "fragmentation needed" or ICMPv6 "packet too big".
    TooBig = 3,
}

impl Answer {
    /// From its number; what is none is [`Answer::Nothing`].
    #[inline(always)]
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        match bits {
            1 => Self::Rst,
            2 => Self::PortUnreachable,
            3 => Self::TooBig,
            _ => Self::Nothing,
        }
    }
}

/// Where the outer headers of a service's tunnelled packets come from, by service id.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tunnel {
    /// Outer IPv6 source; its host bits are zero.
    pub source6: [u8; 16],
    /// Outer IPv4 source; its host bits are zero.
    pub source4: [u8; 4],
    /// Which bits of a flow's entropy go to the source's last 16 bits, host order.
    pub entropy_mask6: u16,
    pub entropy_mask4: u16,
    /// Destination port of `gue`, network order.
    pub port: [u8; 2],
    pub reserved: [u8; 6],
}

/// What holds for all services; one entry. The daemon writes it word by word.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// SYNs without a record that one CPU records in a tick before it takes them for a flood.
    pub flood_limit: u32,
    /// 1: echo requests to service addresses are answered; 0: they pass to the host.
    pub answer_echo: u32,
    /// Nanoseconds, modulo 2^64, that `CLOCK_MONOTONIC` is ahead of the kernel's jiffies.
    pub clock_offset: u64,
}

/// Bytes of the ring buffer of samples, a power of two and a multiple of the page size: about a
/// thousand of them.
pub const SAMPLE_BYTES: u32 = 1 << 16;

/// A refused packet, as the ring buffer of samples holds it.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// `CLOCK_MONOTONIC` in nanoseconds.
    pub time: u64,
    /// 4 bytes of IPv4 and 12 of zero, or 16 of IPv6.
    pub source: [u8; 16],
    pub destination: [u8; 16],
    /// Network order; zero where they could not be read.
    pub source_port: [u8; 2],
    pub destination_port: [u8; 2],
    pub ifindex: u32,
    /// Service id; 0: none in particular.
    pub service: u16,
    /// A [`crate::reason::Reason`].
    pub reason: u8,
    /// 4 or 6.
    pub version: u8,
    pub length: u16,
    pub reserved: [u8; 2],
}

/// An 802.1Q or 802.1ad tag, both fields in network order; all zero for none.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VlanTag {
    pub tpid: [u8; 2],
    pub tci: [u8; 2],
}

impl VlanTag {
    #[inline(always)]
    const fn number(self) -> u32 {
        let ([a, b], [c, d]) = (self.tpid, self.tci);
        u32::from_ne_bytes([a, b, c, d])
    }

    #[inline(always)]
    const fn from_number(number: u32) -> Self {
        let [a, b, c, d] = number.to_ne_bytes();
        Self {
            tpid: [a, b],
            tci: [c, d],
        }
    }
}

/// An Ethernet address as a number, which is copied and compared at one stroke: of its three pairs of
/// bytes, as they stand in memory, the first is the lowest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mac(u64);

impl Mac {
    #[inline(always)]
    #[must_use]
    pub const fn new([a, b, c, d, e, f]: [u8; 6]) -> Self {
        Self::of_pairs([
            u16::from_ne_bytes([a, b]),
            u16::from_ne_bytes([c, d]),
            u16::from_ne_bytes([e, f]),
        ])
    }

    #[inline(always)]
    #[must_use]
    pub const fn of_pairs([first, second, third]: [u16; 3]) -> Self {
        Self(first as u64 | (second as u64) << 16 | (third as u64) << 32)
    }

    #[inline(always)]
    #[must_use]
    pub const fn pairs(self) -> [u16; 3] {
        [self.0 as u16, (self.0 >> 16) as u16, (self.0 >> 32) as u16]
    }

    #[must_use]
    pub const fn bytes(self) -> [u8; 6] {
        let [first, second, third] = self.pairs();
        let [[a, b], [c, d], [e, f]] = [
            first.to_ne_bytes(),
            second.to_ne_bytes(),
            third.to_ne_bytes(),
        ];
        [a, b, c, d, e, f]
    }
}

/// A way out: what the Ethernet header is to say, and where it is to leave.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hop {
    destination: u64,
    /// With the number of tags in its upper 16 bits.
    source: u64,
    tags: u64,
    ifindex: u64,
}

impl Hop {
    const TAG_COUNT_AT: u32 = 48;

    /// Without VLAN tags, through an interface that is not 0.
    #[inline(always)]
    #[must_use]
    pub const fn new(destination: Mac, source: Mac, ifindex: u32) -> Self {
        Self {
            destination: destination.0,
            source: source.0,
            tags: 0,
            ifindex: ifindex as u64,
        }
    }

    /// With the first `count` of these tags, at most 2, the outermost first.
    #[inline(always)]
    #[must_use]
    pub const fn tagged(self, count: u16, [outer, inner]: [VlanTag; 2]) -> Self {
        Self {
            source: self.source | (count as u64) << Self::TAG_COUNT_AT,
            tags: outer.number() as u64 | (inner.number() as u64) << 32,
            ..self
        }
    }

    #[inline(always)]
    #[must_use]
    pub const fn destination(&self) -> Mac {
        Mac(self.destination)
    }

    #[inline(always)]
    #[must_use]
    pub const fn source(&self) -> Mac {
        Mac(self.source & ((1 << Self::TAG_COUNT_AT) - 1))
    }

    /// How many of its tags are in use.
    #[inline(always)]
    #[must_use]
    pub const fn tag_count(&self) -> u16 {
        (self.source >> Self::TAG_COUNT_AT) as u16
    }

    #[inline(always)]
    #[must_use]
    pub const fn tags(&self) -> [VlanTag; 2] {
        [
            VlanTag::from_number(self.tags as u32),
            VlanTag::from_number((self.tags >> 32) as u32),
        ]
    }

    /// 0: there is no way out known.
    #[inline(always)]
    #[must_use]
    pub const fn ifindex(&self) -> u32 {
        self.ifindex as u32
    }

    /// Of the station that it leads to, where its addresses differ from others' most often.
    #[inline(always)]
    #[must_use]
    pub const fn hash(&self) -> u32 {
        let station = (self.destination >> 16) as u32 ^ self.ifindex() << 24;
        station.wrapping_mul(0x9e37_79b9) >> 8
    }
}

/// A backend of one service, by backend index. One cache line.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend {
    pub hop: Hop,
    /// As in [`Service::address`].
    pub address: [u8; 16],
    pub port: [u8; 2],
    /// Service id; 0: there is no such backend.
    pub service: u16,
    /// Index of the next backend with the same address and port, in another service; 0: none.
    pub next_with_same_address: u16,
    /// What replacing the listen address by this backend's does to an IPv4 header checksum
    /// ([`crate::checksum::update`]).
    pub address_difference: u16,
    /// The same for address and port, to a TCP checksum.
    pub tuple_difference: u16,
    /// Bits of [`Backend::ACCEPTS_NEW`] and its like.
    pub flags: u16,
    /// Bytes of the largest IP packet that reaches it, without outer headers; 0: not known.
    pub max_packet: u16,
    pub reserved: u16,
}

impl Backend {
    /// May be given new connections.
    pub const ACCEPTS_NEW: u16 = 1;
    /// Its address is of IPv6; matters in tunnels, where it need not be the service's family.
    pub const IPV6: u16 = 2;
    /// Its service's forwarding is [`forwarding::FULL_NAT`].
    pub const FULL_NAT: u16 = 4;
    /// Backends of other services have the same address and port.
    pub const SHARES_ADDRESS: u16 = 8;
}

/// Counters of a backend: one CPU's in the map, sums of them elsewhere. Bytes are those of the IP packets.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendCounters {
    pub connections: u64,
    pub packets_in: u64,
    pub bytes_in: u64,
    pub packets_out: u64,
    pub bytes_out: u64,
}

impl core::ops::AddAssign for BackendCounters {
    fn add_assign(&mut self, other: Self) {
        self.connections += other.connections;
        self.packets_in += other.packets_in;
        self.bytes_in += other.bytes_in;
        self.packets_out += other.packets_out;
        self.bytes_out += other.bytes_out;
    }
}

/// Two slots of a table: primary and secondary owner of each, as backend indices.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotPair {
    pub slots: [Slot; 2],
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// Where new connections go; 0: no backend can take them.
    pub primary: u16,
    /// Where they go if the primary cannot take this one; 0: nowhere.
    pub secondary: u16,
}

/// How many [`SlotPair`]s one half of a table of `slots` takes.
#[inline(always)]
#[must_use]
pub const fn pairs_in_half(slots: u32) -> u32 {
    slots.div_ceil(2)
}

const _: () = assert!(size_of::<Service>() == 64);
const _: () = assert!(size_of::<Tunnel>() == 32);
const _: () = assert!(size_of::<Settings>() == 16);
const _: () = assert!(size_of::<Sample>() == 56);
const _: () = assert!(size_of::<Hop>() == 32);
const _: () = assert!(size_of::<Backend>() == 64);
const _: () = assert!(size_of::<BackendCounters>() == 40);
const _: () = assert!(size_of::<SlotPair>() == 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hop_says_what_it_was_made_of() {
        let [theirs, ours] = [[2, 1, 3, 5, 7, 0xff], [0xfe, 2, 4, 6, 8, 10]];
        let tags = [(0x88a8_u16, 0xffff_u16), (0x8100, 100)].map(|(tpid, tci)| VlanTag {
            tpid: tpid.to_be_bytes(),
            tci: tci.to_be_bytes(),
        });
        for count in 0..=2 {
            let hop = Hop::new(Mac::new(theirs), Mac::new(ours), u32::MAX).tagged(count, tags);
            assert_eq!(
                (hop.destination().bytes(), hop.source().bytes()),
                (theirs, ours)
            );
            assert_eq!((hop.tag_count(), hop.tags()), (count, tags));
            assert_eq!(hop.ifindex(), u32::MAX);
        }
        assert_eq!(Hop::default().ifindex(), 0);
    }

    #[test]
    fn an_address_is_the_same_in_pairs_and_in_bytes() {
        let bytes = [1, 2, 3, 4, 5, 6];
        let pairs = [[1, 2], [3, 4], [5, 6]].map(u16::from_ne_bytes);
        assert_eq!(Mac::new(bytes), Mac::of_pairs(pairs));
        assert_eq!(Mac::new(bytes).pairs(), pairs);
    }
}
