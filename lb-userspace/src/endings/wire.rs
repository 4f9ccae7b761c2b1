//! A packet socket (`man 7 packet`): frames leave as they are, past routes, filters and queueing
//! disciplines, as the packet path's own do.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

/// Where frames leave.
pub(super) trait Wire {
    /// Sends a whole Ethernet frame through this interface.
    fn send(&mut self, ifindex: u32, frame: &[u8]) -> io::Result<()>;
}

/// A socket that sends only: of no protocol, so that nothing is received.
pub(super) struct PacketSocket(OwnedFd);

impl PacketSocket {
    /// # Errors
    ///
    /// The kernel's: `EPERM` without `CAP_NET_RAW`.
    pub(super) fn open() -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: takes numbers only.
        let descriptor = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor, which nobody else owns.
        let socket = unsafe { OwnedFd::from_raw_fd(descriptor) };
        // A filter on the way out may well put on the tags that these frames have already.
        let bypass: libc::c_int = 1;
        // SAFETY: the value lives until this returns, and is as long as it says.
        let set = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_QDISC_BYPASS,
                (&raw const bypass).cast(),
                size_of_val(&bypass) as libc::socklen_t,
            )
        };
        match set {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(Self(socket)),
        }
    }
}

impl Wire for PacketSocket {
    fn send(&mut self, ifindex: u32, frame: &[u8]) -> io::Result<()> {
        let ethertype = match frame.get(12..14) {
            Some(&[high, low]) => u16::from_ne_bytes([high, low]),
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        };
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: ethertype,
            sll_ifindex: ifindex as i32,
            sll_hatype: 0,
            sll_pkttype: 0,
            // A raw socket's frame has its addresses in itself.
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        // SAFETY: the frame and the address live until this returns, and are as long as it says.
        let sent = unsafe {
            libc::sendto(
                self.0.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const address).cast(),
                size_of_val(&address) as libc::socklen_t,
            )
        };
        match sent {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }
}
