use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};

use super::{
    Netns, Process,
    bpf::{self, Link},
    process::output,
    wait_for,
};

/// A machine of the lab: a network namespace with an address of each family.
#[derive(Clone, Debug)]
pub struct Host {
    name: String,
    netns: Netns,
    ipv4: Ipv4Addr,
    ipv6: Ipv6Addr,
    directory: PathBuf,
}

impl Host {
    pub(super) fn new(
        name: &str,
        netns: Netns,
        ipv4: Ipv4Addr,
        ipv6: Ipv6Addr,
        directory: PathBuf,
    ) -> Self {
        Self {
            name: name.to_owned(),
            netns,
            ipv4,
            ipv6,
            directory,
        }
    }

    /// As the lab calls it, such as `backend-1`.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    pub fn ipv4(&self) -> Ipv4Addr {
        self.ipv4
    }

    pub fn ipv6(&self) -> Ipv6Addr {
        self.ipv6
    }

    /// The host's IPv4 address with a port.
    pub fn v4(&self, port: u16) -> SocketAddr {
        SocketAddr::from((self.ipv4, port))
    }

    /// The host's IPv6 address with a port.
    pub fn v6(&self, port: u16) -> SocketAddr {
        SocketAddr::from((self.ipv6, port))
    }

    /// Starts a program on the host; its output goes to a file in the lab's directory.
    pub fn spawn(&self, program: impl AsRef<Path>, arguments: &[&str]) -> Result<Process> {
        let program = program.as_ref();
        let base = program.file_name().unwrap_or_default().to_string_lossy();
        let log = self.directory.join(format!("{}-{base}.log", self.name));
        let mut command = self.netns.command(program);
        command.args(arguments);
        Process::spawn(command, &log).with_context(|| format!("on {}", self.name))
    }

    /// Makes the host deaf until the guard is dropped, as if its cable had been pulled: packets to
    /// it vanish without an answer.
    pub fn cut_off(&self) -> Result<CutOff> {
        let link = bpf::drop_ingress(&self.netns, "eth0")?;
        Ok(CutOff { _link: link })
    }

    /// The established TCP connections whose local port is `port`, as `ss` shows them.
    pub fn established(&self, port: u16) -> Result<Vec<Established>> {
        let filter = format!("-Htn state established sport = :{port}");
        let listed = output(self.netns.command("ss").args(filter.split(' ')))
            .with_context(|| format!("on {}", self.name))?;
        listed.lines().map(Established::parse).collect()
    }

    /// Waits until the other end answers, if only that nobody listens there.
    pub(super) fn wait_for_path(&self, to: IpAddr, patience: Duration) -> Result<()> {
        const UNUSED_PORT: u16 = 1;
        let what = format!("{} reaches {to}", self.name);
        self.netns.run(|| {
            wait_for(patience, what, || {
                let attempt = Duration::from_millis(200);
                let address = SocketAddr::new(to, UNUSED_PORT);
                let answer = TcpStream::connect_timeout(&address, attempt);
                matches!(answer, Err(e) if e.kind() == io::ErrorKind::ConnectionRefused)
                    .then_some(())
            })
        })?;
        Ok(())
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name)
    }
}

/// Keeps a host deaf; see [`Host::cut_off`].
#[derive(Debug)]
#[must_use]
pub struct CutOff {
    _link: Link,
}

/// An established TCP connection, seen from the host it was asked of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Established {
    pub local: SocketAddr,
    pub peer: SocketAddr,
}

impl Established {
    /// Reads a line of `ss -Htn state established`: two queue lengths, then the two ends.
    fn parse(line: &str) -> Result<Self> {
        let mut columns = line.split_whitespace().skip(2);
        let mut end = || -> Result<SocketAddr> {
            let text = columns.next().unwrap_or_default();
            let address: SocketAddr = text
                .parse()
                .with_context(|| format!("ss printed {line:?}: {text:?} is no address"))?;
            Ok(canonical(address))
        };
        Ok(Self {
            local: end()?,
            peer: end()?,
        })
    }
}

/// An IPv4 address in IPv6 clothes (`::ffff:10.0.0.1`), as dual-stack sockets see it, undressed.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_ss_is_read() {
        let parse =
            |line| Established::parse(line).map(|e| (e.local.to_string(), e.peer.to_string()));
        for (line, local, peer) in [
            (
                "0      0      10.2.0.11:8080    10.1.0.11:40000 ",
                "10.2.0.11:8080",
                "10.1.0.11:40000",
            ),
            (
                "0 64 [::ffff:10.2.0.11]:8080 [::ffff:10.1.0.11]:40000",
                "10.2.0.11:8080",
                "10.1.0.11:40000",
            ),
            (
                "0 0 [fd00:2::11]:8080 [fd00:1::11]:5",
                "[fd00:2::11]:8080",
                "[fd00:1::11]:5",
            ),
        ] {
            assert_eq!(parse(line).unwrap(), (local.to_owned(), peer.to_owned()));
        }
        assert!(parse("0 0 nonsense").is_err());
    }
}
