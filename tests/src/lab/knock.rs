//! SYNs made by hand, sent through tunnels, and what is answered.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{Host, Netns, sys};
use crate::packets::{Packet, flags};

/// How a SYN gets to the host that is to take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By routing alone.
    Plain,
    /// Within an IP packet to this address.
    Ipip(IpAddr),
    /// Within a UDP datagram (GUE variant 1).
    Gue(SocketAddr),
}

/// Knocks on ports, each time from another one, and listens at the door. There is no socket for
/// what is answered, so the client's kernel resets it: no connection stays behind.
#[derive(Debug)]
pub struct Knocker {
    netns: Netns,
    ipv4: Ipv4Addr,
    ipv6: Ipv6Addr,
    ears4: UdpSocket,
    ears6: UdpSocket,
    next_port: u16,
}

/// A SYN that is on its way.
#[derive(Clone, Copy, Debug)]
pub struct Knock {
    door: SocketAddr,
    port: u16,
}

impl Host {
    pub fn knocker(&self) -> Result<Knocker> {
        let listen = |family| -> io::Result<UdpSocket> {
            Ok(UdpSocket::from(sys::raw_socket(family, libc::IPPROTO_TCP)?))
        };
        self.netns()
            .run(|| -> io::Result<Knocker> {
                Ok(Knocker {
                    netns: self.netns().clone(),
                    ipv4: self.ipv4(),
                    ipv6: self.ipv6(),
                    ears4: listen(libc::AF_INET)?,
                    ears6: listen(libc::AF_INET6)?,
                    // Below those that the kernel gives to sockets.
                    next_port: 1024,
                })
            })
            .with_context(|| format!("{} listens", self.name()))
    }
}

impl Knocker {
    /// Sends a SYN to `door`.
    pub fn knock(&mut self, door: SocketAddr, way: Way) -> Result<Knock> {
        let port = self.next_port;
        self.next_port += 1;
        let source: IpAddr = match door {
            SocketAddr::V4(_) => self.ipv4.into(),
            SocketAddr::V6(_) => self.ipv6.into(),
        };
        let syn = Packet::new((source, port).into(), door).flags(flags::SYN);
        self.netns
            .run(|| send(&syn.build_ip(), door, way))
            .with_context(|| format!("cannot knock on {door}, {way:?}"))?;
        Ok(Knock { door, port })
    }

    /// Whether that knock, or which one before it, is answered with a SYN-ACK within `patience`.
    pub fn is_answered(&self, knock: Knock, patience: Duration) -> Result<bool> {
        Ok(self.first_answered(&[knock], patience)?.is_some())
    }

    /// Which of these knocks is answered first: its place among them.
    pub fn first_answered(&self, knocks: &[Knock], patience: Duration) -> Result<Option<usize>> {
        let ears = match knocks {
            [first, ..] if first.door.is_ipv4() => &self.ears4,
            _ => &self.ears6,
        };
        let deadline = Instant::now() + patience;
        let mut buffer = [0; 2048];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            ears.set_read_timeout(Some(left))?;
            let (length, from) = match ears.recv_from(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                received => received?,
            };
            let answered = |knock: &Knock| {
                knock.door.ip() == from.ip() && is_syn_ack(&buffer[..length], knock)
            };
            if let Some(place) = knocks.iter().position(answered) {
                return Ok(Some(place));
            }
        }
    }
}

fn send(packet: &[u8], door: SocketAddr, way: Way) -> io::Result<()> {
    let inner = match door {
        SocketAddr::V4(_) => libc::IPPROTO_IPIP,
        SocketAddr::V6(_) => libc::IPPROTO_IPV6,
    };
    let family = |address: IpAddr| match address {
        IpAddr::V4(_) => libc::AF_INET,
        IpAddr::V6(_) => libc::AF_INET6,
    };
    let raw = |to: IpAddr, protocol| -> io::Result<()> {
        let socket = UdpSocket::from(sys::raw_socket(family(to), protocol)?);
        socket.send_to(packet, SocketAddr::new(to, 0)).map(drop)
    };
    match way {
        // IPPROTO_RAW: the IP header is ours.
        Way::Plain => raw(door.ip(), libc::IPPROTO_RAW),
        // The kernel puts its own in front.
        Way::Ipip(to) => raw(to, inner),
        Way::Gue(to) => {
            let any: IpAddr = match to {
                SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            };
            UdpSocket::bind((any, 0))?.send_to(packet, to).map(drop)
        }
    }
}

/// A raw IPv4 socket gives the IP header too.
fn is_syn_ack(heard: &[u8], knock: &Knock) -> bool {
    let header = match knock.door {
        SocketAddr::V4(_) => usize::from(heard.first().unwrap_or(&0) & 0xf) * 4,
        SocketAddr::V6(_) => 0,
    };
    let Some(tcp) = heard.get(header..).filter(|tcp| tcp.len() >= 20) else {
        return false;
    };
    let port = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
    (port(0), port(2)) == (knock.door.port(), knock.port)
        && tcp[13] & flags::SYN_ACK == flags::SYN_ACK
}
