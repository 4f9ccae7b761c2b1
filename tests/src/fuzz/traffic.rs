//! What happens next: a plausible segment of one of a few conversations, or something hostile.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use lb_userspace::{dataplane::ServiceRecord, model::ServiceId};

use super::{
    mutate,
    random::Random,
    step::{Arrival, Step},
    world::{INTERFACES, World, tags},
};
use crate::{
    model::{FlowKey, Model, Record},
    packets::{BALANCER, GATEWAY, Icmp, Link, Packet, Tag, flags},
};

/// Clients of each family, and ports of each client.
const CLIENTS: usize = 10;
const PORTS: usize = 4;
/// Bytes of the largest first buffer: a page, less headroom, what may take that up, and what the
/// kernel keeps for itself.
const MOST_LINEAR: usize = 4096 - 256 - 216 - 340;

/// The source of steps.
#[derive(Clone, Debug)]
pub(super) struct Traffic {
    pub(super) random: Random,
    pub(super) world: World,
}

impl Traffic {
    pub(super) fn next(&mut self, model: &Model) -> Step {
        match self.random.below(1000) {
            0..4 => Step::Write(self.world.change(&mut self.random)),
            4..12 => match self.known(model) {
                Some((key, _)) => Step::End(key),
                None => self.packet(model),
            },
            12..24 => match self.known(model) {
                Some((key, _)) => Step::Expire(key),
                None => self.packet(model),
            },
            _ => self.packet(model),
        }
    }

    fn packet(&mut self, model: &Model) -> Step {
        let mut frame = if self.random.chance(15) {
            self.message(model).build()
        } else {
            let packet = self.segment(model);
            self.perhaps_odd(packet).build()
        };
        let random = &mut self.random;
        if random.chance(12) {
            mutate::frame(random, &mut frame);
        }
        // What is behind this the kernel puts in another buffer.
        frame.truncate(MOST_LINEAR);
        let linear = if random.chance(12) {
            random.range(14..=frame.len())
        } else {
            frame.len()
        };
        Step::Frame(Arrival {
            linear,
            ifindex: random.of(&INTERFACES),
            has_headroom: !random.one_in(50),
            frame,
        })
    }

    fn perhaps_odd(&mut self, packet: Packet) -> Packet {
        if self.random.chance(35) {
            mutate::packet(&mut self.random, packet, &self.world)
        } else {
            packet
        }
    }

    /// An ICMP message: an echo request, or an error about a segment that may have been sent.
    fn message(&mut self, model: &Model) -> Icmp {
        let mut message = if self.random.chance(20) {
            let listen = self.a_service();
            let client = self.client(listen.is_ipv4());
            let length = self.random.below(100);
            Icmp::echo(client.ip(), listen.ip(), &self.random.bytes(length))
        } else {
            self.error(model)
        };
        message.link = link(&mut self.random);
        if self.random.chance(30) {
            mutate::message(&mut self.random, &mut message);
        }
        message
    }

