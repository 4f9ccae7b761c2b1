//! What differs between IPv4 and IPv6.

use lb_common::{
    checksum,
    flow::{Bucket, Table},
    reason::Reason,
    tcp::Flags,
};

use super::{
    Program,
    frame::{Cursor, Frame, Header},
    maps,
    shared::SharedWord,
    tcp::TcpHeader,
};

/// An address family. Everything else in this program is generic over it.
pub(crate) trait Family: Sized {
    /// Words as they stand in memory: arrays of bytes would land at odd places on the stack.
    type Address: Copy + PartialEq + 'static;
    type Header: Header + 'static;
    type Key: Copy;
    type Bucket: Bucket<Key = Self::Key, Word = SharedWord> + 'static;
    type Table: Table<Bucket = Self::Bucket> + 'static;

    /// The program that opens connections of this family.
    const OPEN: Program;
    /// The one that looks for rivals of a new connection.
    const RIVALS: Program;
    /// The one that balances those of `full-nat` services.
    const FULL_NAT: Program;
    /// Whether [`Family::endpoint`] names an endpoint exactly.
    const ENDPOINTS_ARE_EXACT: bool;
    /// `AF_INET` or `AF_INET6`.
    const AF: u8;
    /// Bytes of an IP header and a TCP header without options, which an MSS does not count
    /// (RFC 6691).
    const TCP_AND_IP: u16;

    fn parse<'p>(frame: &Frame<'p>) -> Parsed<'p, Self>;
    /// What [`Family::parse`] left unchecked because only a packet of ours is worth it.
    fn check(segment: &Segment<'_, Self>) -> Result<(), Reason>;
    fn source(header: &Self::Header) -> Self::Address;
    fn destination(header: &Self::Header) -> Self::Address;
    /// Replaces the source and mends the header's checksum by `difference`.
    fn set_source(header: &mut Self::Header, address: Self::Address, difference: u16);
    fn set_destination(header: &mut Self::Header, address: Self::Address, difference: u16);
    fn hop_limit(header: &Self::Header) -> u8;
    fn decrement_hop_limit(header: &mut Self::Header);
    /// Bytes of the IP packet, header included, as the header says.
    fn length(header: &Self::Header) -> usize;

    /// Whether a host can have this address. Nobody else is answered (RFC 1122 §3.2.2, RFC 4443
    /// §2.4 (e), RFC 9293 §3.9.2.3).
    fn is_host(address: Self::Address) -> bool;
    /// From the 16 bytes of a map record.
    fn address(record: &[u8; 16]) -> Self::Address;
    /// The sum of an address's 16-bit words, for [`lb_common::checksum`].
    fn sum(address: Self::Address) -> u32;
    /// Into the words of `bpf_fib_lookup`'s parameters.
    fn fib_words(address: Self::Address) -> [u32; 4];

    /// Key of address and port in an endpoint table ([`lb_common::endpoints`]).
    fn endpoint(address: Self::Address, port: [u8; 2]) -> u64;
    fn listens() -> &'static maps::EndpointTable;
    fn repliers() -> &'static maps::EndpointTable;
    fn service_addresses() -> &'static aya_ebpf::maps::HashMap<Self::Address, u32>;

    fn key(client: Self::Address, port: [u8; 2], service: u16) -> Self::Key;
    /// Address, port and service id of a key.
    fn client(key: Self::Key) -> (Self::Address, [u8; 2], u16);
    fn hash(key: Self::Key) -> u64;
    fn selection_hash(key: Self::Key, seed: u64) -> u64;
    fn table() -> &'static Self::Table;
    /// Index by address that `full-nat` sends from.
    fn snat_map() -> &'static aya_ebpf::maps::HashMap<Self::Address, u32>;
    /// Four ports of the address with this index.
    fn snat_bucket(address: u16, bucket: u32) -> Option<&'static Self::Bucket>;
}

/// What a packet turns out to be.
pub(crate) enum Parsed<'p, F: Family> {
    /// TCP with its ports in place.
    Segment(Segment<'p, F>),
    Icmp,
    /// Neither TCP nor ICMP, or too short to tell.
    Other,
    /// TCP that cannot be forwarded; whether it is dropped depends on whom it is aimed at.
    Suspect {
        destination: F::Address,
        reason: Reason,
    },
}

/// A TCP segment in its packet.
pub(crate) struct Segment<'p, F: Family> {
    pub(crate) ip: &'p mut F::Header,
    pub(crate) tcp: &'p mut TcpHeader,
    /// Behind the IP header's fixed part.
    pub(crate) options: Cursor<'p>,
    /// Behind the TCP header's fixed part.
    pub(crate) tcp_options: Cursor<'p>,
    /// Bytes of IP header, with options and extension headers, before the TCP header.
    pub(crate) tcp_offset: usize,
    /// Bytes from the IP header to the end of the frame's first buffer.
    pub(crate) room: usize,
}

impl<F: Family> Segment<'_, F> {
    #[inline(always)]
    pub(crate) fn source(&self) -> F::Address {
        F::source(self.ip)
    }

    #[inline(always)]
    pub(crate) fn destination(&self) -> F::Address {
        F::destination(self.ip)
    }

    #[inline(always)]
    pub(crate) fn flags(&self) -> Flags {
        self.tcp.flags()
    }

    /// Bytes of the IP packet.
    #[inline(always)]
    pub(crate) fn length(&self) -> usize {
        F::length(self.ip)
    }

    /// Bytes from the IP header to the end of the frame, all buffers of it.
    #[inline(always)]
    pub(crate) fn room_of_all(&self, frame: &Frame<'_>) -> usize {
        match maps::is_multi_buffer() {
            true => frame.network_length(self.room),
            false => self.room,
        }
    }

    /// Mends the TCP checksum after a change ([`checksum::difference`]).
    #[inline(always)]
    pub(crate) fn update_checksum(&mut self, difference: u16) {
        let checksum = checksum::update(self.tcp.checksum(), difference);
        self.tcp.set_checksum(checksum);
    }

    /// Everything that a TCP would refuse, and a router of its IP header (S-FWD-1), before anything
    /// is changed.
    #[inline(always)]
    pub(crate) fn check(&self, frame: &Frame<'_>) -> Result<(), Reason> {
        F::check(self)?;
        let length = self.length();
        if length > self.room && length > self.room_of_all(frame) {
            return Err(Reason::MalformedIp);
        }
        if self.tcp.length() < size_of::<TcpHeader>()
            || self.tcp_offset + self.tcp.length() > length
        {
            return Err(Reason::MalformedTcp);
        }
        if self.flags().impossible() {
            return Err(Reason::ImpossibleFlags);
        }
        Ok(())
    }

    /// Refuses a packet that has no hop left to go (S-FWD-2).
    #[inline(always)]
    pub(crate) fn check_hops(&self) -> Result<(), Reason> {
        if F::hop_limit(self.ip) <= 1 {
            return Err(Reason::TtlExpired);
        }
        Ok(())
    }
}
