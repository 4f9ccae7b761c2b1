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
use aya::programs::{ProgramFd, ProgramInfo, Xdp};
use lb_userspace::{
    dataplane::{
        BackendRecord, ConnectionTotals, DataPlane, KernelReader, KernelWriter, MapWrite, Reader,
        ServiceRecord, Settings, Slot, Timeouts, Writer as _,
    },
    model::{BackendIndex, Forwarding, MacAddr, NextHop, Scheduler, ServiceId, TableSize},
};

use super::{
    frame::{ACK, Direction, SYN, SYN_ACK, Template},
    generator::Flows,
};

/// Test runs arrive on the loopback interface: what leaves there is `XDP_TX`.
pub(super) const LOOPBACK: u32 = 1;
const BACKENDS: u16 = 4;
const HOUR: Duration = Duration::from_secs(3600);
const SERVICES: [ServiceId; 3] = [ServiceId(1), ServiceId(2), ServiceId(3)];

/// A service and its backends.
pub(super) struct Service {
    pub(super) listen: SocketAddr,
    pub(super) backends: Vec<(BackendIndex, SocketAddr)>,
    forwarding: Forwarding,
    id: ServiceId,
}

/// Sends so many packets of some flows through the program.
pub(super) type Send<'a> = dyn FnMut(&Template, Flows, u32) -> anyhow::Result<()> + 'a;

