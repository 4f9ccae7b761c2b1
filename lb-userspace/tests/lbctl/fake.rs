//! A daemon without engine and kernel: the real API server over canned state, on a socket of its own.

use std::{
    collections::HashMap,
    io,
    path::PathBuf,
    process::Output,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::BoxFuture;
use lb_userspace::{
    api::{Context, Control, Detached, Ended, Settings, Socket, serve},
    config::{Config, InterfaceSettings, WantedMode},
    dataplane::{
        AttachMode, AttachedInterface, BackendCounters, Connection, ConnectionTotals,
        DataPlaneError, Reader, ReasonCount, Sample, ServiceCounters,
    },
    engine::{BackendView, Change, ChangeError, ServiceView, Snapshot},
    model::{
        Admin, Backend, BackendIndex, Check, CheckKind, Desired, Forwarding, Health, MacAddr, Name,
        NextHop, NoBackend, OnExpiry, Profile, Protocol, Scheduler, Service, ServiceId, TableSize,
        TimeoutOverrides, Unresolved, VlanTag, Weight,
    },
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{process::Command, sync::oneshot, task::JoinHandle, time::timeout};

/// Far more than anything here takes; a test that hangs fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// Living connections of service `web`, spread over its two backends, and one of a removed one.
pub(crate) const WEB_CONNECTIONS: u16 = 250;

pub(crate) struct Daemon {
    pub(crate) directory: TempDir,
    pub(crate) changes: Arc<Mutex<Vec<Change>>>,
    pub(crate) detached: Arc<Mutex<u32>>,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<io::Result<Ended>>,
}

impl Daemon {
    pub(crate) async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let changes = Arc::new(Mutex::new(Vec::new()));
        let detached = Arc::new(Mutex::new(0));
        let mut config = Config::default();
        config.daemon.socket = directory.path().join("lbd.sock");
        config.daemon.bpffs = directory.path().join("pins");
        config.interfaces = vec![InterfaceSettings {
            name: "eth0".to_owned(),
            mode: WantedMode::Auto,
        }];
        config.desired = desired();
        let config_file = directory.path().join("lb.toml");
        std::fs::write(&config_file, config.to_toml()).unwrap();

        let socket = Socket::bind(&config.daemon.socket).unwrap();
        let detach = {
            let detached = detached.clone();
            Box::new(move || {
                *detached.lock().unwrap() += 1;
                Ok(Detached {
                    interfaces: vec!["eth0".to_owned()],
                    maps: 12,
                })
            })
        };
        let context = Arc::new(Context::new(
            Arc::new(Engine {
                changes: changes.clone(),
            }),
            Arc::new(Kernel),
            config_file,
            Settings::from(config),
            detach,
        ));
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(serve(socket, context, async {
            let _ = stopped.await;
        }));
        Self {
            directory,
            changes,
            detached,
            stop: Some(stop),
            server,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Runs the real `lbctl` against this daemon, in its directory.
    pub(crate) async fn lbctl(&self, args: &[&str]) -> Output {
        let socket = self.path("lbd.sock");
        let mut command = command(args);
        command
            .arg("--socket")
            .arg(socket)
            .current_dir(self.directory.path());
        finish(command).await
    }

    /// Lets the server end, or waits until it has by itself.
    pub(crate) async fn ended(mut self, stop: bool) -> Ended {
        if stop {
            self.stop.take().unwrap().send(()).unwrap();
        }
        let ended = timeout(DEADLINE, self.server).await.unwrap();
        ended.unwrap().unwrap()
    }
}

/// Runs the real `lbctl`.
pub(crate) async fn lbctl(args: &[&str]) -> Output {
    finish(command(args)).await
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lbctl"));
    command.args(args);
    command
}

async fn finish(mut command: Command) -> Output {
    timeout(DEADLINE, command.output()).await.unwrap().unwrap()
}

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// `web` with two backends, `mail` (IPv6, through a tunnel) with one that is not probed.
pub(crate) fn desired() -> Desired {
    let backend = |text: &str, address: &str| Backend {
        name: name(text),
        address: address.parse().unwrap(),
        weight: Weight::DEFAULT,
        admin: Admin::Enabled,
    };
    let service = |text: &str, listen: &str, kind, backends| Service {
        name: name(text),
        listen: listen.parse().unwrap(),
        protocol: Protocol::Tcp,
        forwarding: Forwarding::Nat,
        scheduler: Scheduler::Maglev,
        table_size: TableSize::default(),
        check: Check {
            kind,
            ..Check::default()
        },
        timeouts: TimeoutOverrides::default(),
        snat: Vec::new(),
        tunnel: Default::default(),
        no_backend: Default::default(),
        on_expiry: Default::default(),
        on_backend_down: Default::default(),
        backends,
    };
    let http = CheckKind::Http {
        path: "/healthz".to_owned(),
        host: None,
    };
    let mut mail = service(
        "mail",
        "[2001:db8::10]:25",
        CheckKind::None,
        vec![backend("mail-1", "[2001:db8:1::11]:25")],
    );
    mail.forwarding = Forwarding::Gue;
    mail.tunnel.source_ipv4 = "100.64.0.0/10".parse().unwrap();
    mail.no_backend = NoBackend::Icmp;
    mail.on_expiry = OnExpiry::Reset;
    mail.timeouts.profile = Some(Profile::Rfc);
    Desired {
        services: vec![
            service(
                "web",
                "192.0.2.10:80",
                http,
                vec![
                    backend("web-1", "10.0.1.11:8080"),
                    backend("web-2", "10.0.1.12:8080"),
                ],
            ),
            mail,
        ],
    }
}

struct Engine {
    changes: Arc<Mutex<Vec<Change>>>,
}

impl Control for Engine {
    fn snapshot(&self) -> Arc<Snapshot> {
        let Desired { services } = desired();
        let [web, mail] = <[Service; 2]>::try_from(services).unwrap();
        let hop = NextHop {
            ifindex: 2,
            interface: "eth0".to_owned(),
            source_mac: MacAddr([2, 0, 0, 0, 0, 1]),
            destination_mac: MacAddr([2, 0, 0, 0, 0, 0x11]),
            vlan: vec![VlanTag {
                tpid: 0x8100,
                tci: 0x6007,
            }],
            mtu: 1500,
        };
        let no_neighbour = Unresolved::NoNeighbour {
            address: "10.0.1.12".parse().unwrap(),
            interface: "eth0".to_owned(),
        };
        let view = |service: &Service, n: usize, index, health, reason: &str, slots, next_hop| {
            BackendView {
                index: BackendIndex(index),
                backend: service.backends[n].clone(),
                health,
                reason: reason.to_owned(),
                slots,
                next_hop,
            }
        };
        let (up, down) = (Health::Up, Health::Down);
        let backends = vec![
            view(
                &web,
                0,
                1,
                up,
                "HTTP 200 from GET /healthz",
                65_537,
                Ok(hop.clone()),
            ),
            view(&web, 1, 2, down, "connection refused", 0, Err(no_neighbour)),
        ];
        let narrow = NextHop { mtu: 1300, ..hop };
        let mail_backends = vec![view(&mail, 0, 3, Health::Unknown, "", 65_537, Ok(narrow))];
        let services = vec![
            ServiceView {
                id: ServiceId(1),
                service: web,
                checksum: 0x1234,
                base_checksum: u64::MAX,
                slots: 65_537,
                backends,
                removed: vec![BackendIndex(4)],
                retired: BackendCounters {
                    connections: 1_000,
                    ..BackendCounters::default()
                },
            },
            ServiceView {
                id: ServiceId(2),
                service: mail,
                checksum: 7,
                base_checksum: 7,
                slots: 65_537,
                backends: mail_backends,
                removed: Vec::new(),
                retired: BackendCounters::default(),
            },
        ];
        Arc::new(Snapshot {
            services,
            lingering: Vec::new(),
        })
    }

    fn change(&self, change: Change) -> BoxFuture<'_, Result<Vec<String>, ChangeError>> {
        self.changes.lock().unwrap().push(change.clone());
        Box::pin(async move {
            match change {
                Change::RemoveBackend { .. } => Err(ChangeError::Stopped),
                Change::Replace(wanted) if wanted == desired() => Ok(Vec::new()),
                Change::Replace(_) => Ok(vec!["service mail removed".to_owned()]),
                _ => Ok(vec!["backend changed".to_owned()]),
            }
        })
    }
}

/// Counts that tell indices and directions apart.
struct Kernel;

impl Reader for Kernel {
    fn service_counters(&self, service: ServiceId) -> Result<ServiceCounters, DataPlaneError> {
        Ok(ServiceCounters {
            untracked: u64::from(service.0),
            drops: 10 * u64::from(service.0),
        })
    }

    fn backend_counters(&self, backend: BackendIndex) -> Result<BackendCounters, DataPlaneError> {
        let n = u64::from(backend.0);
        Ok(BackendCounters {
            connections: n,
            packets_in: 10 * n,
            bytes_in: 1_000 * n,
            packets_out: 20 * n,
            bytes_out: 2_000 * n,
        })
    }

    fn reasons(&self, service: Option<ServiceId>) -> Result<Vec<ReasonCount>, DataPlaneError> {
        Ok(match service {
            Some(ServiceId(1)) => vec![ReasonCount {
                reason: "ttl_expired",
                description: "the packet may not be forwarded further",
                dropped: true,
                packets: 10,
            }],
            Some(_) => Vec::new(),
            None => vec![ReasonCount {
                reason: "not_ours",
                description: "aimed at no service",
                dropped: false,
                packets: 1_234_567,
            }],
        })
    }

    fn connections(&self, visit: &mut dyn FnMut(Connection) -> bool) {
        for n in 0..WEB_CONNECTIONS {
            let backend = match n {
                0 => BackendIndex(4),
                n => BackendIndex(1 + n % 2),
            };
            let connection = Connection {
                service: ServiceId(1),
                backend,
                client: ([198, 51, 100, 7], 1_024 + n).into(),
                state: "established",
                age: Duration::from_millis(125_900),
                idle: Duration::from_secs(3),
            };
            if !visit(connection) {
                return;
            }
        }
        // Of a service that is no more.
        visit(Connection {
            service: ServiceId(9),
            backend: BackendIndex(9),
            client: ([198, 51, 100, 8], 1).into(),
            state: "established",
            age: Duration::ZERO,
            idle: Duration::ZERO,
        });
    }

    fn connection_totals(&self) -> ConnectionTotals {
        ConnectionTotals {
            capacity: 1_500_000,
            used: 250,
            established: 240,
            half_open: 7,
            closing: 2,
            ended: 1,
            by_backend: HashMap::new(),
            active_by_backend: HashMap::from([
                (BackendIndex(1), 124),
                (BackendIndex(2), 125),
                (BackendIndex(4), 1),
            ]),
        }
    }

    fn interfaces(&self) -> Vec<AttachedInterface> {
        let interface = |name: &str, ifindex, mode, note: &str| AttachedInterface {
            name: name.to_owned(),
            ifindex,
            mode,
            note: note.to_owned(),
        };
        vec![
            interface("eth0", 2, AttachMode::Native, ""),
            interface("eth1", 3, AttachMode::Generic, "its driver has no XDP"),
        ]
    }

    fn samples(&self) -> Vec<Sample> {
        let sample = |service, source: &str, port, milliseconds| Sample {
            service,
            reason: "ttl_expired",
            source: (source.parse().unwrap(), port),
            destination: ("2001:db8::10".parse().unwrap(), port.map(|_| 80)),
            interface: "eth0".to_owned(),
            age: Duration::from_millis(milliseconds),
        };
        vec![
            // Of a reason that was not counted for it.
            sample(None, "2001:db8::9", Some(9), 1),
            sample(Some(ServiceId(1)), "2001:db8::7", Some(40_000), 3_210),
            sample(Some(ServiceId(1)), "2001:db8::8", None, 125_000),
        ]
    }
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

pub(crate) fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

impl Daemon {
    pub(crate) async fn json(&self, args: &[&str]) -> Value {
        let output = self.lbctl(&[args, &["-o", "json"]].concat()).await;
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    pub(crate) async fn table(&self, args: &[&str]) -> String {
        let output = self.lbctl(args).await;
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        stdout(&output).to_owned()
    }

    /// The exit code and what was said on stderr.
    pub(crate) async fn failure(&self, args: &[&str]) -> (i32, String) {
        let output = self.lbctl(args).await;
        assert_eq!(stdout(&output), "");
        (output.status.code().unwrap(), stderr(&output).to_owned())
    }

    pub(crate) fn last_change(&self) -> Change {
        self.changes.lock().unwrap().last().unwrap().clone()
    }
}
