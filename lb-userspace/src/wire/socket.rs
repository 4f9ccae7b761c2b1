//! Packet sockets (`man 7 packet`). They need `CAP_NET_RAW`.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use tokio::io::{Interest, unix::AsyncFd};

use super::filter::{Filter, SNAP};

/// Of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    V4,
    V6,
}

/// Sends frames as they are, past routes, filters and queueing disciplines, as the packet path does,
/// and hears nothing.
#[derive(Debug)]
pub struct Mouth(OwnedFd);

impl Mouth {
    /// # Errors
    ///
    /// Without the privilege or descriptors for it.
    pub fn open() -> io::Result<Self> {
        let socket = packet_socket(libc::SOCK_RAW)?;
        // A filter on the way out may well put on the tags that these frames have already.
        let bypass: libc::c_int = 1;
        // SAFETY: the option takes an integer.
        unsafe {
            set(
                &socket,
                libc::SOL_PACKET,
                libc::PACKET_QDISC_BYPASS,
                &bypass,
            )
        }?;
        Ok(Self(socket))
    }

    /// Sends a whole Ethernet frame through the interface with this index. Does not wait for room
    /// in its queue.
    ///
    /// # Errors
    ///
    /// The kernel's: `ENETDOWN` where the interface is down, `ENXIO` where there is none,
    /// `ENOBUFS` or `EAGAIN` without room.
    pub fn send(&self, ifindex: u32, frame: &[u8]) -> io::Result<()> {
        // The protocol is that of the frame, for whoever looks at the queue.
        let ethertype = match frame.get(12..14) {
            Some(&[high, low]) => u16::from_ne_bytes([high, low]),
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        };
        let to = link_address(ethertype, ifindex);
        // SAFETY: frame and address live until the call returns, and are as long as it is told.
        let sent = unsafe {
            libc::sendto(
                self.0.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                libc::MSG_DONTWAIT,
                (&raw const to).cast(),
                size_of_val(&to) as libc::socklen_t,
            )
        };
        match sent {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }
}

/// Hears what comes in for the IP stack of this host and passes a filter: whatever interface it
/// came by, without Ethernet header and tags, and before the stack drops any of it.
#[derive(Debug)]
pub struct Ear(AsyncFd<OwnedFd>);

impl Ear {
    /// # Errors
    ///
    /// Without the privilege or descriptors for it.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O.
    pub fn open(filter: Filter) -> io::Result<Self> {
        // It has no protocol yet, so that nothing is heard before the filter is there.
        let socket = packet_socket(libc::SOCK_DGRAM)?;
        attach(&socket, &filter.program())?;
        let protocol = match filter.family {
            Family::V4 => libc::ETH_P_IP,
            Family::V6 => libc::ETH_P_IPV6,
        };
        let any_interface = link_address((protocol as u16).to_be(), 0);
        // SAFETY: the address lives until the call returns, and is as long as it is told.
        succeeded(unsafe {
            libc::bind(
                socket.as_raw_fd(),
                (&raw const any_interface).cast(),
                size_of_val(&any_interface) as libc::socklen_t,
            )
        })?;
        // SAFETY: the descriptor is owned, and stays the same and open until it is deregistered:
        // nothing takes it out of here.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
        Ok(Self(socket))
    }

    /// The next packet from its IP header on, as far as its TCP header goes.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub async fn hear(&self) -> io::Result<Vec<u8>> {
        let mut buffer = [0; SNAP as usize];
        let length = self
            .0
            .async_io(Interest::READABLE, |socket| {
                // SAFETY: the kernel writes into a buffer of the length that it is told.
                let received = unsafe {
                    libc::recv(
                        socket.as_raw_fd(),
                        buffer.as_mut_ptr().cast(),
                        buffer.len(),
                        0,
                    )
                };
                usize::try_from(received).map_err(|_| io::Error::last_os_error())
            })
            .await?;
        Ok(buffer[..length].to_vec())
    }
}

/// Without a protocol, so that it receives nothing.
fn packet_socket(kind: libc::c_int) -> io::Result<OwnedFd> {
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: socket takes three integers by value.
    let descriptor = unsafe { libc::socket(libc::AF_PACKET, kind | flags, 0) };
    succeeded(descriptor)?;
    // SAFETY: a new descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn attach(socket: &OwnedFd, program: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: program.len() as libc::c_ushort,
        // The kernel only reads it.
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the instructions live until the call returns, which copies them, and are as many as
    // it says.
    unsafe { set(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program) }
}

/// # Safety
///
/// `value` is what this option takes, and what it points to lives.
unsafe fn set<T>(
    socket: &OwnedFd,
    level: libc::c_int,
    option: libc::c_int,
    value: &T,
) -> io::Result<()> {
    // SAFETY: the value lives until the call returns, and is as long as it is told; the rest is the
    // caller's promise.
    succeeded(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    })
}

/// `protocol` in network byte order; an index of 0 stands for any interface.
fn link_address(protocol: u16, ifindex: u32) -> libc::sockaddr_ll {
    libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: protocol,
        sll_ifindex: ifindex as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        // The frame has the addresses.
        sll_halen: 0,
        sll_addr: [0; 8],
    }
}

fn succeeded(result: libc::c_int) -> io::Result<()> {
    match result {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
