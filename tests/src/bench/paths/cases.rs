//! The paths that are counted, and the balancers that packets take them through.

use std::os::fd::AsFd as _;

use anyhow::{Context as _, ensure};
use aya::programs::ProgramFd;
use lb_common::{flow::Tick, lab::FIRST_PORT};
use lb_userspace::{
    dataplane::{XdpOutcome, run_xdp},
    model::{Forwarding, Scheduler},
};

use super::{
    host::{Counts, foresee},
    maps::Maps,
    object::Programs,
};
use crate::{
    bench::program::{
        balancer::{ANY_NUMBER, Balancer},
        cases::Clients,
        frame::{ACK, Maker, SYN, SYN_ACK, Template, endpoints},
        generator::{PASS, TX},
        handshake::request,
        service::{MODES, Service},
    },
    clock::nanoseconds,
};

/// Flows of each address family that the connection table is made for: many more than there are, so
/// that nearly each finds its place in the first bucket.
const CAPACITY: u32 = 100_000;
/// Packets of each path, and connections that they belong to. The hashes' keys are drawn anew each
/// time: now and then two flows meet in a bucket, and the second one's packet takes longer.
const PACKETS: u16 = 8;
/// As many at least: the others are those within which a tick of about a second ended.
const ENOUGH: usize = 3;

/// One way through the program.
struct Path {
    name: String,
    packets: Vec<Packet>,
    verdict: u32,
}

struct Packet {
    /// Takes the same way before, and does what the first packet in a tick does.
    before: Template,
    counted: Template,
}

/// Counts every path.
///
/// # Errors
///
/// The kernel's own run of the program comes to something else.
pub(super) fn count_all() -> anyhow::Result<Vec<(String, Counts)>> {
    let mut counted = ordinary()?;
    let flood = counted.len();
    counted.extend(in_a_flood()?);
    // By address family; within it, in the order that they were counted in.
    let (ordinary, flooded) = counted.split_at(flood);
    let of = |family: &str, all: &[(String, Counts)]| -> Vec<_> {
        let is_of = |(name, _): &&(String, Counts)| name.starts_with(family);
        all.iter().filter(is_of).cloned().collect()
    };
    Ok(["IPv4", "IPv6"]
        .into_iter()
        .flat_map(|family| [of(family, ordinary), of(family, flooded)].concat())
        .collect())
}

/// With a service of each mode, and a connection with each.
fn ordinary() -> anyhow::Result<Vec<(String, Counts)>> {
    let mut stage = Stage::load(ANY_NUMBER)?;
    let mut paths = Vec::new();
    for (number, (is_ipv4, mode)) in (0..).zip(families_and_modes()) {
        let service = Service::new(number, is_ipv4, mode, Scheduler::default());
        stage.balancer.add(service.clone())?;
        let mut connections = Vec::new();
        for client in 0..PACKETS {
            let connection = stage.open(&service, client);
            let connection = connection
                .with_context(|| format!("open a connection with {}", label(&service)))?;
            connections.push(connection);
        }
        let requests = || connections.iter().map(|connection| connection.request);
        let replies = connections.iter().filter_map(|connection| connection.reply);
        let path = |name: &str, packets| Path {
            name: format!("{} {name}", label(&service)),
            packets,
            verdict: TX,
        };
        let clients = Clients::of(is_ipv4);
        if mode == Forwarding::Nat {
            let strange = requests().map(|mut request| {
                request.other.set_ip(clients.stranger);
                request
            });
            paths.push(Path {
                name: format!("{} not ours, PASS", family(&service)),
                packets: twice(strange),
                verdict: PASS,
            });
        }
        paths.push(path("hit", twice(requests())));
        if mode.sees_replies() {
            paths.push(path("reply", twice(replies)));
        }
        paths.push(path("new flow, tracked", of_new_clients(&service)));
    }
    paths.iter().map(|path| stage.count(path)).collect()
}

/// With a balancer that takes every SYN for part of a flood.
fn in_a_flood() -> anyhow::Result<Vec<(String, Counts)>> {
    let mut stage = Stage::load(0)?;
    let mut paths = Vec::new();
    for (number, (is_ipv4, mode)) in (0..).zip(families_and_modes()) {
        // A new connection needs a port, flood or not.
        if mode == Forwarding::FullNat {
            continue;
        }
        let service = Service::new(number, is_ipv4, mode, Scheduler::default());
        stage.balancer.add(service.clone())?;
        paths.push(Path {
            name: format!("{} new flow, untracked in a flood", label(&service)),
            packets: of_new_clients(&service),
            verdict: TX,
        });
    }
    paths.iter().map(|path| stage.count(path)).collect()
}

/// Each sent twice, one after the other.
fn twice(packets: impl Iterator<Item = Template>) -> Vec<Packet> {
    packets
        .map(|packet| Packet {
            before: packet,
            counted: packet,
        })
        .collect()
}

