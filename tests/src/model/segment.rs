//! A TCP segment that was found in a frame.

use std::net::SocketAddr;

use lb_common::reason::Reason;

use super::{checksum, state::Flags};

/// Ethernet addresses and tags as they stand in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    pub to: [u8; 6],
    pub from: [u8; 6],
    /// Protocol and control information of each tag, outermost first.
    pub tags: [Option<[u8; 4]>; 2],
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Segment<'f> {
    pub(super) link: Link,
    pub(super) ifindex: u32,
    /// The frame from the IP header on, its padding included.
    pub(super) packet: &'f [u8],
    /// How much of that the first buffer holds.
    pub(super) linear: usize,
    pub(super) ipv6: bool,
    /// Where TCP begins in the packet.
    pub(super) tcp: usize,
    /// The IP packet's own length.
    pub(super) length: usize,
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    /// TTL or hop limit.
    pub(super) hops: u8,
    pub(super) flags: Flags,
}

impl Segment<'_> {
    /// What is to be right about a packet before it is forwarded (§5).
    pub(super) fn check(&self, counts_hops: bool) -> Result<(), Reason> {
        if !self.ipv6 {
            if self.length < self.tcp {
                return Err(Reason::MalformedIp);
            }
            if !checksum::verifies(&[&self.packet[..self.tcp]]) {
                return Err(Reason::BadIpChecksum);
            }
        }
        if self.length > self.packet.len() {
            return Err(Reason::MalformedIp);
        }
        let header = self.header_length();
        if header < 20 || self.tcp + header > self.length {
            return Err(Reason::MalformedTcp);
        }
        if self.flags.impossible() {
            return Err(Reason::ImpossibleFlags);
        }
        if counts_hops && self.hops <= 1 {
            return Err(Reason::TtlExpired);
        }
        Ok(())
    }

    /// The TCP header's, by its data offset.
    pub(super) fn header_length(&self) -> usize {
        usize::from(self.packet[self.tcp + 12] >> 4) * 4
    }

    /// TOS or traffic class: DSCP and ECN.
    pub(super) fn traffic_class(&self) -> u8 {
        if self.ipv6 {
            self.packet[0] << 4 | self.packet[1] >> 4
        } else {
            self.packet[1]
        }
    }

    pub(super) fn has_extension_headers(&self) -> bool {
        self.ipv6 && self.tcp > 40
    }
}
