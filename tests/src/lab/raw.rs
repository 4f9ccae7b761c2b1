//! Packets that no ordinary socket sends: echo requests, and floods of SYNs.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket},
    process,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{Host, sys};

impl Host {
    /// Sends an ICMP echo request with 56 bytes of payload, and waits for its answer.
    ///
    /// # Errors
    /// When none comes within five seconds.
    pub fn ping(&self, to: IpAddr) -> Result<()> {
        self.netns()
            .run(|| ping(to))
            .with_context(|| format!("{} pings {to}", self.name()))
    }

    /// Sends `count` SYNs to a service as fast as it can, each from another address and port of
    /// 198.18.0.0/15, which are nobody's (RFC 2544): what answers is answered by nobody.
    pub fn syn_flood(&self, to: SocketAddrV4, count: u32) -> Result<()> {
        self.netns()
            .run(|| {
                // IPPROTO_RAW: we write the IP header ourselves; the kernel adds its checksum.
                let socket = UdpSocket::from(sys::raw_socket(libc::AF_INET, libc::IPPROTO_RAW)?);
                (0..count).try_for_each(|n| socket.send_to(&syn(n, to), to).map(drop))
            })
            .with_context(|| format!("{} floods {to}", self.name()))
    }
}

/// A flood of SYNs under way: as fast as one thread can send them, each from an address and a port
/// drawn at random from the same addresses as [`Host::syn_flood`]'s.
#[must_use]
pub struct Flood {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<u64>>,
}

impl Host {
    /// Begins a flood of SYNs, which ends by itself after `at_most`.
    pub fn begin_syn_flood(&self, to: SocketAddrV4, at_most: Duration) -> Flood {
        let stop = Arc::new(AtomicBool::new(false));
        let (told, netns) = (stop.clone(), self.netns().clone());
        let thread = std::thread::spawn(move || {
            netns.run(|| {
                let socket = UdpSocket::from(sys::raw_socket(libc::AF_INET, libc::IPPROTO_RAW)?);
                let begun = Instant::now();
                let (mut sent, mut random) = (0_u64, 1_u64);
                while !told.load(Ordering::Relaxed) && begun.elapsed() < at_most {
                    // Knuth's linear congruential generator; its upper half is random enough.
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    socket.send_to(&syn((random >> 32) as u32, to), to)?;
                    sent += 1;
                }
                Ok(sent)
            })
        });
        Flood { stop, thread }
    }
}

impl Flood {
    /// Ends it; how many SYNs were sent.
    ///
    /// # Errors
    /// The kernel's, when it refused to send one.
    pub fn end(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(sent) => sent.context("the flood ended early"),
            Err(_) => bail!("the flood's thread panicked"),
        }
    }
}

fn ping(to: IpAddr) -> Result<()> {
    const PATIENCE: Duration = Duration::from_secs(5);
    const PAYLOAD: [u8; 56] = *b"abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcd";
    let (family, protocol, request, answer) = match to {
        IpAddr::V4(_) => (libc::AF_INET, libc::IPPROTO_ICMP, 8, 0),
        IpAddr::V6(_) => (libc::AF_INET6, libc::IPPROTO_ICMPV6, 128, 129),
    };
    let socket = UdpSocket::from(sys::raw_socket(family, protocol)?);
    let [id_high, id_low] = (process::id() as u16).to_be_bytes();
    // Type, code, checksum, identifier, sequence number (RFC 792, RFC 4443 §4.1).
    let mut message = vec![request, 0, 0, 0, id_high, id_low, 0, 1];
    message.extend(PAYLOAD);
    // The checksum of ICMPv6 is the kernel's affair.
    if to.is_ipv4() {
        let checksum = checksum(&message);
        message[2..4].copy_from_slice(&checksum);
    }
    socket.send_to(&message, SocketAddr::new(to, 0))?;

    let deadline = Instant::now() + PATIENCE;
    let mut buffer = [0; 2048];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            bail!("no answer within {PATIENCE:?}");
        }
        socket.set_read_timeout(Some(left))?;
        let (length, from) = socket.recv_from(&mut buffer)?;
        // A raw IPv4 socket gives the IP header too.
        let header = match to {
            IpAddr::V4(_) => usize::from(buffer[0] & 0xf) * 4,
            IpAddr::V6(_) => 0,
        };
        let heard = buffer[..length].get(header..).unwrap_or_default();
        let matches = heard.first() == Some(&answer) && heard.get(4..) == Some(&message[4..]);
        if from.ip() == to && matches {
            return Ok(());
        }
    }
}

/// IPv4 and TCP headers of the `n`th SYN.
fn syn(n: u32, to: SocketAddrV4) -> [u8; 40] {
    const TCP: u8 = 6;
    const SYN: u8 = 0x02;
    let source = Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 18, 0, 0)) + n % (1 << 17));
    let port = 1024 + (n % 50_000) as u16;
    let mut packet = [0; 40];
    let (ip, tcp) = packet.split_at_mut(20);
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&40_u16.to_be_bytes());
    ip[8] = 64;
    ip[9] = TCP;
    ip[12..16].copy_from_slice(&source.octets());
    ip[16..20].copy_from_slice(&to.ip().octets());
    tcp[0..2].copy_from_slice(&port.to_be_bytes());
    tcp[2..4].copy_from_slice(&to.port().to_be_bytes());
    tcp[4..8].copy_from_slice(&n.to_be_bytes());
    tcp[12] = 5 << 4;
    tcp[13] = SYN;
    tcp[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
    let mut pseudo = Vec::from(&ip[12..20]);
    pseudo.extend([0, TCP, 0, 20]);
    pseudo.extend_from_slice(tcp);
    tcp[16..18].copy_from_slice(&checksum(&pseudo));
    packet
}

/// RFC 1071, over an even number of bytes.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes
        .chunks_exact(2)
        .map(|w| u32::from(w[0]) << 8 | u32::from(w[1]));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::{Lab, wait_until};

    #[test]
    fn a_ping_is_answered_or_not() {
        let lab = Lab::new("ping").unwrap();
        let (client, backend) = (lab.client(), &lab.backends()[0]);
        client.ping(backend.ipv4().into()).unwrap();
        client.ping(backend.ipv6().into()).unwrap();
        let _cut_off = backend.cut_off().unwrap();
        assert!(client.ping(backend.ipv4().into()).is_err());
    }

    /// A server answers SYNs whose checksums are right, and no others.
    #[test]
    fn a_flood_is_taken_for_clients() {
        let lab = Lab::new("flood").unwrap();
        let (client, backend) = (lab.client(), &lab.backends()[0]);
        let _server = backend.serve_identity(8080).unwrap();
        // Else the balancer, a router here, tells the backend that there is no such client.
        let nowhere = format!("route add 198.18.0.0/15 via {}", client.ipv4());
        lab.lb().netns().ip(&nowhere).unwrap();
        // Without SYN cookies a server keeps not many more.
        client
            .syn_flood(SocketAddrV4::new(backend.ipv4(), 8080), 50)
            .unwrap();
        wait_until(Duration::from_secs(5), "all are half-open", || {
            let mut ss = backend.netns().command("ss");
            let listed = crate::lab::output(ss.args(["-Htn", "state", "syn-recv"])).unwrap();
            listed.lines().count() == 50
        });
    }
}
