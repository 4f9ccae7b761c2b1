//! The paths that are counted, and the balancers that packets take them through.

use std::os::fd::AsFd as _;

use anyhow::{Context as _, ensure};
use aya::programs::ProgramFd;
use lb_common::{flow::Tick, lab::FIRST_PORT};
use lb_userspace::model::{Forwarding, Scheduler};

use super::{
    host::{Counts, foresee},
    kernel::{self, Outcome, coarse_nanoseconds},
    maps::Maps,
    object::Programs,
};
use crate::bench::program::{
    balancer::{ANY_NUMBER, Balancer},
    cases::Clients,
    frame::{ACK, Maker, SYN, SYN_ACK, Template, endpoints},
    generator::{PASS, TX},
    handshake::request,
    service::{MODES, Service},
};

/// Flows of each address family that the connection table is made for: so many more than there are
/// that each finds its place in the first bucket.
const CAPACITY: u32 = 100_000;
/// Packets that are tried, because a tick of about a second may end within the first ones.
const ATTEMPTS: u16 = 10;

/// One way through the program.
struct Path {
    name: String,
    template: Template,
    whose: Whose,
    verdict: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// Of one client, one after the other.
    Same,
    /// Each of a client never seen before.
    New,
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
        let connection = stage
            .open(&service)
            .with_context(|| format!("open a connection with {}", label(&service)))?;
        let path = |name: &str, template, whose| Path {
            name: format!("{} {name}", label(&service)),
            template,
            whose,
            verdict: TX,
        };
        let clients = Clients::of(is_ipv4);
        if mode == Forwarding::Nat {
            let mut stranger = connection.request;
            stranger.other.set_ip(clients.stranger);
            paths.push(Path {
                name: format!("{} not ours, PASS", family(&service)),
                template: stranger,
                whose: Whose::Same,
                verdict: PASS,
            });
        }
        paths.push(path("hit", connection.request, Whose::Same));
        if let Some(reply) = connection.reply {
            paths.push(path("reply", reply, Whose::Same));
        }
        let syn = request(&service, clients.new, SYN);
        paths.push(path("new flow, tracked", syn, Whose::New));
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
            template: request(&service, Clients::of(is_ipv4).new, SYN),
            whose: Whose::New,
            verdict: TX,
        });
    }
    paths.iter().map(|path| stage.count(path)).collect()
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
        let mut balancer = Balancer::load(CAPACITY, flood_limit)?;
        let (programs, maps) = Programs::of(balancer.programs()?)?;
        Ok(Self {
            program: balancer.program()?,
            id: balancer.xdp()?.info()?.id(),
            balancer,
            programs,
            maps,
        })
    }

    /// What the kernel makes of a frame of this template.
    fn run(&self, template: &Template) -> anyhow::Result<Outcome> {
        Ok(kernel::run(self.program.as_fd(), &frame(template))?)
    }

    fn forward(&self, template: &Template) -> anyhow::Result<Outcome> {
        let outcome = self.run(template)?;
        let Outcome { verdict, .. } = outcome;
        ensure!(verdict == TX, "a packet's verdict was {verdict}");
        Ok(outcome)
    }

    /// Opens a connection by a handshake.
    fn open(&self, service: &Service) -> anyhow::Result<Connection> {
        let clients = Clients::of(service.is_ipv4());
        let request = request(service, clients.established, ACK);
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

    /// Counts a path, and holds what is interpreted against the kernel.
    fn count(&mut self, path: &Path) -> anyhow::Result<(String, Counts)> {
        let counts = self.count_once(path);
        let counts = counts.with_context(|| path.name.clone())?;
        Ok((path.name.clone(), counts))
    }

    fn count_once(&mut self, path: &Path) -> anyhow::Result<Counts> {
        for attempt in 0..ATTEMPTS {
            let [before, counted] = path.pair(attempt);
            let tick = tick()?;
            // What a tick's first packet does is done.
            self.run(&before)?;
            let frame = frame(&counted);
            let foreseen = foresee(&self.programs, &mut self.maps, self.id, &frame)?;
            let outcome = kernel::run(self.program.as_fd(), &frame)?;
            if self::tick()? != tick {
                continue;
            }
            ensure!(
                outcome == foreseen.outcome,
                "the kernel came to {outcome:02x?}, not to {:02x?}",
                foreseen.outcome
            );
            foreseen.check_values(&self.maps)?;
            ensure!(
                outcome.verdict == path.verdict,
                "the verdict was {}, not {}",
                outcome.verdict,
                path.verdict
            );
            return Ok(foreseen.counts);
        }
        anyhow::bail!("{ATTEMPTS} times a tick ended meanwhile")
    }
}

impl Path {
    /// A packet that goes before, and the one that is counted.
    fn pair(&self, attempt: u16) -> [Template; 2] {
        match self.whose {
            Whose::Same => [self.template; 2],
            Whose::New => [0, 1].map(|n| Template {
                port: FIRST_PORT + 2 * attempt + n,
                ..self.template
            }),
        }
    }
}

/// The program's clock.
fn tick() -> anyhow::Result<Tick> {
    Ok(Tick::from_nanoseconds(coarse_nanoseconds()?))
}

fn frame(template: &Template) -> Vec<u8> {
    let words = template.words();
    let mut frame: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    frame.truncate(template.length());
    frame
}