    fn error(&mut self, model: &Model) -> Icmp {
        let packet = self.segment(model);
        let packet = self.perhaps_odd(packet);
        // As the balancer has sent it: a request as the backend gets it, a reply as the client does.
        let (source, destination) = self.sent(model, packet.source(), packet.destination());
        let packet = packet.from(source).to(destination);
        let random = &mut self.random;
        let sender = match (random.below(3), source.is_ipv4()) {
            (0, true) => Ipv4Addr::new(203, 0, 113, 9).into(),
            (0, false) => Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 9).into(),
            _ => destination.ip(),
        };
        let mut error = Icmp::too_big(sender, packet, random.word());
        if random.chance(50) {
            let kinds: &[u8] = if source.is_ipv4() {
                &[3, 11, 12, 0, 4, 5]
            } else {
                &[1, 2, 3, 4, 0, 137]
            };
            error = error.kind(random.of(kinds), random.below(6) as u8);
        }
        if random.chance(50) {
            error = error.cut(random.of(&[8, 20, 27, 28, 37, 38, 40, 47, 48, 57, 58, 60, 80, 548]));
        }
        error
    }

    /// The ends of a segment as it leaves the balancer.
    fn sent(
        &mut self,
        model: &Model,
        source: SocketAddr,
        destination: SocketAddr,
    ) -> (SocketAddr, SocketAddr) {
        if let Some(id) = self.world.listening(destination) {
            let record = model.record(FlowKey::new(id, source));
            let backend = match record {
                Some(record) => self.world.backend(record.backend).map(|b| b.address),
                None => Some(self.a_backend()),
            };
            let source = record.and_then(|record| record.snat).unwrap_or(source);
            return match backend {
                Some(backend) if backend.is_ipv4() == source.is_ipv4() => (source, backend),
                _ => (source, destination),
            };
        }
        let connection = model.records().find(|(key, record)| {
            let backend = self.world.backend(record.backend).map(|b| b.address);
            backend == Some(source) && record.snat.unwrap_or(key.client) == destination
        });
        let connection = connection.map(|(key, _)| key);
        match connection {
            Some(key) => match self.listen(key.service) {
                Some(listen) => (listen, key.client),
                None => (source, destination),
            },
            None => {
                let listen = self.a_service();
                if listen.is_ipv4() == destination.is_ipv4() {
                    (listen, destination)
                } else {
                    (source, destination)
                }
            }
        }
    }

    /// A segment without anything wrong in it.
    fn segment(&mut self, model: &Model) -> Packet {
        let (source, destination) = self.ends(model);
        let random = &mut self.random;
        let mut packet = Packet::new(source, destination)
            .flags(flags_of(random))
            .link(link(random));
        let length = match random.below(8) {
            0..4 => 0,
            4..7 => random.below(120),
            _ => random.below(1460),
        };
        packet.tcp.payload = random.bytes(length);
        packet.tcp.sequence = random.bits() as u32;
        packet.tcp.acknowledgement = random.bits() as u32;
        if packet.tcp.flags & flags::SYN != 0 || random.one_in(8) {
            packet.tcp.options = mutate::tcp_options(random);
        }
        packet
    }

    /// Source and destination of a segment.
    fn ends(&mut self, model: &Model) -> (SocketAddr, SocketAddr) {
        if self.random.chance(65)
            && let Some((key, record)) = self.known(model)
        {
            return self.ends_of(key, record);
        }
        match self.random.below(20) {
            0 => (self.client(true), self.client(true)),
            1 => {
                // A backend that speaks to somebody who has no connection.
                let backend = self.a_backend();
                let client = self.client(backend.is_ipv4());
                (backend, client)
            }
            2 => {
                // A backend as a client.
                let listen = self.a_service();
                let backend = self.a_backend();
                if backend.is_ipv4() == listen.is_ipv4() {
                    (backend, listen)
                } else {
                    (self.client(listen.is_ipv4()), listen)
                }
            }
            _ => {
                let listen = self.a_service();
                (self.client(listen.is_ipv4()), listen)
            }
        }
    }

    /// Of a connection: in either direction, or with another service.
    fn ends_of(&mut self, key: FlowKey, record: Record) -> (SocketAddr, SocketAddr) {
        let listen = self.listen(key.service);
        let backend = self.world.backend(record.backend).map(|b| b.address);
        match (backend, listen) {
            (Some(backend), Some(_))
                if backend.is_ipv4() == key.client.is_ipv4() && self.random.chance(50) =>
            {
                // Of `full-nat`, the backend knows the client by another address.
                (backend, record.snat.unwrap_or(key.client))
            }
            (_, Some(listen)) if self.random.chance(90) => (key.client, listen),
            _ => {
                let other = self.a_service();
                if other.is_ipv4() == key.client.is_ipv4() {
                    (key.client, other)
                } else {
                    (self.client(other.is_ipv4()), other)
                }
            }
        }
    }

    fn known(&mut self, model: &Model) -> Option<(FlowKey, Record)> {
        let number = self.random.below(model.connections());
        model.records().nth(number)
    }

    fn client(&mut self, ipv4: bool) -> SocketAddr {
        let number = self.random.below(CLIENTS) as u16;
        let address: IpAddr = if ipv4 {
            Ipv4Addr::new(198, 51, 100, number as u8).into()
        } else {
            Ipv6Addr::new(0x2001, 0xdb8, 0xc, number, 0, 0, 0, 7).into()
        };
        (address, 40_000 + self.random.below(PORTS) as u16).into()
    }

    fn listen(&self, id: ServiceId) -> Option<SocketAddr> {
        let mut services = self.world.services();
        services
            .find(|(service, _)| *service == id)
            .map(|(_, record)| record.listen)
    }

    fn a_service(&mut self) -> SocketAddr {
        let all: Vec<&ServiceRecord> = self.world.services().map(|(_, service)| service).collect();
        let service = all[self.random.below(all.len())];
        let mut listen = service.listen;
        if self.random.one_in(40) {
            listen.set_port(81);
        }
        listen
    }

    fn a_backend(&mut self) -> SocketAddr {
        let all: Vec<SocketAddr> = self
            .world
            .backends()
            .map(|backend| backend.address)
            .collect();
        match self.random.pick(&all) {
            Some(backend) => *backend,
            None => self.client(true),
        }
    }
}

fn flags_of(random: &mut Random) -> u8 {
    const LIKELY: [u8; 24] = [
        flags::SYN,
        flags::SYN,
        flags::SYN,
        flags::SYN,
        flags::SYN_ACK,
        flags::SYN_ACK,
        flags::SYN_ACK,
        flags::ACK,
        flags::ACK,
        flags::ACK,
        flags::ACK,
        flags::ACK,
        flags::ACK | flags::PSH,
        flags::ACK | flags::PSH,
        flags::ACK | flags::PSH,
        flags::FIN | flags::ACK,
        flags::FIN | flags::ACK,
        flags::FIN | flags::ACK,
        flags::RST,
        flags::RST | flags::ACK,
        flags::SYN | flags::ECE | flags::CWR,
        flags::ACK | flags::URG,
        flags::ACK | flags::ECE,
        flags::FIN | flags::ACK | flags::PSH,
    ];
    if random.one_in(12) {
        return random.byte();
    }
    random.of(&LIKELY)
}

fn link(random: &mut Random) -> Link {
    let mut from = GATEWAY;
    from[5] = random.range(1..=4) as u8;
    Link {
        to: BALANCER,
        from,
        tags: tags(random)
            .into_iter()
            .map(|(protocol, control)| Tag { protocol, control })
            .collect(),
    }
}

/// A backend's `max_packet`, and the length of a packet that hits it.
pub(super) fn limits(world: &World) -> Vec<u16> {
    let limits = world.backends().map(|backend| backend.max_packet);
    limits.filter(|limit| *limit != 0).collect()
}
