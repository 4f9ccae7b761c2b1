//! What the benchmark tells the program that makes its packets (`lb-lab` in `lb-ebpf`).

use crate::checksum;

/// The generator's only map entry: a frame, and which flow's it becomes next.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generator {
    /// The frame of flow 0, as it stands in memory, native words. An IPv4 frame takes the first
    /// [`Generator::WORDS4`], an IPv6 frame all.
    pub frame: [u64; Self::WORDS6],
    /// The number of the flow is in its upper half. From one packet to the next it is multiplied
    /// by `multiplier` and `increment` is added: a linear congruential generator for flows at
    /// random, or 1 and 2^32 for one after another.
    pub state: u64,
    pub multiplier: u64,
    pub increment: u64,
    /// Which bits of the number count.
    pub mask: u64,
    /// Packets made.
    pub packets: u64,
}

impl Generator {
    /// 64 bytes, the smallest frame.
    pub const WORDS4: usize = 8;
    /// 80 bytes: Ethernet, IPv6 and TCP headers are 74.
    pub const WORDS6: usize = 10;
    /// Entries of the list that some programs take a flow's number from, by its place there.
    pub const LISTED: u32 = 1 << 16;
}

const _: () = assert!(size_of::<Generator>() == 15 * 8);

/// Where in a frame the generator writes. Offsets in bytes, all even.
///
/// The number's low 16 bits go to the last two bytes of the client's address, those above them to the
/// client's port. In the frame of flow 0 all these bits are zero: its port is [`FIRST_PORT`], or 0.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    pub client_address: usize,
    pub client_port: usize,
    pub tcp_checksum: usize,
    pub ip_checksum: Option<usize>,
}

/// The client port of flows 0 to 65 535.
pub const FIRST_PORT: u16 = 0x8000;

impl Layout {
    pub const REQUEST4: Self = Self {
        client_address: 28,
        client_port: 34,
        tcp_checksum: 50,
        ip_checksum: Some(24),
    };
    pub const REPLY4: Self = Self {
        client_address: 32,
        client_port: 36,
        ..Self::REQUEST4
    };
    pub const REQUEST6: Self = Self {
        client_address: 36,
        client_port: 54,
        tcp_checksum: 70,
        ip_checksum: None,
    };
    pub const REPLY6: Self = Self {
        client_address: 52,
        client_port: 56,
        ..Self::REQUEST6
    };
    /// Requests of one client's, to addresses of many services: the low 16 bits are theirs.
    pub const SPREAD4: Self = Self {
        client_address: 32,
        ..Self::REQUEST4
    };
}

/// What the floor that translates makes of a destination, which must be [`Dnat::FROM`]: as if each
/// were known beforehand.
pub struct Dnat;

impl Dnat {
    /// Address and port, as they stand in a packet.
    pub const FROM: ([u8; 4], [u8; 2]) = ([192, 0, 2, 1], 80u16.to_be_bytes());
    pub const TO: ([u8; 4], [u8; 2]) = ([198, 51, 100, 1], 8080u16.to_be_bytes());
    /// For the IP header's checksum.
    pub const ADDRESS_DIFFERENCE: u16 = {
        let ([a, b, c, d], _) = Self::FROM;
        let ([e, f, g, h], _) = Self::TO;
        checksum::combine(
            checksum::combine(!u16::from_ne_bytes([a, b]), !u16::from_ne_bytes([c, d])),
            checksum::combine(u16::from_ne_bytes([e, f]), u16::from_ne_bytes([g, h])),
        )
    };
    /// For TCP's.
    pub const DIFFERENCE: u16 = checksum::combine(
        Self::ADDRESS_DIFFERENCE,
        checksum::combine(
            !u16::from_ne_bytes(Self::FROM.1),
            u16::from_ne_bytes(Self::TO.1),
        ),
    );
}
