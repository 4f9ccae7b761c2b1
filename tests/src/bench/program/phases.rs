//! The balancers that are measured, each in its turn: with services and connections, in a flood, with
//! many services. Every pass of a phase measures all of its cases once.

use std::net::Ipv4Addr;

use anyhow::Context as _;
use lb_userspace::model::{Forwarding, Scheduler};

use super::{
    Amount,
    balancer::{ANY_NUMBER, Balancer},
    cases::{self, Case, Clients, MOST, MOST_WITH_MORE, Packets, REPLIED_TO, SPREAD, has_more},
    generator::Generator,
    handshake::{establish, establish_spread},
    measure::{Alone, Sample, measure},
    service::{HOUR, MODES, Service, schedulers},
    size::ProgramSize,
};

/// IPv4 flows that the connection table is made for.
const CAPACITY: u32 = 1_000_000;
/// IPv6 flows, if not for hits of many of them. Both are the defaults.
const CAPACITY_IPV6: u32 = CAPACITY / 4;

pub(super) type Measured = Vec<(Case, Vec<Sample>)>;

/// The floors, and services of all modes with their connections; and how large the programs are.
pub(super) fn ordinary(
    generator: &mut Generator,
    amount: Amount,
) -> anyhow::Result<(Measured, Vec<ProgramSize>)> {
    let mut balancer = Balancer::load(CAPACITY, CAPACITY, ANY_NUMBER)?;
    let services = services_of_all_modes();
    for service in &services {
        balancer.add(service.clone())?;
    }
    let mut cases = cases::floors();
    let mut connections = 0;
    for service in &services {
        if service.forwarding == Forwarding::Nat {
            cases.push(cases::not_ours(service));
        }
        let mut open = |clients, count, only| {
            connections += u64::from(count);
            establish(&mut balancer, generator, service, clients, 0..count, only)
        };
        let clients = Clients::of(service.is_ipv4());
        open(clients.established, MOST, None)?;
        cases.extend(cases::hits(service));
        if service.forwarding.sees_replies() {
            let first = service.backends.first().map(|&(index, _)| index);
            let sent_from = open(clients.replied_to, REPLIED_TO, first)?;
            cases.extend(cases::reply(service, &sent_from));
        }
    }
    // Not before all the others have found their places in an emptier table.
    for service in services.iter().filter(|service| has_more(service)) {
        let clients = Clients::of(service.is_ipv4()).established;
        let more = MOST..MOST_WITH_MORE;
        connections += u64::from(MOST_WITH_MORE - MOST);
        establish(&mut balancer, generator, service, clients, more, None)?;
    }
    balancer.expect_established(connections)?;
    let measured = passes(&mut balancer, generator, amount, cases)?;
    Ok((measured, balancer.sizes()?))
}

/// New connections, while there are half as many as the connection tables are made for; and while
/// there are seven tenths as many.
pub(super) fn opening(generator: &mut Generator, amount: Amount) -> anyhow::Result<Measured> {
    let mut balancer = Balancer::load(CAPACITY, CAPACITY_IPV6, ANY_NUMBER)?;
    let services = services_of_all_modes();
    let scheduled: Vec<_> = (services.len() as u16..)
        .zip(schedulers())
        .map(|(number, scheduler)| Service::new(number, true, Forwarding::Nat, scheduler))
        .collect();
    for service in services.iter().chain(&scheduled) {
        balancer.add(service.clone())?;
    }
    let empty = Filled {
        nat: services.iter().filter(is_nat).collect(),
        capacities: (CAPACITY, CAPACITY_IPV6),
        tenths: 0,
    };
    let half = empty.up_to(5, &mut balancer, generator)?;
    let mut cases = half.amid_traffic(&services, cases::new_flow);
    cases.extend(half.amid_traffic(&scheduled, cases::scheduled));
    // Whoever sweeps the tables leaves their beginning in no cache.
    let swept = |service: &&Service| cases::new_flow_where(service, "right after a sweep");
    cases.extend(half.nat.iter().map(swept));
    let mut measured = passes(&mut balancer, generator, amount, cases)?;
    let nearly_full = half.up_to(7, &mut balancer, generator)?;
    let new = |service: &Service| cases::new_flow_where(service, "at 70 % of capacity");
    let cases = nearly_full.amid_traffic(nearly_full.nat.iter().copied(), new);
    measured.extend(passes(&mut balancer, generator, amount, cases)?);
    Ok(measured)
}

/// The same while half of a smaller table is full, that a cache may hold.
pub(super) fn opening_few(generator: &mut Generator, amount: Amount) -> anyhow::Result<Measured> {
    const FEW: u32 = 250_000;
    let mut balancer = Balancer::load(FEW, FEW, ANY_NUMBER)?;
    let services = services_of_all_modes();
    let empty = Filled {
        nat: services.iter().filter(is_nat).collect(),
        capacities: (FEW, FEW),
        tenths: 0,
    };
    for &service in &empty.nat {
        balancer.add(service.clone())?;
    }
    let half = empty.up_to(5, &mut balancer, generator)?;
    let name = format!("capacity {} k", FEW / 1000);
    let new = |service: &Service| cases::new_flow_where(service, &name);
    let cases = half.amid_traffic(half.nat.iter().copied(), new);
    passes(&mut balancer, generator, amount, cases)
}

