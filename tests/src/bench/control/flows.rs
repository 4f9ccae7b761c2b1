//! A million flows in the connection table: seen, listed, taken over.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use lb_common::lab::FIRST_PORT;
use lb_userspace::{
    dataplane::{BackendRecord, DataPlane, MapWrite, Reader as _, Writer as _},
    model::{BackendIndex, Forwarding, MacAddr, NextHop, ServiceId},
};

use super::{
    daemon::{Daemon, services},
    figures::{Figures, Unit, timed},
    memory::Memory,
};
use crate::{
    bench::program::{
        frame::{ACK, Maker, SYN, Template},
        generator::{Flows, Generator, TX},
    },
    lab::Lab,
};

const FLOWS: u32 = 1_000_000;
/// One in a thousand of the last ones may find no place, fewer of those before.
const LEAST: u64 = 999_000;
/// What `lbctl conntrack list --limit 100` asks for.
const PAGE: &str = "/conntrack?limit=100";
/// As `services` has it.
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 100, 0, 10)), 80);
const BACKEND: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 80);
/// Test runs arrive there: what leaves there is `XDP_TX`.
const LOOPBACK: u32 = 1;

pub(super) fn measure(figures: &mut Figures, lab: &Lab) -> anyhow::Result<()> {
    // Seen in one direction, a connection is established by its client alone.
    let mut lbd = Daemon::new(lab, "flows", &services(1, 1, "dsr"))?;
    lbd.start()?;
    lbd.kill()?;
    let mut plane = lbd.pinned.open()?;
    fill(&mut plane)?;
    sweep(figures, &plane)?;
    drop(plane);
    ask(figures, &mut lbd)
}

/// Through the program, in place of the daemon's.
fn fill(plane: &mut DataPlane) -> anyhow::Result<()> {
    let mut writer = plane.take_writer()?;
    writer.apply(&MapWrite::WriteBackend {
        backend: BackendIndex(1),
        record: BackendRecord {
            service: ServiceId(1),
            listen: LISTEN,
            forwarding: Forwarding::Dsr,
            address: BACKEND,
            accepts_new: true,
            next_hop: Some(NextHop {
                ifindex: LOOPBACK,
                interface: "lo".to_owned(),
                source_mac: MacAddr([2, 0, 0, 0, 0, 1]),
                destination_mac: MacAddr([2, 0, 0, 0, 0, 3]),
                vlan: Vec::new(),
                mtu: 1500,
            }),
            max_packet: 0,
            next_with_same_address: None,
            shares_address: false,
        },
    })?;
    let mut generator = Generator::load()?;
    generator.test(&plane.program()?.fd()?.try_clone()?)?;
    for flags in [SYN, ACK] {
        let segment = Template {
            maker: Maker::Request,
            clients: Ipv4Addr::new(10, 1, 0, 0).into(),
            port: FIRST_PORT,
            other: LISTEN,
            flags,
        };
        let run = generator.run(&segment, Flows::From(0), FLOWS)?;
        ensure!(run.verdict == TX, "the last packet was not forwarded");
    }
    let established = plane.reader().connection_totals().established;
    ensure!(
        established >= LEAST,
        "{FLOWS} connections came to {established} records"
    );
    Ok(())
}

/// What the daemon does with a million of them, without its API.
fn sweep(figures: &mut Figures, plane: &DataPlane) -> anyhow::Result<()> {
    let reader = plane.reader();
    let (mut swept, mut visited) = (Vec::new(), Vec::new());
    for _ in 0..figures.passes {
        let (time, totals) = timed(|| reader.connection_totals());
        ensure!(totals.used >= LEAST, "{} records", totals.used);
        swept.push(time);
        let mut seen = 0_u64;
        let (time, ()) = timed(|| {
            reader.connections(&mut |connection| {
                seen += u64::from(connection.client.is_ipv4());
                true
            });
        });
        ensure!(seen >= LEAST, "{seen} connections");
        visited.push(time);
    }
    figures.time("1 000 000 flows swept", Unit::Milliseconds, &swept);
    figures.time("1 000 000 flows visited", Unit::Milliseconds, &visited);
    Ok(())
}

fn ask(figures: &mut Figures, lbd: &mut Daemon<'_>) -> anyhow::Result<()> {
    let mut times: [Vec<Duration>; 4] = Default::default();
    let mut memory = Vec::new();
    for _ in 0..figures.passes {
        let start = lbd.start()?;
        let (stats, answer) = timed(|| lbd.get("/conntrack/stats"));
        let established = serde_json::from_slice::<serde_json::Value>(&answer?)?;
        let established = established["established"].as_u64().context("no count")?;
        ensure!(established >= LEAST, "{established} connections");
        let (page, answer) = timed(|| lbd.get(PAGE));
        answer?;
        let (list, answer) = timed(|| lbd.get("/conntrack"));
        let rows = answer?.iter().filter(|&&byte| byte == b'\n').count() as u64;
        ensure!(rows >= LEAST, "{rows} rows");
        for (times, sample) in times.iter_mut().zip([start, stats, page, list]) {
            times.push(sample);
        }
        memory.push(Memory::of(lbd)?.total());
        lbd.kill()?;
    }
    let names = [
        "restart until adopted, 1 000 000 flows",
        "1 000 000 flows, totals from the API",
        "1 000 000 flows, first 100 and their number from the API",
        "1 000 000 flows, all from the API",
    ];
    for (name, times) in names.iter().zip(&times) {
        figures.time(name, Unit::Milliseconds, times);
    }
    figures.megabytes("daemon + maps, 1 000 000 flows", &memory, None);
    Ok(())
}
