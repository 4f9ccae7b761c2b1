//! The hosts, what runs on them, and whose turn it is.

use std::{
    env,
    fs::File,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use lb_userspace::{
    api::{BackendInfo, InterfaceMode, StatusInfo},
    model::{Forwarding, Health},
};

use super::contender::Contender;
use crate::{
    lab::{BYPASS, Binaries, Decap, Host, Lab, Lbd, Netns, Topology, VIP4, output, wait_for},
    web::{
        haproxy::Haproxy,
        nginx::{self, Nginx},
    },
};

/// Of the service and, as most modes cannot change it, of the servers.
const PORT: u16 = 80;
/// Addresses of the host of the servers: two backends for all who balance.
const SERVERS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 2, 0, 11), Ipv4Addr::new(10, 2, 0, 12)];
/// The servers' end of the wire past the balancer, and the client's.
const PAST: Ipv4Addr = Ipv4Addr::new(10, 4, 0, 2);
const CLIENT_PAST: Ipv4Addr = Ipv4Addr::new(10, 4, 0, 1);
const STREAM_PORT: u16 = 8082;
/// Connections that a proxy can hold, with two descriptors for each: where root may not raise limits,
/// as in containers, 20 000 are usual.
const PROXIED: u32 = 9_500;
/// The name of the file that is transferred.
pub(super) const BULK: &str = "/bulk";
const BULK_BYTES: u64 = 16 << 20;
const PATIENCE: Duration = Duration::from_secs(20);

/// Fields are dropped in their order: what runs in the lab before the lab.
pub(super) struct Stage {
    running: Running,
    _servers: Nginx,
    decap: Decap,
    binaries: Binaries,
    /// Turns taken so far.
    turns: u8,
    lab: Lab,
}

/// What stands on the balancer.
enum Running {
    Nothing,
    Nftables,
    Haproxy { _haproxy: Haproxy },
    NginxStream { _nginx: Nginx },
    Lb { lbd: Lbd, decapsulates: bool },
}

impl Stage {
    pub(super) fn new() -> Result<Self> {
        let ours = env::current_exe().context("cannot find the running program")?;
        let binaries = Binaries::inside(ours.parent().unwrap_or(Path::new(".")))?;
        let mut lab = Lab::with(
            "end-to-end",
            &Topology {
                backends: 1,
                ..Topology::default()
            },
        )?;
        let [client, balancer] = [lab.client(), lab.lb()];
        let host = &lab.backends()[0];
        lab.bypass(client, host)?;
        for (host, interfaces) in [
            (client, ["eth0", BYPASS]),
            (balancer, ["eth0", "eth1"]),
            (host, ["eth0", BYPASS]),
        ] {
            for interface in interfaces {
                host.netns().ethtool(&format!("-K {interface} gro on"))?;
            }
        }
        host.netns()
            .ip(&format!("address add {}/24 dev eth0", SERVERS[1]))?;
        answer_past_the_balancer(host.netns())?;
        for number in SNAT {
            balancer
                .netns()
                .ip(&format!("address add 10.2.0.{number}/24 dev eth1"))?;
        }
        let servers = serve(host, lab.directory())?;
        let decap = Decap::on_with(&lab, host, &binaries)?;
        lab.clear_interfaces();
        Ok(Self {
            running: Running::Nothing,
            _servers: servers,
            decap,
            binaries,
            turns: 0,
            lab,
        })
    }

    pub(super) fn client(&self) -> &Host {
        self.lab.client()
    }

    pub(super) fn balancer(&self) -> &Host {
        self.lab.lb()
    }

    pub(super) fn decap(&self) -> &Decap {
        &self.decap
    }

    pub(super) fn directory(&self) -> &Path {
        self.lab.directory()
    }

    /// The load balancer, during its turns.
    pub(super) fn lbd(&self) -> Option<&Lbd> {
        match &self.running {
            Running::Lb { lbd, .. } => Some(lbd),
            _ => None,
        }
    }