/// SYNs, each of a client never seen before.
fn of_new_clients(service: &Service) -> Vec<Packet> {
    let clients = Clients::of(service.is_ipv4()).new;
    let of = |client| Template {
        port: FIRST_PORT + client,
        ..request(service, clients, SYN)
    };
    (0..PACKETS)
        .map(|n| Packet {
            before: of(2 * n),
            counted: of(2 * n + 1),
        })
        .collect()
}

fn families_and_modes() -> impl Iterator<Item = (bool, Forwarding)> {
    [true, false]
        .into_iter()
        .flat_map(|is_ipv4| MODES.map(|mode| (is_ipv4, mode)))
}

fn family(service: &Service) -> &'static str {
    if service.is_ipv4() { "IPv4" } else { "IPv6" }
}

fn label(service: &Service) -> String {
    format!("{} {}", family(service), service.forwarding)
}

/// A loaded balancer, and its programs as they are interpreted.
struct Stage {
    balancer: Balancer,
    program: ProgramFd,
    id: u32,
    programs: Programs,
    maps: Maps,
}

/// What an open connection sends.
struct Connection {
    request: Template,
    /// Unless the backend answers past the balancer.
    reply: Option<Template>,
}

impl Stage {
    fn load(flood_limit: u32) -> anyhow::Result<Self> {
        let mut balancer = Balancer::load(CAPACITY, CAPACITY, flood_limit)?;
        let (programs, maps) = Programs::of(balancer.programs()?, balancer.clock())?;
        Ok(Self {
            program: balancer.program()?,
            id: balancer.xdp()?.info()?.id(),
            balancer,
            programs,
            maps,
        })
    }

    /// What the kernel makes of a frame of this template.
    fn run(&self, template: &Template) -> anyhow::Result<XdpOutcome> {
        Ok(run_xdp(self.program.as_fd(), &frame(template))?)
    }

    fn forward(&self, template: &Template) -> anyhow::Result<XdpOutcome> {
        let outcome = self.run(template)?;
        let XdpOutcome { verdict, .. } = outcome;
        ensure!(verdict == TX, "a packet's verdict was {verdict}");
        Ok(outcome)
    }

    /// Opens a connection of this client by a handshake.
    fn open(&self, service: &Service, client: u16) -> anyhow::Result<Connection> {
        let clients = Clients::of(service.is_ipv4()).established;
        let request = Template {
            port: FIRST_PORT + client,
            ..request(service, clients, ACK)
        };
        let forwarded = self.forward(&Template {
            flags: SYN,
            ..request
        })?;
        let reply = if service.forwarding.sees_replies() {
            let (source, backend) =
                endpoints(&forwarded.frame).context("a SYN is no TCP any more")?;
            let reply = Template {
                maker: Maker::Reply,
                clients: source.ip(),
                port: source.port(),
                other: backend,
                flags: ACK,
            };
            self.forward(&Template {
                flags: SYN_ACK,
                ..reply
            })?;
            Some(reply)
        } else {
            None
        };
        self.forward(&request)?;
        Ok(Connection { request, reply })
    }

    /// Counts a path: the packet of it that takes the fewest instructions.
    fn count(&mut self, path: &Path) -> anyhow::Result<(String, Counts)> {
        let mut counted = Vec::new();
        for packet in &path.packets {
            let counts = self.count_packet(packet, path.verdict);
            counted.extend(counts.with_context(|| path.name.clone())?);
        }
        ensure!(
            counted.len() >= ENOUGH,
            "{}: within most packets a tick ended",
            path.name
        );
        let least = counted.into_iter().min_by_key(|counts| counts.instructions);
        Ok((path.name.clone(), least.unwrap_or_default()))
    }

    /// Counts what a packet takes, and holds what is interpreted against the kernel; `None` if a
    /// tick ended meanwhile.
    fn count_packet(&mut self, packet: &Packet, verdict: u32) -> anyhow::Result<Option<Counts>> {
        let start = tick();
        self.run(&packet.before)?;
        let frame = frame(&packet.counted);
        let foreseen = foresee(&self.programs, &mut self.maps, self.id, &frame)?;
        let outcome = run_xdp(self.program.as_fd(), &frame)?;
        if tick() != start {
            return Ok(None);
        }
        ensure!(
            outcome == foreseen.outcome,
            "the kernel came to {outcome:02x?}, not to {:02x?}",
            foreseen.outcome
        );
        foreseen.check_values(&self.maps)?;
        ensure!(
            outcome.verdict == verdict,
            "the verdict was {}, not {verdict}",
            outcome.verdict
        );
        Ok(Some(foreseen.counts))
    }
}

/// The program's clock.
fn tick() -> Tick {
    Tick::from_nanoseconds(nanoseconds())
}

fn frame(template: &Template) -> Vec<u8> {
    let words = template.words();
    let mut frame: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    frame.truncate(template.length());
    frame
}
