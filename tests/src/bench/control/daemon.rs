//! `lbd` in the lab's namespace, and data planes on pins of the lab's.

use std::{
    fmt::Write as _,
    fs,
    io::{Read as _, Write as _},
    os::unix::net::{UnixDatagram, UnixStream},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use lb_userspace::{
    config::ConntrackSettings,
    dataplane::{DataPlane, Settings},
};

use crate::lab::{Binaries, Lab, Process};

/// A thousand services must be made.
const START: Duration = Duration::from_secs(120);
const ANSWER: Duration = Duration::from_secs(60);

/// A directory on the BPF file system, which goes with this.
pub(super) struct Pinned(PathBuf);

impl Pinned {
    pub(super) fn new(lab: &Lab, name: &str) -> anyhow::Result<Self> {
        let path = Path::new("/sys/fs/bpf").join(format!("{}-{name}", lab.name()));
        ensure!(!path.exists(), "{} is there already", path.display());
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// The data plane that is pinned there, or a new one, as a daemon with defaults makes it; but it
    /// takes nothing for a flood.
    pub(super) fn open(&self) -> anyhow::Result<DataPlane> {
        let ConntrackSettings {
            capacity,
            capacity_ipv6,
            ..
        } = ConntrackSettings::default();
        Ok(DataPlane::open(&Settings {
            bpffs: self.0.clone(),
            capacity,
            capacity_ipv6,
            flood_limit: u32::MAX,
            answer_echo: true,
            log: false,
        })?)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        match fs::remove_dir_all(&self.0) {
            Err(error) if self.0.exists() => {
                eprintln!("cannot remove {}: {error}", self.0.display());
            }
            _ => {}
        }
    }
}

/// A configuration with so many services of so many backends each, which are not probed.
pub(super) fn services(count: u16, backends: u8, forwarding: &str) -> String {
    let mut text = String::new();
    for service in 0..count {
        let [high, low] = service.to_be_bytes();
        let _ = write!(
            text,
            "[[service]]\nname = \"service-{service}\"\nlisten = \"192.{high}.{low}.10:80\"\n\
             forwarding = \"{forwarding}\"\n[service.check]\ntype = \"none\"\n",
            high = 100 + high,
        );
        for backend in 1..=backends {
            let _ = write!(
                text,
                "[[service.backend]]\nname = \"backend-{backend}\"\n\
                 address = \"10.{high}.{low}.{backend}:80\"\n",
            );
        }
    }
    text
}

/// A daemon with files of its own that can be started again and again.
pub(super) struct Daemon<'l> {
    lab: &'l Lab,
    binaries: Binaries,
    home: PathBuf,
    process: Option<Process>,
    /// Last, so that the daemon goes first.
    pub(super) pinned: Pinned,
}

impl<'l> Daemon<'l> {
    pub(super) fn new(lab: &'l Lab, name: &str, services: &str) -> anyhow::Result<Self> {
        let home = lab.directory().join(name);
        let daemon = Self {
            lab,
            binaries: Binaries::locate()?,
            pinned: Pinned::new(lab, name)?,
            process: None,
            home,
        };
        fs::create_dir(&daemon.home)?;
        let text = format!(
            "[daemon]\nsocket = {:?}\nstate_dir = {:?}\nbpffs = {:?}\n{services}",
            daemon.socket(),
            daemon.home.join("state"),
            daemon.pinned.path(),
        );
        fs::write(daemon.file(), text)?;
        Ok(daemon)
    }

    fn socket(&self) -> PathBuf {
        self.home.join("lbd.sock")
    }

    fn file(&self) -> PathBuf {
        self.home.join("lb.toml")
    }

    /// Starts it; the time from the call until it says that it is ready.
    pub(super) fn start(&mut self) -> anyhow::Result<Duration> {
        let notices = self.home.join("notify");
        let _ = fs::remove_file(&notices);
        let receiver = UnixDatagram::bind(&notices).context("listen for the daemon")?;
        receiver.set_read_timeout(Some(START))?;
        let mut command = self.lab.lb().netns().command(self.binaries.lbd());
        command
            .args(["--log", "warn", "--config"])
            .arg(self.file())
            .env("NOTIFY_SOCKET", &notices);
        let begin = Instant::now();
        let log = self.home.join("log");
        self.process = Some(Process::spawn(command, &log)?);
        let mut notice = [0; 256];
        loop {
            let length = receiver.recv(&mut notice).with_context(|| {
                let log = fs::read_to_string(&log).unwrap_or_default();
                format!("lbd is not ready after {START:?}; its log:\n{log}")
            })?;
            if notice[..length].starts_with(b"READY=1") {
                return Ok(begin.elapsed());
            }
        }
    }

    pub(super) fn id(&self) -> anyhow::Result<u32> {
        Ok(self.process.as_ref().context("lbd does not run")?.id())
    }

    /// SIGKILL; what it has made stays.
    pub(super) fn kill(&mut self) -> anyhow::Result<()> {
        match self.process.take() {
            Some(mut process) => process.kill(),
            None => Ok(()),
        }
    }

    /// Asks the API, as `lbctl` does; the answer's body.
    pub(super) fn get(&self, path: &str) -> anyhow::Result<Vec<u8>> {
        let mut stream = UnixStream::connect(self.socket())?;
        stream.set_read_timeout(Some(ANSWER))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: lbd\r\nConnection: close\r\n\r\n"
        )?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        ensure!(
            answer.starts_with(b"HTTP/1.1 200"),
            "GET {path}: {}",
            String::from_utf8_lossy(&answer[..answer.len().min(200)])
        );
        let body = answer.windows(4).position(|end| end == b"\r\n\r\n");
        Ok(answer.split_off(body.context("no end of headers")? + 4))
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("{error:#}");
        }
    }
}
