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

type Measured = Vec<(Case, Vec<Sample>)>;

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
    let mut cases: Vec<_> = services.iter().map(cases::new_flow).collect();
    let scheduled: Vec<_> = (services.len() as u16..)
        .zip(schedulers())
        .map(|(number, scheduler)| Service::new(number, true, Forwarding::Nat, scheduler))
        .collect();
    cases.extend(scheduled.iter().map(cases::scheduled));
    for service in services.iter().chain(&scheduled) {
        balancer.add(service.clone())?;
    }
    let nat: Vec<_> = services.iter().filter(is_nat).collect();
    let capacities = (CAPACITY, CAPACITY_IPV6);
    fill(&mut balancer, generator, &nat, capacities, (0, 5))?;
    let mut measured = passes(&mut balancer, generator, amount, cases)?;
    fill(&mut balancer, generator, &nat, capacities, (5, 7))?;
    let nearly_full = |service| cases::new_flow_where(service, "at 70 % of capacity");
    let cases = nat.iter().copied().map(nearly_full).collect();
    measured.extend(passes(&mut balancer, generator, amount, cases)?);
    Ok(measured)
}

/// The same while half of a smaller table is full, that a cache may hold.
pub(super) fn opening_few(generator: &mut Generator, amount: Amount) -> anyhow::Result<Measured> {
    const FEW: u32 = 250_000;
    let mut balancer = Balancer::load(FEW, FEW, ANY_NUMBER)?;
    let services = services_of_all_modes();
    let nat: Vec<_> = services.iter().filter(is_nat).collect();
    for &service in &nat {
        balancer.add(service.clone())?;
    }
    fill(&mut balancer, generator, &nat, (FEW, FEW), (0, 5))?;
    let name = format!("capacity {} k", FEW / 1000);
    let small = |service| cases::new_flow_where(service, &name);
    let cases = nat.iter().copied().map(small).collect();
    passes(&mut balancer, generator, amount, cases)
}

fn is_nat(service: &&Service) -> bool {
    service.forwarding == Forwarding::Nat
}

/// Opens connections of these services, from so many tenths of the IPv4 and IPv6 capacities to so
/// many. Half-open ones of later on expire soon.
fn fill(
    balancer: &mut Balancer,
    generator: &mut Generator,
    services: &[&Service],
    capacities: (u32, u32),
    (from, to): (u32, u32),
) -> anyhow::Result<()> {
    balancer.keep_half_open(HOUR)?;
    let mut connections = 0;
    for service in services {
        let capacity = match service.is_ipv4() {
            true => capacities.0,
            false => capacities.1,
        };
        let flows = capacity / 10 * from..capacity / 10 * to;
        connections += u64::from(flows.end);
        let clients = Clients::of(service.is_ipv4()).established;
        establish(balancer, generator, service, clients, flows, None)?;
    }
    balancer.expect_established(connections)?;
    balancer.forget_half_open_soon()
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
