//! Measures one case, and checks that the program did what is measured.

use std::{collections::BTreeMap, time::Duration};

use anyhow::ensure;
use lb_userspace::model::Forwarding;

use super::{
    Amount,
    balancer::{Balancer, Counts, ONE_UNTRACKED_IN},
    cases::{Case, Packets, Subject},
    frame::{BALANCER, Maker, checksums_hold, endpoints},
    generator::{Flows, Generator, NOTHING, Run, TX},
    service::Service,
};

/// Nanoseconds a packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) generator: f64,
    /// Generator and program.
    pub(super) both: f64,
}

/// What the generator costs, alone, for each of its programs and kinds of flows. (Every run of many
/// packets takes the kernel some 10 ms beside: one that tells nothing new is saved.)
#[derive(Default)]
pub(super) struct Alone(BTreeMap<(&'static str, Flows), f64>);

impl Alone {
    /// For a case with these flows, which are listed.
    fn cost(
        &mut self,
        case: &Case,
        generator: &mut Generator,
        flows: Flows,
        packets: u32,
    ) -> anyhow::Result<f64> {
        let key = (case.template.generator(), flows);
        if let Some(&cost) = self.0.get(&key) {
            return Ok(cost);
        }
        generator.test_floor(NOTHING)?;
        let run = generator.run(&case.template, flows, packets)?;
        let cost = nanoseconds(run.time, packets);
        self.0.insert(key, cost);
        Ok(cost)
    }
}

/// Measures a case in pass number `pass`.
pub(super) fn measure(
    case: &Case,
    balancer: &mut Balancer,
    generator: &mut Generator,
    alone: &mut Alone,
    amount: Amount,
    pass: usize,
) -> anyhow::Result<Sample> {
    let (flows, packets) = match case.flows {
        Packets::Established(flows) => (flows, amount.packets),
        Packets::New => (
            Flows::From(pass as u32 * amount.new_flows),
            amount.new_flows,
        ),
    };
    generator.list(&case.list)?;
    let alone = alone.cost(case, generator, flows, packets)?;
    let services = match &case.subject {
        Subject::Floor(name) => {
            generator.test_floor(name)?;
            &[]
        }
        Subject::Balancer(services) => {
            generator.test(&balancer.program()?)?;
            services.as_slice()
        }
    };
    if let Some(before) = &case.before {
        generator.run(&before.template, before.flows, before.packets)?;
    }
    let before = balancer.counts(services)?;
    let both = generator.run(&case.template, flows, packets)?;
    check_counts(case, packets, before, balancer.counts(services)?)?;
    check_last(case, services, &both)?;
    Ok(Sample {
        generator: alone,
        both: nanoseconds(both.time, packets),
    })
}

/// A packet's share.
fn nanoseconds(time: Duration, packets: u32) -> f64 {
    time.as_secs_f64() * 1e9 / f64::from(packets)
}

/// Whether every packet has been counted as it was to be.
fn check_counts(case: &Case, packets: u32, before: Counts, after: Counts) -> anyhow::Result<()> {
    let expected = before.after(packets, case.counts);
    let after = match case.flows {
        Packets::Established(_) => after,
        Packets::New => {
            let untracked = after.untracked - before.untracked;
            ensure!(
                untracked * ONE_UNTRACKED_IN <= u64::from(packets),
                "{untracked} of {packets} new flows found no place"
            );
            Counts {
                untracked: before.untracked,
                ..after
            }
        }
    };
    ensure!(
        after == expected,
        "{packets} packets were counted as {after:?} instead of {expected:?}"
    );
    Ok(())
}

/// Whether the last packet is what it was to become.
fn check_last(case: &Case, services: &[Service], run: &Run) -> anyhow::Result<()> {
    let Run { verdict, frame, .. } = run;
    ensure!(
        *verdict == case.verdict,
        "the last packet's verdict was {verdict}, not {}",
        case.verdict
    );
    ensure!(
        checksums_hold(frame),
        "the last packet has a wrong checksum: {frame:02x?}"
    );
    if case.verdict != TX {
        return Ok(());
    }
    ensure!(
        !frame.starts_with(&BALANCER),
        "the last packet has its old Ethernet address"
    );
    let goes_where_it_should = services
        .iter()
        .any(|service| is_of(service, case.template.maker, frame));
    ensure!(
        services.is_empty() || goes_where_it_should,
        "the last packet has wrong addresses: {frame:02x?}"
    );
    Ok(())
}

/// Whether the addresses are those of a packet that has been forwarded for this service.
fn is_of(service: &Service, maker: Maker, frame: &[u8]) -> bool {
    let Some((source, destination)) = endpoints(frame) else {
        return false;
    };
    let mut backends = service.backends.iter().map(|&(_, address)| address);
    match (maker, service.forwarding) {
        (Maker::Reply | Maker::ListedReply, _) => source == service.listen,
        (_, Forwarding::Nat | Forwarding::FullNat) => backends.any(|it| it == destination),
        (_, Forwarding::Dsr) => destination == service.listen,
        (_, Forwarding::Ipip | Forwarding::Gue) => {
            backends.any(|backend| backend.ip() == destination.ip())
        }
    }
}