pub(super) struct Balancer {
    plane: DataPlane,
    writer: KernelWriter,
    reader: Arc<KernelReader>,
    /// `nat`.
    pub ipv4: Service,
    /// `nat`.
    pub ipv6: Service,
    /// `ipip`, of IPv4 in IPv4.
    pub ipip: Service,
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
    /// Loads the program over maps of its own, which end with this process. It sends what is for a
    /// backend out of the interface `out`, an index in the caller's network namespace.
    pub(super) fn load(out: u32) -> anyhow::Result<Self> {
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
            ipv4: Service::new(SERVICES[0], Forwarding::Nat, "192.0.2.1", "198.51.100.", 1)?,
            ipv6: Service::new(
                SERVICES[1],
                Forwarding::Nat,
                "2001:db8::1",
                "2001:db8:ff::",
                1 + BACKENDS,
            )?,
            ipip: Service::new(
                SERVICES[2],
                Forwarding::Ipip,
                "192.0.2.2",
                "198.51.100.10",
                1 + 2 * BACKENDS,
            )?,
        };
        let writes = balancer.services().map(|service| service.writes(out));
        for write in writes.iter().flatten() {
            balancer.writer.apply(write)?;
        }
        Ok(balancer)
    }

    /// From now on sends what is for a backend out of another interface; see [`Balancer::load`].
    pub(super) fn send_out_of(&mut self, out: u32) -> anyhow::Result<()> {
        let writes = self.services().map(|service| service.write_backends(out));
        for write in writes.iter().flatten() {
            self.writer.apply(write)?;
        }
        Ok(())
    }

    fn services(&self) -> [&Service; 3] {
        [&self.ipv4, &self.ipv6, &self.ipip]
    }

    /// For attaching it to an interface.
    pub(super) fn xdp(&mut self) -> anyhow::Result<&mut Xdp> {
        Ok(self.plane.program()?)
    }

    pub(super) fn program(&mut self) -> anyhow::Result<ProgramFd> {
        Ok(self.plane.program()?.fd()?.try_clone()?)
    }

    pub(super) fn program_info(&mut self) -> anyhow::Result<ProgramInfo> {
        Ok(self.plane.program()?.info()?)
    }

    pub(super) fn counts(&self) -> anyhow::Result<Counts> {
        let mut counts = Counts {
            records: self.reader.connection_totals().used,
            ..Counts::default()
        };
        let backends = self.services().map(|service| &service.backends);
        for (index, _) in backends.into_iter().flatten() {
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

    /// Opens `count` connections from `clients` to the service `of`, flows 0 and up, by handshakes
    /// that `send` sends through the program; `only` says which backend shall get them all.
    pub(super) fn establish(
        &mut self,
        of: fn(&Self) -> &Service,
        send: &mut Send<'_>,
        clients: IpAddr,
        count: u32,
        only: Option<BackendIndex>,
    ) -> anyhow::Result<()> {
        let service = of(self);
        let owners: Vec<_> = match only {
            Some(index) => vec![index],
            None => service.backends.iter().map(|&(index, _)| index).collect(),
        };
        let backends = service.backends.clone();
        let sees_replies = service.forwarding.sees_replies();
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
        send(&open, Flows::From(0), count)?;
        // Each backend answers every client; the answers of those that were not asked pass.
        for &(_, address) in backends.iter().filter(|_| sees_replies) {
            let answer = Template {
                direction: Direction::Reply,
                other: address,
                flags: SYN_ACK,
                ..open
            };
            send(&answer, Flows::From(0), count)?;
        }
        send(&confirm, Flows::From(0), count)?;
        self.writer.apply(&restore)?;

        let after = self.counts()?;
        let handshake = Counts {
            connections: 1,
            packets_in: 2,
            packets_out: u64::from(sees_replies),
            records: 1,
            ..Counts::default()
        };
        let expected = before.after(count, handshake);
        ensure!(
            after == expected,
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
        let writes = self
            .services()
            .map(|service| service.write_service(Duration::ZERO));
        for write in &writes {
            self.writer.apply(write)?;
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
    fn new(
        id: ServiceId,
        forwarding: Forwarding,
        listen: &str,
        network: &str,
        first: u16,
    ) -> anyhow::Result<Self> {
        let backends = (0..BACKENDS).map(|n| {
            let address: IpAddr = format!("{network}{}", n + 1).parse()?;
            anyhow::Ok((BackendIndex(first + n), SocketAddr::new(address, 8080)))
        });
        Ok(Self {
            listen: SocketAddr::new(listen.parse()?, 80),
            backends: backends.collect::<Result<_, _>>()?,
            forwarding,
            id,
        })
    }

    /// What makes this service, as the engine would have it.
    fn writes(&self, out: u32) -> Vec<MapWrite> {
        let all: Vec<_> = self.backends.iter().map(|&(index, _)| index).collect();
        let mut writes = vec![
            MapWrite::CreateTable {
                service: self.id,
                slots: TableSize::default().slots(),
            },
            self.write_table(&all),
            self.write_service(HOUR),
        ];
        writes.extend(self.write_backends(out));
        if self.forwarding.sees_replies() {
            let bind = |&(backend, address)| MapWrite::BindEndpoint { address, backend };
            writes.extend(self.backends.iter().map(bind));
        }
        writes.push(MapWrite::Listen {
            address: self.listen,
            service: self.id,
        });
        writes
    }

    fn write_backends(&self, out: u32) -> Vec<MapWrite> {
        let write = |&(backend, address)| MapWrite::WriteBackend {
            backend,
            record: BackendRecord {
                forwarding: self.forwarding,
                max_packet: if self.forwarding.is_tunnel() {
                    1480
                } else {
                    1500
                },
                service: self.id,
                listen: self.listen,
                address,
                accepts_new: true,
                next_hop: Some(NextHop {
                    ifindex: out,
                    // For people only.
                    interface: String::new(),
                    source_mac: MacAddr([2, 0, 0, 0, 0, 1]),
                    destination_mac: MacAddr([2, 0, 0, 0, 0, 3]),
                    vlan: Vec::new(),
                    mtu: 1500,
                }),
                next_with_same_address: None,
            },
        };
        self.backends.iter().map(write).collect()
    }

    fn write_service(&self, half_open: Duration) -> MapWrite {
        MapWrite::WriteService {
            service: self.id,
            record: ServiceRecord {
                listen: self.listen,
                forwarding: self.forwarding,
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
