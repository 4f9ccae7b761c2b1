use std::io;

use crate::wire::Mouth;

/// Where frames leave.
pub(super) trait Wire {
    /// Sends a whole Ethernet frame through this interface.
    fn send(&mut self, ifindex: u32, frame: &[u8]) -> io::Result<()>;
}

impl Wire for Mouth {
    fn send(&mut self, ifindex: u32, frame: &[u8]) -> io::Result<()> {
        Self::send(self, ifindex, frame)
    }
}
