use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::view::{Backend, Service};
use crate::{
    lab::{Arms, Binaries, Host, Lab, Lbd, Topology, VIP4, VIP6, wait_for},
    web::{
        nginx::{self, Nginx},
        wrk::{Load, Reuse, Running},
    },
};

/// The balanced service, and the same over IPv6.
pub(super) const SERVICE: &str = "web";
pub(super) const SERVICE6: &str = "web6";
/// Of `backend-1` and so on.
pub(super) const WEIGHTS: [u64; 4] = [1, 1, 2, 4];
/// How often the health of a backend is asked for.
pub(super) const PROBE_INTERVAL: &str = "200ms";
const PORT: u16 = 80;
const PATIENCE: Duration = Duration::from_secs(10);

/// All that is set up. Fields are dropped in their order: what runs in the lab before the lab.
pub(super) struct Stage {
    pub(super) lbd: Lbd,
    pub(super) backends: Vec<Nginx>,
    pub(super) binaries: Binaries,
    pub(super) lab: Lab,
}

impl Stage {
    pub(super) fn topology() -> Topology {
        Topology {
            clients: 1,
            backends: WEIGHTS.len() as u8,
            arms: Arms::Two,
            client_tags: Vec::new(),
        }
    }

    pub(super) fn start_servers(lab: &Lab) -> Result<Vec<Nginx>> {
        lab.backends()
            .iter()
            .map(|host| Nginx::start(host, lab.directory()))
            .collect()
    }

    /// Starts `lbd`, which may not have found its backends up yet.
    pub(super) fn start_daemon(lab: &Lab, binaries: &Binaries) -> Result<Lbd> {
        Lbd::start_from(lab, binaries, &configuration(lab.backends()))
    }

    pub(super) fn await_all_up(&self) -> Result<()> {
        for service in [SERVICE, SERVICE6] {
            wait_for_health(&self.lbd, service, |backends| {
                backends.iter().all(|backend| backend.health == "up")
            })?;
        }
        Ok(())
    }

    /// Where clients go.
    pub(super) fn vip(&self) -> SocketAddr {
        SocketAddr::from((VIP4, PORT))
    }

    pub(super) fn vip6(&self) -> SocketAddr {
        SocketAddr::from((VIP6, PORT))
    }

    pub(super) fn client(&self) -> &Host {
        self.lab.client()
    }

    /// For temporary files.
    pub(super) fn directory(&self) -> &Path {
        self.lab.directory()
    }

    /// wrk on the client, with kept-alive connections to the service.
    pub(super) fn load(&self, connections: u32, seconds: u32) -> Result<Running> {
        let load = Load {
            targets: &[self.vip()],
            path: "/",
            connections,
            threads: 2,
            seconds,
            reuse: Reuse::KeepAlive,
        };
        load.start(self.client(), self.directory())
    }

    /// Takes the programs off the interfaces; `lbd` ends with them.
    pub(super) fn stop_balancing(&mut self) -> Result<()> {
        self.lbd.lbctl_text(&["detach"])?;
        self.lbd.terminate()?;
        Ok(())
    }

    pub(super) fn start_balancing(&mut self) -> Result<()> {
        self.lbd.start_again()?;
        self.await_all_up()
    }

    pub(super) fn backend_list(&self) -> Result<Vec<Backend>> {
        Backend::list(&self.lbd, SERVICE)
    }

    /// Changes a weight through `lbctl`; returns the command and what it said.
    pub(super) fn set_weight(&self, backend: &str, weight: u64) -> Result<String> {
        let weight = weight.to_string();
        let arguments = ["backend", "set", SERVICE, backend, "--weight", &weight];
        let said = self.lbd.lbctl_text(&arguments)?;
        Ok(format!("$ lbctl {}\n{said}", arguments.join(" ")))
    }

    /// Checksum of the slot table in use.
    pub(super) fn checksum(&self) -> Result<String> {
        Ok(Service::find(&self.lbd, SERVICE)?.table.checksum)
    }

    /// Waits until `lbctl` shows a backend's new health, and says how long that took.
    pub(super) fn await_health(&self, name: &str, health: &str) -> Result<Duration> {
        let begun = Instant::now();
        wait_for_health(&self.lbd, SERVICE, |backends| {
            backends
                .iter()
                .any(|backend| backend.name == name && backend.health == health)
        })
        .with_context(|| format!("{name} is not found {health}"))?;
        Ok(begun.elapsed())
    }
}

fn wait_for_health(lbd: &Lbd, service: &str, condition: impl Fn(&[Backend]) -> bool) -> Result<()> {
    let found = wait_for(
        PATIENCE,
        "lbctl shows the backends' health",
        || match Backend::list(lbd, service) {
            Ok(backends) => condition(&backends).then_some(Ok(())),
            Err(error) => Some(Err(error)),
        },
    );
    found
        .unwrap_or_else(|timed_out| Err(timed_out.into()))
        .with_context(|| format!("the log of lbd:\n{}", lbd.log()))
}

/// The configuration of `lbd`, but for the paths that the lab gives it.
fn configuration(backends: &[Host]) -> String {
    let mut text = "[[interface]]\nname = \"eth0\"\n\n[[interface]]\nname = \"eth1\"\n".to_owned();
    for (service, vip) in [(SERVICE, IpAddr::from(VIP4)), (SERVICE6, VIP6.into())] {
        let listen = SocketAddr::new(vip, PORT);
        let address = |host: &Host| match vip {
            IpAddr::V4(_) => host.v4(nginx::PORT),
            IpAddr::V6(_) => host.v6(nginx::PORT),
        };
        text += &format!(
            "\n[[service]]\nname = \"{service}\"\nlisten = \"{listen}\"\n\n\
             [service.check]\ntype = \"http\"\npath = \"/healthz\"\n\
             interval = \"{PROBE_INTERVAL}\"\nrise = 2\nfall = 3\n"
        );
        for (host, weight) in backends.iter().zip(WEIGHTS) {
            text += &format!(
                "\n[[service.backend]]\nname = \"{host}\"\naddress = \"{}\"\nweight = {weight}\n",
                address(host)
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use lb_userspace::config::Config;

    use super::*;

    #[test]
    fn the_daemon_takes_the_configuration() {
        let config = Config::parse(&configuration(&[]), "lb.toml").unwrap();
        assert_eq!(config.interfaces.len(), 2);
        assert_eq!(config.desired.services.len(), 2);
    }
}
