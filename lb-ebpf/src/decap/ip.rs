//! What both versions of IP have in common, as an outer header and as an inner one.

use lb_common::{decap::Outcome, ecn::Ecn};

use super::{
    frame::{Cursor, Frame, Header},
    xdp::Stop,
};

/// A version of IP.
pub(crate) trait Ip {
    type Header: Header + 'static;

    const VERSION: u8;
    /// In network order, as it stands in a frame.
    const ETHER_TYPE: u16;

    /// Bytes of the header with its options.
    fn header_length(header: &Self::Header) -> usize;
    /// Bytes of the packet, by its header.
    fn length(header: &Self::Header) -> usize;
    /// What follows the header.
    fn protocol(header: &Self::Header) -> u8;
    fn is_fragment(header: &Self::Header) -> bool;
    /// Whether the destination is one of the host's addresses.
    fn is_own(header: &Self::Header) -> bool;
    /// Whether the header's checksum is right; `options` begins behind its fixed part.
    fn verifies(header: &Self::Header, options: Cursor<'_>) -> bool;
    /// DSCP and ECN.
    fn traffic_class(header: &Self::Header) -> u8;
    /// Writes the ECN field; the header's checksum is updated with it.
    fn set_ecn(header: &mut Self::Header, ecn: Ecn);
}

/// The IP version that a packet's first byte names.
#[inline(always)]
pub(crate) fn version(first: u8) -> u8 {
    first >> 4
}

/// The header of the packet that the frame holds.
pub(crate) struct Outer<'p, O: Ip> {
    pub(crate) header: &'p O::Header,
    /// Behind the header's fixed part.
    pub(crate) options: Cursor<'p>,
    pub(crate) header_length: usize,
    /// Bytes from the header to the end of the frame's first buffer.
    room: usize,
}

impl<'p, O: Ip> Outer<'p, O> {
    #[inline(always)]
    pub(crate) fn read(frame: &Frame<'p>) -> Result<Self, Stop> {
        let mut first = frame.network();
        let mut cursor = frame.network();
        let room = cursor.remaining();
        let first = first.take::<u8>().ok_or(Stop::NotOurs)?;
        if version(*first) != O::VERSION {
            return Err(Stop::NotOurs);
        }
        let header = &*cursor.take::<O::Header>().ok_or(Stop::NotOurs)?;
        Ok(Self {
            header,
            options: cursor,
            header_length: O::header_length(header),
            room,
        })
    }

    #[inline(always)]
    pub(crate) fn is_cut_off(&self) -> bool {
        self.header_length < size_of::<O::Header>()
    }

    /// Behind the header and its options, of which there may be none ([`Outer::is_cut_off`]).
    #[inline(always)]
    pub(crate) fn body(&self) -> Cursor<'p> {
        let mut body = self.options;
        body.skip(self.header_length.wrapping_sub(size_of::<O::Header>()));
        body
    }

    /// Bytes behind the header, by its own account, if all is well with it.
    #[inline(always)]
    pub(crate) fn check<const BUFFERS: bool>(&self, frame: &Frame<'_>) -> Result<usize, Outcome> {
        if !O::verifies(self.header, self.options) {
            return Err(Outcome::OuterChecksum);
        }
        let length = O::length(self.header);
        if length > self.room && !(BUFFERS && length <= frame.network_length(self.room)) {
            return Err(Outcome::OuterLength);
        }
        length
            .checked_sub(self.header_length)
            .ok_or(Outcome::OuterLength)
    }
}