    /// Starts what a contender needs, ends what it does not, and says where clients go.
    pub(super) fn take_turn(&mut self, contender: Contender) -> Result<SocketAddr> {
        self.client_moves()?;
        let target = match contender {
            Contender::Lb(forwarding) => {
                self.balance(forwarding)?;
                SocketAddr::from((vip(forwarding), PORT))
            }
            Contender::Direct | Contender::Routed => {
                self.clear()?;
                let to_the_server = if contender == Contender::Direct {
                    PAST
                } else {
                    SERVERS[0]
                };
                SocketAddr::from((to_the_server, PORT))
            }
            Contender::Nftables => {
                self.clear()?;
                self.translate()?;
                SocketAddr::from((VIP4, PORT))
            }
            Contender::Haproxy => {
                self.clear()?;
                let haproxy =
                    Haproxy::start(self.balancer(), self.directory(), &servers(), PROXIED)?;
                let address = haproxy.address();
                self.running = Running::Haproxy { _haproxy: haproxy };
                address
            }
            Contender::NginxStream => {
                self.clear()?;
                let address = self.balancer().v4(STREAM_PORT);
                let configuration = stream(address)?;
                let nginx =
                    Nginx::start_with(self.balancer(), self.directory(), address, &configuration)
                        .context("nginx stream")?;
                self.running = Running::NginxStream { _nginx: nginx };
                address
            }
        };
        Ok(target)
    }

    /// Ends what stands on the balancer.
    pub(super) fn clear(&mut self) -> Result<()> {
        match std::mem::replace(&mut self.running, Running::Nothing) {
            Running::Nftables => {
                nft(self.balancer().netns(), "delete table ip balancer")?;
            }
            Running::Lb {
                decapsulates: true, ..
            } => {
                self.decap.text(&["detach", "eth0"])?;
            }
            _ => {}
        }
        Ok(())
    }

    /// A new address of the client for each turn: the servers remember connections that were closed
    /// for a minute, and would take the same ports again for stragglers.
    fn client_moves(&mut self) -> Result<()> {
        self.turns = self.turns.checked_add(1).context("too many turns")?;
        let address = Ipv4Addr::new(10, 1, 0, FIRST_CLIENT.saturating_add(self.turns));
        let netns = self.client().netns();
        netns.ip(&format!("address add {address}/24 dev eth0"))?;
        for route in ["10.1.0.0/24 dev eth0", "default via 10.1.0.1"] {
            netns.ip(&format!("route replace {route} src {address}"))?;
        }
        Ok(())
    }

    fn translate(&mut self) -> Result<()> {
        let [first, second] = SERVERS;
        let rules = format!(
            "table ip balancer {{
                 chain prerouting {{
                     type nat hook prerouting priority dstnat;
                     ip daddr {VIP4} tcp dport {PORT} \
                         dnat to numgen inc mod 2 map {{ 0 : {first}, 1 : {second} }}
                 }}
             }}"
        );
        nft(self.balancer().netns(), &rules)?;
        self.running = Running::Nftables;
        Ok(())
    }

    fn balance(&mut self, forwarding: Forwarding) -> Result<()> {
        if self.lbd().is_none() {
            self.clear()?;
            self.running = Running::Lb {
                lbd: Lbd::start_from(&self.lab, &self.binaries, &configuration())?,
                decapsulates: false,
            };
        }
        let Running::Lb { lbd, decapsulates } = &mut self.running else {
            bail!("lbd has ended");
        };
        if forwarding.is_tunnel() != *decapsulates {
            let action = if *decapsulates { "detach" } else { "attach" };
            self.decap.text(&[action, "eth0"])?;
            *decapsulates = !*decapsulates;
        }
        let status: StatusInfo = serde_json::from_value(lbd.lbctl_json(&["status"])?)?;
        let native = status
            .interfaces
            .iter()
            .all(|i| i.mode == InterfaceMode::Native);
        ensure!(
            native && status.interfaces.len() == 2,
            "lb is not attached in native mode: {:?}",
            status.interfaces
        );
        let name = forwarding.to_string();
        let up = wait_for(
            PATIENCE,
            format!("the backends of {name} are up"),
            || match lbd.lbctl_json(&["backend", "list", "--service", &name]) {
                Ok(answer) => {
                    let backends: Result<Vec<BackendInfo>, _> = serde_json::from_value(answer);
                    match backends {
                        Ok(backends) => backends
                            .iter()
                            .all(|backend| backend.health == Health::Up)
                            .then_some(Ok(())),
                        Err(error) => Some(Err(error.into())),
                    }
                }
                Err(error) => Some(Err(error)),
            },
        );
        up.unwrap_or_else(|timed_out| Err(timed_out.into()))
            .with_context(|| format!("the log of lbd:\n{}", lbd.log()))
    }
}

/// The client's address in its first turn comes after this one.
const FIRST_CLIENT: u8 = 100;
/// Last bytes of the addresses that `full-nat` sends from: room for the connections of a turn.
const SNAT: [u8; 4] = [5, 6, 7, 8];

