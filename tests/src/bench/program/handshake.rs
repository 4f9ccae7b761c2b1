//! Opens connections by handshakes through the program.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::Range,
};

use anyhow::{Context as _, ensure};
use lb_common::lab::FIRST_PORT;
use lb_userspace::model::{BackendIndex, Forwarding};

use super::{
    balancer::{Balancer, Counts, ONE_UNTRACKED_IN},
    cases::{Case, SPREAD, spread, spread_flow},
    frame::{ACK, Maker, SYN, SYN_ACK, Template, endpoints, number},
    generator::{Flows, Generator, TX},
    service::Service,
};

/// The template of a service's requests from these clients.
pub(super) fn request(service: &Service, clients: IpAddr, flags: u8) -> Template {
    let maker = if service.forwarding.is_tunnel() {
        Maker::Tunnelled
    } else {
        Maker::Request
    };
    Template {
        maker,
        clients,
        port: FIRST_PORT,
        other: service.listen,
        flags,
    }
}

/// Opens connections of a service from `clients`, one for each of these flows; `only` says which
/// backend shall get them all. With `full-nat`: the numbers ([`number`]) of the endpoints that they
/// are sent from, in the order of the flows.
pub(super) fn establish(
    balancer: &mut Balancer,
    generator: &mut Generator,
    service: &Service,
    clients: IpAddr,
    flows: Range<u32>,
    only: Option<BackendIndex>,
) -> anyhow::Result<Vec<u32>> {
    let (first, count) = (Flows::From(flows.start), flows.end - flows.start);
    let all = service.indices();
    if let Some(only) = only {
        balancer.apply(&service.write_table(&[only]))?;
    }
    let one = std::slice::from_ref(service);
    let before = balancer.counts(one)?;
    generator.test(&balancer.program()?)?;
    let syn = request(service, clients, SYN);
    let mut sent_from = Vec::new();
    match service.forwarding {
        Forwarding::Nat => {
            generator.run(&syn, first, count)?;
            // Each backend answers every client; the answers of those that were not asked pass.
            for &(_, address) in &service.backends {
                let answer = Template {
                    maker: Maker::Reply,
                    other: address,
                    flags: SYN_ACK,
                    ..syn
                };
                generator.run(&answer, first, count)?;
            }
        }
        Forwarding::FullNat => {
            sent_from = open_and_answer(generator, service, &syn, first, count)?;
        }
        Forwarding::Dsr | Forwarding::Ipip | Forwarding::Gue => {
            generator.run(&syn, first, count)?;
        }
    }
    let ack = generator.run(&Template { flags: ACK, ..syn }, first, count)?;
    if only.is_some() {
        balancer.apply(&service.write_table(&all))?;
    }
    let handshake = Counts {
        connections: 1,
        packets_in: 2,
        packets_out: u64::from(service.forwarding.sees_replies()),
        ..Counts::default()
    };
    let after = balancer.counts(one)?;
    let expected = before.after(count, handshake);
    let lost = u64::from(count) / ONE_UNTRACKED_IN;
    // A connection that has found no place gets no answer.
    let is_right = after.packets_out <= expected.packets_out
        && expected.packets_out - after.packets_out <= lost
        && after.untracked - before.untracked <= lost
        && ack.verdict == TX;
    let same = Counts {
        packets_out: expected.packets_out,
        untracked: expected.untracked,
        ..after
    };
    ensure!(
        is_right && same == expected,
        "{count} handshakes were counted as {after:?} instead of {expected:?}"
    );
    Ok(sent_from)
}

/// With `full-nat` only the program knows where a client's connection is sent from, so the backend
/// that it has chosen answers what it was asked.
fn open_and_answer(
    generator: &mut Generator,
    service: &Service,
    syn: &Template,
    first: Flows,
    count: u32,
) -> anyhow::Result<Vec<u32>> {
    let mut sent_from = Vec::new();
    let mut by_backend: BTreeMap<_, Vec<u32>> = BTreeMap::new();
    generator.run_one_by_one(syn, first, count, |run| {
        ensure!(run.verdict == TX, "a SYN's verdict was {}", run.verdict);
        let (source, destination) = endpoints(&run.frame).context("a SYN is no TCP any more")?;
        sent_from.push(number(source));
        by_backend
            .entry(destination)
            .or_default()
            .push(number(source));
        Ok(())
    })?;
    for (backend, asked) in by_backend {
        generator.list(&asked)?;
        generator.run(
            &listed_reply(service, backend, SYN_ACK),
            Flows::From(0),
            asked.len() as u32,
        )?;
    }
    Ok(sent_from)
}

/// Opens the connections of [`super::cases::spread`]: from this client, over these services.
pub(super) fn establish_spread(
    balancer: &mut Balancer,
    generator: &mut Generator,
    services: &[Service],
    client: Ipv4Addr,
) -> anyhow::Result<Case> {
    let hit = spread(services, client).context("there is no service")?;
    generator.test(&balancer.program()?)?;
    generator.list(&hit.list)?;
    let syn = Template {
        flags: SYN,
        ..hit.template
    };
    generator.run(&syn, Flows::From(0), SPREAD)?;
    for flow in 0..SPREAD {
        let (service, number) = spread_flow(flow, services.len());
        for &(_, backend) in services.get(service).iter().flat_map(|s| &s.backends) {
            let answer = Template {
                maker: Maker::Reply,
                port: FIRST_PORT + number,
                other: backend,
                flags: SYN_ACK,
                ..syn
            };
            generator.run(&answer, Flows::From(0), 1)?;
        }
    }
    generator.run(&hit.template, Flows::From(0), SPREAD)?;
    Ok(hit)
}

/// The template of a backend's replies to listed endpoints that the service sends from.
pub(super) fn listed_reply(service: &Service, backend: SocketAddr, flags: u8) -> Template {
    Template {
        maker: Maker::ListedReply,
        clients: service.snat_network,
        // The list has whole ports.
        port: 0,
        other: backend,
        flags,
    }
}
