use std::{fs, net::SocketAddr, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, bail};

use super::http::Connection;
use crate::lab::{Host, Process, output, wait_for};

/// HAProxy in TCP mode on the balancer, in front of the same servers.
pub(crate) struct Haproxy {
    address: SocketAddr,
    _process: Process,
}

impl Haproxy {
    /// Starts it, and returns when it passes on a request. `directory` is for its files; it takes
    /// so many connections.
    pub(crate) fn start(
        balancer: &Host,
        directory: &Path,
        servers: &[SocketAddr],
        connections: u32,
    ) -> Result<Self> {
        const PORT: u16 = 8081;
        let address = balancer.v4(PORT);
        let file = directory.join("haproxy.cfg");
        fs::write(&file, configuration(address, servers, connections))
            .with_context(|| format!("cannot write {}", file.display()))?;
        let file = file.to_string_lossy();
        // -db: in the foreground.
        let mut process = balancer.spawn("haproxy", &["-db", "-f", &file])?;
        let answers = wait_for(
            Duration::from_secs(10),
            "HAProxy answers",
            || match process.exited() {
                Ok(None) => answers(balancer, address).then_some(Ok(())),
                Ok(Some(status)) => Some(Err(anyhow::anyhow!("HAProxy has ended ({status})"))),
                Err(error) => Some(Err(error)),
            },
        );
        if let Err(error) = answers.unwrap_or_else(|timed_out| Err(timed_out.into())) {
            bail!("{error:#}; its log:\n{}", process.log());
        }
        Ok(Self {
            address,
            _process: process,
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

fn answers(balancer: &Host, address: SocketAddr) -> bool {
    balancer.netns().run(|| {
        Connection::open(address)
            .and_then(|mut connection| connection.ask())
            .is_ok()
    })
}

/// As many threads as there are CPUs, which is HAProxy's default.
fn configuration(listen: SocketAddr, servers: &[SocketAddr], connections: u32) -> String {
    let mut text = format!(
        "global\n    maxconn {connections}\n\
         defaults\n    mode tcp\n    timeout connect 5s\n    timeout client 1h\n    timeout server 1h\n\
         frontend demo\n    bind {listen}\n    default_backend nginx\n\
         backend nginx\n    balance roundrobin\n"
    );
    for (number, server) in (1..).zip(servers) {
        text += &format!("    server backend-{number} {server}\n");
    }
    text
}

/// Such as `2.6.12`.
pub(crate) fn version() -> Result<String> {
    let said = output(Command::new("haproxy").arg("-v"))?;
    let version = said.split_whitespace().nth(2).unwrap_or("?");
    Ok(version
        .split_once('-')
        .map_or(version, |(release, _)| release)
        .to_owned())
}