fn is_nat(service: &&Service) -> bool {
    service.forwarding == Forwarding::Nat
}

/// Connection tables with so many tenths of their capacity in connections of the services of `nat`, one
/// of each address family.
struct Filled<'s> {
    nat: Vec<&'s Service>,
    /// IPv4 and IPv6 flows.
    capacities: (u32, u32),
    tenths: u32,
}

impl Filled<'_> {
    fn flows(&self, is_ipv4: bool) -> u32 {
        let (ipv4, ipv6) = self.capacities;
        let capacity = if is_ipv4 { ipv4 } else { ipv6 };
        capacity / 10 * self.tenths
    }

    /// Opens more connections, up to so many tenths. Half-open ones of later on expire soon.
    fn up_to(
        &self,
        tenths: u32,
        balancer: &mut Balancer,
        generator: &mut Generator,
    ) -> anyhow::Result<Self> {
        let filled = Self {
            nat: self.nat.clone(),
            tenths,
            ..*self
        };
        balancer.keep_half_open(HOUR)?;
        let mut connections = 0;
        for service in &self.nat {
            let is_ipv4 = service.is_ipv4();
            let flows = self.flows(is_ipv4)..filled.flows(is_ipv4);
            connections += u64::from(flows.end);
            let clients = Clients::of(is_ipv4).established;
            establish(balancer, generator, service, clients, flows, None)?;
        }
        balancer.expect_established(connections)?;
        balancer.forget_half_open_soon()?;
        Ok(filled)
    }

    /// Cases that packets of all these connections come before, of those of the same address family.
    fn amid_traffic<'c>(
        &self,
        services: impl IntoIterator<Item = &'c Service>,
        case: impl Fn(&Service) -> Case,
    ) -> Vec<Case> {
        let amid = |service: &Service| {
            let of_family = |nat: &&&Service| nat.is_ipv4() == service.is_ipv4();
            match self.nat.iter().find(of_family) {
                Some(nat) => cases::amid(nat, self.flows(service.is_ipv4()), case(service)),
                None => case(service),
            }
        };
        services.into_iter().map(amid).collect()
    }
}

/// A balancer that takes every SYN for part of a flood.
pub(super) fn flood(generator: &mut Generator, amount: Amount) -> anyhow::Result<Measured> {
    let mut balancer = Balancer::load(CAPACITY, CAPACITY_IPV6, 0)?;
    let mut cases = Vec::new();
    for service in services_of_all_modes() {
        // A new connection needs a port, flood or not.
        if service.forwarding != Forwarding::FullNat {
            cases.push(cases::flooded(&service));
            balancer.add(service)?;
        }
    }
    passes(&mut balancer, generator, amount, cases)
}

/// One that has few services first, and then more and more.
pub(super) fn many_services(generator: &mut Generator, amount: Amount) -> anyhow::Result<Measured> {
    let mut balancer = Balancer::load(CAPACITY, CAPACITY_IPV6, ANY_NUMBER)?;
    let mut measured = Vec::new();
    let mut services = Vec::new();
    for (round, &count) in (1..).zip(amount.services) {
        for number in services.len() as u16..count {
            let service = Service::one_of_many(number);
            balancer.add(service.clone())?;
            services.push(service);
        }
        // Who has connections with the first services already stays out of it.
        let client = Ipv4Addr::new(10, 3, 0, round);
        let case = establish_spread(&mut balancer, generator, &services, client)?;
        balancer.expect_established(u64::from(round) * u64::from(SPREAD))?;
        measured.extend(passes(&mut balancer, generator, amount, vec![case])?);
    }
    Ok(measured)
}

fn services_of_all_modes() -> Vec<Service> {
    let services = [true, false]
        .into_iter()
        .flat_map(|ipv4| MODES.map(|mode| (ipv4, mode)));
    (0..)
        .zip(services)
        .map(|(number, (ipv4, mode))| Service::new(number, ipv4, mode, Scheduler::default()))
        .collect()
}

fn passes(
    balancer: &mut Balancer,
    generator: &mut Generator,
    amount: Amount,
    cases: Vec<Case>,
) -> anyhow::Result<Measured> {
    let mut samples = vec![Vec::with_capacity(amount.passes); cases.len()];
    for pass in 0..amount.passes {
        let mut alone = Alone::default();
        for (case, samples) in cases.iter().zip(&mut samples) {
            let sample = measure(case, balancer, generator, &mut alone, amount, pass)
                .with_context(|| case.name.clone())?;
            samples.push(sample);
            if matches!(case.flows, Packets::New) {
                balancer.sweep_half_open()?;
            }
        }
    }
    Ok(cases.into_iter().zip(samples).collect())
}
