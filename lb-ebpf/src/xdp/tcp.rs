use lb_common::tcp::Flags;

use super::frame::Header;

/// A TCP header without its options (RFC 9293 §3.1), in network order.
#[repr(C)]
pub(crate) struct TcpHeader {
    pub(crate) source: [u8; 2],
    pub(crate) destination: [u8; 2],
    pub(crate) sequence: [u8; 4],
    pub(crate) acknowledgement: [u8; 4],
    pub(crate) offset: u8,
    pub(crate) flags: u8,
    pub(crate) window: [u8; 2],
    pub(crate) checksum: [u8; 2],
    pub(crate) urgent: [u8; 2],
}

// SAFETY: byte arrays only.
unsafe impl Header for TcpHeader {}

impl TcpHeader {
    /// Bytes of the header with its options, 0 to 60.
    #[inline(always)]
    pub(crate) fn length(&self) -> usize {
        (self.offset as usize >> 4) * 4
    }

    #[inline(always)]
    pub(crate) fn flags(&self) -> Flags {
        Flags::new(self.flags)
    }

    /// The checksum as it stands in memory, for [`lb_common::checksum`].
    #[inline(always)]
    pub(crate) fn checksum(&self) -> u16 {
        u16::from_ne_bytes(self.checksum)
    }

    #[inline(always)]
    pub(crate) fn set_checksum(&mut self, checksum: u16) {
        self.checksum = checksum.to_ne_bytes();
    }
}
