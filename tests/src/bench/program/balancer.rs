//! The load balancer under test: the production program with one service of each address family.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::Path,
    process,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use aya::programs::ProgramFd;
use lb_userspace::{
    dataplane::{
        BackendRecord, ConnectionTotals, DataPlane, KernelReader, KernelWriter, MapWrite, Reader,
        ServiceRecord, Settings, Slot, Timeouts, Writer as _,
    },
    model::{BackendIndex, Forwarding, MacAddr, NextHop, Scheduler, ServiceId, TableSize},
};

use super::{
    frame::{ACK, Direction, SYN, SYN_ACK, Template},
    generator::{Flows, Generator, TX},
    size::ProgramSize,
};

/// Test runs arrive on the loopback interface: what leaves there is `XDP_TX`.
const LOOPBACK: u32 = 1;
const BACKENDS: u16 = 4;
const HOUR: Duration = Duration::from_secs(3600);
const SERVICES: [ServiceId; 2] = [ServiceId(1), ServiceId(2)];

/// A service and its backends.
pub(super) struct Service {
    pub(super) listen: SocketAddr,
    pub(super) backends: Vec<(BackendIndex, SocketAddr)>,
    id: ServiceId,
}

pub(super) struct Balancer {
    plane: DataPlane,
    writer: KernelWriter,
    reader: Arc<KernelReader>,
    pub ipv4: Service,
    pub ipv6: Service,
}

/// What the balancer has counted, over all services and backends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) connections: u64,
    pub(super) packets_in: u64,
    pub(super) packets_out: u64,
    pub(super) drops: u64,
    pub(super) untracked: u64,
    /// Living records.
    pub(super) records: u64,
}

impl Counts {
    /// These, after so many packets that each add `one`.
    pub(super) fn after(self, packets: u32, one: Self) -> Self {
        let packets = u64::from(packets);
        Self {
            connections: self.connections + packets * one.connections,
            packets_in: self.packets_in + packets * one.packets_in,
            packets_out: self.packets_out + packets * one.packets_out,
            drops: self.drops + packets * one.drops,
            untracked: self.untracked + packets * one.untracked,
            records: self.records + packets * one.records,
        }
    }
}

impl Balancer {
    /// Loads the program over maps of its own, which end with this process.
    pub(super) fn load() -> anyhow::Result<Self> {
        let bpffs = format!("/sys/fs/bpf/lb-bench-{}", process::id());
        let opened = DataPlane::open(&Settings {
            bpffs: bpffs.clone().into(),
            // Room enough that each of the measured connections finds a place.
            capacity: 1_000_000,
            capacity_ipv6: 1_000_000,
            flood_limit: u32::MAX,
            answer_echo: true,
            log: false,
        });
        // Everything is open by now: nothing is left behind, however this ends.
        if Path::new(&bpffs).exists() {
            fs::remove_dir_all(&bpffs).with_context(|| format!("remove {bpffs}"))?;
        }
        let mut plane = opened?;
        let writer = plane.take_writer().context("the writer was taken")?;
        let mut balancer = Self {
            writer,
            reader: plane.reader(),
            plane,
            ipv4: Service::new(SERVICES[0], "192.0.2.1", "198.51.100.", 1)?,
            ipv6: Service::new(SERVICES[1], "2001:db8::1", "2001:db8:ff::", 1 + BACKENDS)?,
        };
        let writes = [&balancer.ipv4, &balancer.ipv6].map(Service::writes);
        for write in writes.iter().flatten() {
            balancer.writer.apply(write)?;
        }
        Ok(balancer)
    }

    pub(super) fn program(&mut self) -> anyhow::Result<ProgramFd> {
        Ok(self.plane.program()?.fd()?.try_clone()?)
    }

    /// Of the program that packets enter first, and of those behind it.
    pub(super) fn sizes(&self) -> anyhow::Result<Vec<ProgramSize>> {
        let mut programs = self.plane.programs()?;
        programs.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(programs.iter().map(ProgramSize::of).collect())
    }

    pub(super) fn counts(&self) -> anyhow::Result<Counts> {
        let mut counts = Counts {
            records: self.reader.connection_totals().used,
            ..Counts::default()
        };
        for (index, _) in self.ipv4.backends.iter().chain(&self.ipv6.backends) {
            let backend = self.reader.backend_counters(*index)?;
            counts.connections += backend.connections;
            counts.packets_in += backend.packets_in;
            counts.packets_out += backend.packets_out;
        }
        // Service 0 stands for packets aimed at a service's address but at no service.
        for service in SERVICES.into_iter().chain([ServiceId(0)]) {
            let service = self.reader.service_counters(service)?;
            counts.drops += service.drops;
            counts.untracked += service.untracked;
        }
        Ok(counts)
    }

    pub(super) fn service(&self, ipv4: bool) -> &Service {
        if ipv4 { &self.ipv4 } else { &self.ipv6 }
    }

