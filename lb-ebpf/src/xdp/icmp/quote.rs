//! The packet that an error is about, as far as the error quotes it.

use lb_common::reason::Reason;

use super::message::{IcmpHeader, Message, Messages};
use crate::xdp::{
    family::Family,
    frame::{Frame, Header},
    snat::Endpoint,
};

/// The first 8 bytes of a TCP header, the least that an error quotes (RFC 792).
#[repr(C)]
pub(super) struct TcpStart {
    pub(super) source: [u8; 2],
    pub(super) destination: [u8; 2],
    sequence: [u8; 4],
}

/// What follows them, to the checksum.
#[repr(C)]
struct TcpToChecksum {
    acknowledgement: [u8; 4],
    offset_and_flags: [u8; 2],
    window: [u8; 2],
    checksum: [u8; 2],
}

// SAFETY: byte arrays only.
unsafe impl Header for TcpStart {}
// SAFETY: byte arrays only.
unsafe impl Header for TcpToChecksum {}

/// An error about a TCP segment.
pub(super) struct Quote<'p, F: Family> {
    pub(super) message: Message<'p, F>,
    /// The quoted packet's header.
    pub(super) ip: &'p mut F::Header,
    pub(super) tcp: &'p mut TcpStart,
    /// The quoted segment's checksum, if the quote reaches so far.
    pub(super) tcp_checksum: Option<&'p mut [u8; 2]>,
    /// Bytes from the outer IP header to the end of [`Quote::tcp`].
    least: usize,
}

impl<'p, F: Messages> Quote<'p, F> {
    /// `None` if this is not an error that quotes a TCP segment of its receiver's.
    #[inline(always)]
    pub(super) fn parse(message: Message<'p, F>) -> Option<Self> {
        if !F::is_error(message.icmp.kind) {
            return None;
        }
        let mut cursor = message.body;
        let ip = cursor.take::<F::Header>()?;
        // Whoever sent the quoted packet is to get the error.
        if F::source(ip) != F::destination(message.ip) {
            return None;
        }
        let header = F::to_quoted_tcp(ip)?;
        cursor.skip(header - size_of::<F::Header>());
        let tcp = cursor.take::<TcpStart>()?;
        let least =
            size_of::<F::Header>() + size_of::<IcmpHeader>() + header + size_of::<TcpStart>();
        // What is behind the packet's end is padding, whatever it looks like.
        let tcp_checksum = if F::length(message.ip) >= least + size_of::<TcpToChecksum>() {
            cursor.take::<TcpToChecksum>().map(|tcp| &mut tcp.checksum)
        } else {
            None
        };
        Some(Self {
            message,
            ip,
            tcp,
            tcp_checksum,
            least,
        })
    }

    /// Who sent the quoted packet.
    #[inline(always)]
    pub(super) fn source(&self) -> Endpoint<F> {
        Endpoint {
            address: F::source(self.ip),
            port: self.tcp.source,
        }
    }

    /// Whom the quoted packet was for.
    #[inline(always)]
    pub(super) fn destination(&self) -> Endpoint<F> {
        Endpoint {
            address: F::destination(self.ip),
            port: self.tcp.destination,
        }
    }

    /// Bytes of the IP packet.
    #[inline(always)]
    pub(super) fn length(&self) -> usize {
        F::length(self.message.ip)
    }

    /// Everything that keeps the error from being sent on.
    #[inline(always)]
    pub(super) fn check(&self, frame: &Frame<'_>) -> Result<(), Reason> {
        self.message.check(frame, self.least)
    }

    /// Refuses an error that has no hop left to go (S-FWD-2).
    #[inline(always)]
    pub(super) fn check_hops(&self) -> Result<(), Reason> {
        if F::hop_limit(self.message.ip) <= 1 {
            return Err(Reason::TtlExpired);
        }
        Ok(())
    }
}