fn servers() -> [SocketAddr; 2] {
    SERVERS.map(|address| SocketAddr::from((address, PORT)))
}

/// The service of a mode.
fn vip(forwarding: Forwarding) -> Ipv4Addr {
    let number = Contender::Lb(forwarding).index() as u8;
    Ipv4Addr::new(192, 0, 2, 20 + number)
}

/// `dsr`, `ipip` and `gue`: the services' addresses are on the servers' loopback, and what is sent
/// from there to the clients takes the wire past the balancer.
fn answer_past_the_balancer(netns: &Netns) -> Result<()> {
    netns.sysctl(&[
        ("ipv4/conf/all/arp_ignore", "1"),
        ("ipv4/conf/all/arp_announce", "2"),
    ])?;
    const TABLE: u32 = 100;
    netns.ip(&format!(
        "route add 10.1.0.0/24 via {CLIENT_PAST} dev {BYPASS} table {TABLE}"
    ))?;
    // The balancer's own probes are answered where they come from.
    netns.ip(&format!("route add 10.1.0.1/32 via 10.2.0.1 table {TABLE}"))?;
    for forwarding in Contender::modes().filter(|mode| !mode.sees_replies()) {
        let vip = vip(forwarding);
        netns.ip(&format!("address add {vip}/32 dev lo"))?;
        netns.ip(&format!("rule add from {vip} lookup {TABLE}"))?;
    }
    Ok(())
}

/// nginx, which answers `GET /` with a name and `GET /bulk` with a file.
fn serve(host: &Host, directory: &Path) -> Result<Nginx> {
    let files = directory.join("files");
    std::fs::create_dir(&files)
        .and_then(|()| File::create(files.join(BULK.trim_start_matches('/'))))
        .and_then(|file| file.set_len(BULK_BYTES))
        .with_context(|| format!("cannot make a file in {}", files.display()))?;
    let configuration = format!(
        r#"daemon off;
user root;
pid nginx.pid;
error_log stderr;
worker_processes auto;
worker_rlimit_nofile 20000;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    client_body_temp_path body;
    default_type text/plain;
    sendfile on;
    keepalive_timeout 1h;
    keepalive_requests 1000000000;
    server {{
        listen {PORT} backlog=4096;
        root {files};
        location = / {{ return 200 "{host}\n"; }}
    }}
}}
"#,
        files = files.display()
    );
    Nginx::start_with(host, directory, host.v4(PORT), &configuration)
}

/// nginx as a proxy of TCP connections.
fn stream(listen: SocketAddr) -> Result<String> {
    let load = nginx::load_stream()?;
    let [first, second] = servers();
    Ok(format!(
        r#"{load}daemon off;
user root;
pid nginx.pid;
error_log stderr;
worker_processes auto;
worker_rlimit_nofile 20000;
events {{ worker_connections 19900; }}
stream {{
    upstream servers {{ server {first}; server {second}; }}
    server {{
        listen {listen} backlog=4096;
        proxy_pass servers;
        proxy_connect_timeout 5s;
        proxy_timeout 1h;
    }}
}}
"#
    ))
}

fn nft(netns: &Netns, commands: &str) -> Result<String> {
    output(netns.command("nft").arg(commands)).context("nftables")
}

/// The configuration of `lbd`, but for the paths that the lab gives it: a service for each mode.
fn configuration() -> String {
    let mut text = String::new();
    for interface in ["eth0", "eth1"] {
        text += &format!("[[interface]]\nname = \"{interface}\"\nmode = \"native\"\n\n");
    }
    for forwarding in Contender::modes() {
        let listen = SocketAddr::new(IpAddr::from(vip(forwarding)), PORT);
        text += &format!(
            "[[service]]\nname = \"{forwarding}\"\nlisten = \"{listen}\"\n\
             forwarding = \"{forwarding}\"\n"
        );
        if forwarding == Forwarding::FullNat {
            text += &format!(
                "snat = {:?}\n",
                SNAT.map(|number| format!("10.2.0.{number}"))
            );
        }
        text += "\n[service.check]\ntype = \"tcp\"\ninterval = \"1s\"\nrise = 1\n";
        for server in servers() {
            text += &format!("\n[[service.backend]]\naddress = \"{server}\"\n");
        }
        text += "\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use lb_userspace::config::Config;

    use super::*;

    #[test]
    fn the_daemon_takes_the_configuration() {
        let config = Config::parse(&configuration(), "lb.toml").unwrap();
        assert_eq!(config.desired.services.len(), 5);
    }
}
