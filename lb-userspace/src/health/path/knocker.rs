//! Sends SYNs by services' ways, and hears what is said to them.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher as _, Hasher as _},
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use lb_common::tcp::Flags;
use tokio::{net::TcpSocket, task::JoinSet, time::sleep};
use tracing::warn;

use super::{
    PathError, Way,
    questions::{Answer, Ends, Questions},
    source::Sources,
};
use crate::{
    model::NextHop,
    wire::{Addresses, Ear, Family, Filter, Heard, Mouth, Outer, Segment, frame},
};

/// A path to be tried once.
pub(super) struct Ask<'a> {
    pub(super) backend: IpAddr,
    pub(super) way: &'a Way,
    pub(super) next_hop: NextHop,
}

/// Has the sockets for any number of path probes at once.
#[derive(Debug)]
pub(super) struct Knocker {
    mouth: Mouth,
    questions: Arc<Questions>,
    sources: Sources,
    /// Upper half of all sequence numbers, by which answers are told from other packets.
    mark: u16,
    /// The listening tasks; they end with this.
    _ears: JoinSet<()>,
}

impl Knocker {
    /// # Errors
    ///
    /// Without the privilege or descriptors for it.
    pub(super) fn open() -> io::Result<Self> {
        let mark = random() as u16;
        let questions = Arc::new(Questions::default());
        let mut ears = JoinSet::new();
        for family in [Family::V4, Family::V6] {
            let ear = Ear::open(Filter { family, mark })?;
            ears.spawn(listen(ear, Arc::clone(&questions)));
        }
        Ok(Self {
            mouth: Mouth::open()?,
            questions,
            sources: Sources::default(),
            mark,
            _ears: ears,
        })
    }

    /// Sends a SYN and waits for what is said to it, for ever if nothing is.
    pub(super) async fn knock(&self, ask: Ask<'_>) -> Result<(), PathError> {
        let Ask {
            backend,
            way,
            next_hop,
        } = ask;
        let source = self.sources.find(way, backend, &next_hop).await?;
        let addresses = Addresses::new(source, way.service.ip())
            .ok_or(PathError::NoSource(way.service.ip()))?;
        // Nobody else gets the port for as long as this is kept.
        let (_port, own) = reserve(source).map_err(PathError::Local)?;
        let random = random();
        let flow = Flow {
            addresses,
            ends: Ends {
                service: way.service,
                own,
            },
            backend,
            way,
            entropy: (random >> 32) as u32,
        };
        let sequence = u32::from(self.mark) << 16 | first_sequence(random);
        let mut question = self.questions.open(flow.ends, sequence);
        self.send(&next_hop, &flow.packet(sequence, Flags::SYN))?;
        match question.answer().await {
            Answer::Refused => Err(PathError::Refused),
            Answer::Accepted => {
                // The kernel resets what it has not begun, but by its own route to the service's
                // address, which need not lead to this backend, and only if no filter keeps the
                // answer from it. Should this one get lost, the half-open connection times out.
                let reset = flow.packet(sequence.wrapping_add(1), Flags::RST);
                drop(self.send(&next_hop, &reset));
                Ok(())
            }
        }
    }

    fn send(&self, next_hop: &NextHop, packet: &[u8]) -> Result<(), PathError> {
        let sent = self
            .mouth
            .send(next_hop.ifindex, &frame(&next_hop.into(), packet));
        sent.map_err(|failure| match failure.raw_os_error() {
            // EAGAIN: the socket's send buffer is full.
            Some(libc::ENOBUFS | libc::EAGAIN | libc::ENOMEM) => PathError::Local(failure),
            _ => PathError::Send {
                interface: next_hop.interface.clone(),
                failure,
            },
        })
    }
}

/// Everything that the packets of one probe have in common.
struct Flow<'a> {
    addresses: Addresses,
    ends: Ends,
    backend: IpAddr,
    way: &'a Way,
    /// Of the tunnel, as if it were of the flow's hash.
    entropy: u32,
}

impl Flow<'_> {
    /// As it leaves: within the tunnel, if there is one.
    fn packet(&self, sequence: u32, flags: u8) -> Vec<u8> {
        let segment = Segment {
            addresses: self.addresses,
            source_port: self.ends.own.port(),
            destination_port: self.ends.service.port(),
            sequence,
            acknowledgement: 0,
            flags,
            window: u16::MAX,
        };
        let packet = segment.packet();
        match &self.way.tunnel {
            None => packet,
            Some((encapsulation, tunnel)) => Outer {
                encapsulation: *encapsulation,
                tunnel,
                destination: self.backend,
                entropy: self.entropy,
            }
            .around(&packet),
        }
    }
}

/// Lower half of a SYN's sequence number. Not 0xffff: the acknowledgement of the SYN is one more,
/// and its upper half must be the mark too.
fn first_sequence(random: u64) -> u32 {
    (random as u32 & 0xffff).min(0xfffe)
}

/// A port of this address that no connection uses, as long as the socket is kept: bound, but
/// neither listening nor connected.
fn reserve(address: IpAddr) -> io::Result<(TcpSocket, SocketAddr)> {
    let socket = match address {
        IpAddr::V4(_) => TcpSocket::new_v4(),
        IpAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    socket.bind((address, 0).into())?;
    let own = socket.local_addr()?;
    Ok((socket, own))
}

async fn listen(ear: Ear, questions: Arc<Questions>) {
    const PAUSE: Duration = Duration::from_secs(1);
    loop {
        match ear.hear().await {
            Ok(packet) => {
                if let Some(heard) = Heard::parse(&packet) {
                    questions.hear(&heard);
                }
            }
            Err(error) => {
                warn!("cannot hear answers to path probes: {error}");
                sleep(PAUSE).await;
            }
        }
    }
}

/// Each `RandomState` has a key of its own, and its keyed hash of nothing is a random number.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_reserved_port_is_nobody_elses_and_refuses() {
        let (_socket, own) = reserve(Ipv4Addr::LOCALHOST.into()).unwrap();
        assert!(std::net::TcpListener::bind(own).is_err());
        assert!(std::net::TcpStream::connect(own).is_err());
    }

    #[test]
    fn acknowledgements_keep_the_mark() {
        for random in [0, 1, 0xfffe, 0xffff, u64::MAX] {
            assert!(first_sequence(random) < 0xffff);
        }
    }
}