    /// Opens `count` connections from `clients`, flows 0 and up, by handshakes through the
    /// program; `only` says which backend shall get them all.
    pub(super) fn establish(
        &mut self,
        generator: &mut Generator,
        clients: IpAddr,
        count: u32,
        only: Option<BackendIndex>,
    ) -> anyhow::Result<()> {
        let service = self.service(clients.is_ipv4());
        let owners: Vec<_> = match only {
            Some(index) => vec![index],
            None => service.backends.iter().map(|&(index, _)| index).collect(),
        };
        let backends = service.backends.clone();
        let request = |flags| Template {
            direction: Direction::Request,
            clients,
            other: service.listen,
            flags,
        };
        let (open, confirm) = (request(SYN), request(ACK));
        let steal = service.write_table(&owners);
        let restore =
            service.write_table(&backends.iter().map(|&(index, _)| index).collect::<Vec<_>>());

        self.writer.apply(&steal)?;
        let before = self.counts()?;
        let established = self.reader.connection_totals().established;
        generator.test(&self.program()?)?;
        let syn = generator.run(&open, Flows::From(0), count)?;
        // Each backend answers every client; the answers of those that were not asked pass.
        for &(_, address) in &backends {
            let answer = Template {
                direction: Direction::Reply,
                other: address,
                flags: SYN_ACK,
                ..open
            };
            generator.run(&answer, Flows::From(0), count)?;
        }
        let ack = generator.run(&confirm, Flows::From(0), count)?;
        self.writer.apply(&restore)?;

        let after = self.counts()?;
        let handshake = Counts {
            connections: 1,
            packets_in: 2,
            packets_out: 1,
            records: 1,
            ..Counts::default()
        };
        let expected = before.after(count, handshake);
        ensure!(
            after == expected && syn.verdict == TX && ack.verdict == TX,
            "{count} handshakes were counted as {after:?} instead of {expected:?}"
        );
        let ConnectionTotals {
            established: now, ..
        } = self.reader.connection_totals();
        ensure!(
            now == established + u64::from(count),
            "{count} handshakes made {} connections",
            now - established
        );
        Ok(())
    }

    /// From now on half-open records live no longer than to the end of a tick of about a second,
    /// so that [`Balancer::sweep_half_open`] need not wait.
    pub(super) fn forget_half_open_soon(&mut self) -> anyhow::Result<()> {
        for service in [&self.ipv4, &self.ipv6] {
            self.writer.apply(&service.write_service(Duration::ZERO))?;
        }
        Ok(())
    }

    /// Waits until half-open records have expired and removes them.
    pub(super) fn sweep_half_open(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.reader.connection_totals().half_open > 0 {
            ensure!(Instant::now() < deadline, "half-open records do not expire");
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Service {
    fn new(id: ServiceId, listen: &str, network: &str, first: u16) -> anyhow::Result<Self> {
        let backends = (0..BACKENDS).map(|n| {
            let address: IpAddr = format!("{network}{}", n + 1).parse()?;
            anyhow::Ok((BackendIndex(first + n), SocketAddr::new(address, 8080)))
        });
        Ok(Self {
            listen: SocketAddr::new(listen.parse()?, 80),
            backends: backends.collect::<Result<_, _>>()?,
            id,
        })
    }

    /// What makes this service, as the engine would have it.
    fn writes(&self) -> Vec<MapWrite> {
        let all: Vec<_> = self.backends.iter().map(|&(index, _)| index).collect();
        let mut writes = vec![
            MapWrite::CreateTable {
                service: self.id,
                slots: TableSize::default().slots(),
            },
            self.write_table(&all),
            self.write_service(HOUR),
        ];
        for &(index, address) in &self.backends {
            writes.push(MapWrite::WriteBackend {
                backend: index,
                record: BackendRecord {
                    forwarding: Forwarding::Nat,
                    max_packet: 1500,
                    service: self.id,
                    listen: self.listen,
                    address,
                    accepts_new: true,
                    next_hop: Some(NextHop {
                        ifindex: LOOPBACK,
                        interface: "lo".to_owned(),
                        source_mac: MacAddr([2, 0, 0, 0, 0, 1]),
                        destination_mac: MacAddr([2, 0, 0, 0, 0, 3]),
                        vlan: Vec::new(),
                        mtu: 1500,
                    }),
                    next_with_same_address: None,
                },
            });
            writes.push(MapWrite::BindEndpoint {
                address,
                backend: index,
            });
        }
        writes.push(MapWrite::Listen {
            address: self.listen,
            service: self.id,
        });
        writes
    }

    fn write_service(&self, half_open: Duration) -> MapWrite {
        MapWrite::WriteService {
            service: self.id,
            record: ServiceRecord {
                listen: self.listen,
                forwarding: Forwarding::Nat,
                scheduler: Scheduler::Maglev,
                slots: TableSize::default().slots(),
                timeouts: Timeouts {
                    half_open,
                    established: HOUR,
                    fin_wait: HOUR,
                    closing: HOUR,
                    time_wait: HOUR,
                    reset: HOUR,
                },
                snat: Vec::new(),
                tunnel: Default::default(),
                no_backend: Default::default(),
            },
        }
    }

    /// A table that `owners` share, slot by slot in turn.
    fn write_table(&self, owners: &[BackendIndex]) -> MapWrite {
        let owners = owners.iter().cycle().map(|&owner| Slot {
            primary: Some(owner),
            secondary: None,
        });
        MapWrite::WriteTable {
            service: self.id,
            slots: owners.take(TableSize::default().slots() as usize).collect(),
        }
    }
}
