//! The load balancer under test: the production program over maps of its own.

use std::{
    fs,
    path::Path,
    process,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use aya::programs::{ProgramFd, ProgramInfo, Xdp};
use lb_common::reason::Reason;
use lb_userspace::{
    dataplane::{
        Clock, ConnectionTotals, DataPlane, KernelReader, KernelWriter, MapWrite, Reader as _,
        Settings, Writer as _,
    },
    model::ServiceId,
};

use super::{service::Service, size::ProgramSize};

pub(in crate::bench) struct Balancer {
    plane: DataPlane,
    writer: KernelWriter,
    reader: Arc<KernelReader>,
    services: Vec<Service>,
    /// Once all have been opened that are to stay.
    established: u64,
}

/// What the balancer has counted for services and their backends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::bench) struct Counts {
    pub(in crate::bench) connections: u64,
    pub(in crate::bench) packets_in: u64,
    pub(in crate::bench) packets_out: u64,
    pub(in crate::bench) drops: u64,
    pub(in crate::bench) untracked: u64,
    /// New connections in a flood.
    pub(in crate::bench) unrecorded: u64,
}

impl Counts {
    /// These, after so many packets that each add `one`.
    pub(in crate::bench) fn after(self, packets: u32, one: Self) -> Self {
        let packets = u64::from(packets);
        Self {
            connections: self.connections + packets * one.connections,
            packets_in: self.packets_in + packets * one.packets_in,
            packets_out: self.packets_out + packets * one.packets_out,
            drops: self.drops + packets * one.drops,
            untracked: self.untracked + packets * one.untracked,
            unrecorded: self.unrecorded + packets * one.unrecorded,
        }
    }
}

/// Of so many new connections one may find no place in the connection table.
pub(super) const ONE_UNTRACKED_IN: u64 = 1000;

/// So many half-open records, of both address families, leave the others room.
const MOST_HALF_OPEN: u64 = 40_000;

/// What is no flood.
pub(in crate::bench) const ANY_NUMBER: u32 = u32::MAX;

impl Balancer {
    /// Loads the program over maps that end with this process: with room for so many IPv4 and IPv6
    /// flows, and this many new ones in a tick before it takes them for a flood.
    pub(in crate::bench) fn load(
        capacity: u32,
        capacity_ipv6: u32,
        flood_limit: u32,
    ) -> anyhow::Result<Self> {
        let bpffs = format!("/sys/fs/bpf/lb-bench-{}", process::id());
        let opened = DataPlane::open(&Settings {
            bpffs: bpffs.clone().into(),
            capacity,
            capacity_ipv6,
            flood_limit,
            answer_echo: true,
            log: false,
        });
        // Everything is open by now: nothing is left behind, however this ends.
        if Path::new(&bpffs).exists() {
            fs::remove_dir_all(&bpffs).with_context(|| format!("remove {bpffs}"))?;
        }
        let mut plane = opened?;
        let writer = plane.take_writer().context("the writer was taken")?;
        Ok(Self {
            writer,
            reader: plane.reader(),
            plane,
            services: Vec::new(),
            established: 0,
        })
    }

    pub(in crate::bench) fn add(&mut self, service: Service) -> anyhow::Result<()> {
        for write in service.writes() {
            self.apply(&write)?;
        }
        self.services.push(service);
        Ok(())
    }

    pub(in crate::bench) fn apply(&mut self, write: &MapWrite) -> anyhow::Result<()> {
        Ok(self.writer.apply(write)?)
    }

    pub(in crate::bench) fn program(&mut self) -> anyhow::Result<ProgramFd> {
        Ok(self.plane.program()?.fd()?.try_clone()?)
    }

    /// For attaching it.
    pub(in crate::bench) fn xdp(&mut self) -> anyhow::Result<&mut Xdp> {
        Ok(self.plane.program()?)
    }

    pub(in crate::bench) fn clock(&self) -> Arc<Clock> {
        self.plane.clock()
    }

    /// Every program that is loaded, by its name.
    pub(in crate::bench) fn programs(&self) -> anyhow::Result<Vec<(String, ProgramInfo)>> {
        Ok(self.plane.programs()?)
    }

    /// Of every program that is loaded.
    pub(super) fn sizes(&self) -> anyhow::Result<Vec<ProgramSize>> {
        let mut programs = self.programs()?;
        programs.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(programs.iter().map(ProgramSize::of).collect())
    }

    /// For all of these services.
    pub(in crate::bench) fn counts(&self, services: &[Service]) -> anyhow::Result<Counts> {
        let mut counts = Counts::default();
        for (index, _) in services.iter().flat_map(|service| &service.backends) {
            let backend = self.reader.backend_counters(*index)?;
            counts.connections += backend.connections;
            counts.packets_in += backend.packets_in;
            counts.packets_out += backend.packets_out;
        }
        // Service 0 stands for packets aimed at a service's address but at no service.
        let ids = services.iter().map(|service| service.id);
        for service in ids.chain([ServiceId(0)]) {
            for reason in self.reader.reasons(Some(service))? {
                if reason.dropped {
                    counts.drops += reason.packets;
                } else if reason.reason == Reason::Untracked.name() {
                    counts.untracked += reason.packets;
                } else if reason.reason == Reason::FloodUnrecorded.name() {
                    counts.unrecorded += reason.packets;
                }
            }
        }
        Ok(counts)
    }

    /// From now on half-open records live no longer than to the end of a tick of about a second, so
    /// that [`Balancer::sweep_half_open`] need not wait.
    pub(super) fn forget_half_open_soon(&mut self) -> anyhow::Result<()> {
        self.keep_half_open(Duration::ZERO)
    }

    /// For how long half-open records live from now on.
    pub(super) fn keep_half_open(&mut self, timeout: Duration) -> anyhow::Result<()> {
        let writes: Vec<_> = self
            .services
            .iter()
            .map(|service| service.write_service(timeout))
            .collect();
        writes.iter().try_for_each(|write| self.apply(write))
    }

    /// `count` connections have been opened, which are to stay.
    pub(in crate::bench) fn expect_established(&mut self, count: u64) -> anyhow::Result<()> {
        let ConnectionTotals { established, .. } = self.reader.connection_totals();
        ensure!(
            established <= count && count - established <= count / ONE_UNTRACKED_IN,
            "{count} handshakes made {established} connections"
        );
        self.established = established;
        Ok(())
    }

    /// Waits until half-open records have expired and removes them, if there are many, with what
    /// they have left behind, as the daemon does once a minute. Those that are to stay are still
    /// there.
    pub(super) fn sweep_half_open(&self) -> anyhow::Result<()> {
        let lost = self.established / ONE_UNTRACKED_IN;
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut waited = false;
        loop {
            let ConnectionTotals {
                half_open,
                established,
                ..
            } = self.reader.connection_totals();
            // Those that have found no place try it again and again.
            ensure!(
                (self.established..=self.established + lost).contains(&established),
                "of {} connections {established} are left",
                self.established
            );
            if half_open <= MOST_HALF_OPEN {
                if waited {
                    self.plane.overflows().refresh()?;
                }
                return Ok(());
            }
            waited = true;
            ensure!(Instant::now() < deadline, "half-open records do not expire");
            thread::sleep(Duration::from_millis(100));
        }
    }
}
