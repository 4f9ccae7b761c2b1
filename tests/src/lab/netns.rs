use std::{ffi::OsStr, fs, fs::File, path::Path, process::Command, sync::Arc, thread};

use anyhow::{Context, Result, ensure};

use super::{footprint::making, process::output, sys};

/// Where `ip netns` keeps its named namespaces.
pub(super) const NETNS_DIRECTORY: &str = "/run/netns";

/// A named network namespace. Clones are handles on the same one.
///
/// It does not remove itself: the lab that made it removes all of its own at once.
#[derive(Clone, Debug)]
pub struct Netns {
    name: Arc<str>,
    file: Arc<File>,
}

impl Netns {
    pub(super) fn create(name: &str) -> Result<Self> {
        let _making = making();
        output(Command::new("ip").args(["netns", "add", name]))?;
        let path = Path::new(NETNS_DIRECTORY).join(name);
        let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Self {
            name: name.into(),
            file: Arc::new(file),
        })
    }

    /// The namespace of this process.
    pub fn current() -> Result<Self> {
        let file = File::open("/proc/self/ns/net").context("cannot open /proc/self/ns/net")?;
        Ok(Self {
            name: "current".into(),
            file: Arc::new(file),
        })
    }

    /// As `ip netns list` shows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs a closure on a fresh thread inside the namespace, and waits for it.
    ///
    /// Sockets that the closure makes stay in the namespace wherever they are used later.
    ///
    /// # Panics
    /// When the closure does.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.enter();
                work()
            });
            inside
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Starts a thread of its own inside the namespace.
    pub(super) fn spawn_thread(
        &self,
        work: impl FnOnce() + Send + 'static,
    ) -> Result<thread::JoinHandle<()>> {
        let netns = self.clone();
        thread::Builder::new()
            .name(self.name.to_string())
            .spawn(move || {
                netns.enter();
                work();
            })
            .context("cannot start a thread")
    }

    /// A command that will run inside the namespace.
    ///
    /// Unlike `ip netns exec` it leaves the mounts alone, and with them `/sys/fs/bpf`.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        sys::enter_before_exec(&mut command, Arc::clone(&self.file));
        command
    }

    /// `ip -n NAME …`, the arguments separated by spaces; returns what it printed.
    pub fn ip(&self, arguments: &str) -> Result<String> {
        let mut command = Command::new("ip");
        output(
            command
                .args(["-n", &self.name])
                .args(arguments.split_whitespace()),
        )
    }

    /// `ethtool …` inside the namespace, the arguments separated by spaces.
    pub fn ethtool(&self, arguments: &str) -> Result<String> {
        output(self.command("ethtool").args(arguments.split_whitespace()))
            .with_context(|| format!("in namespace {}", self.name))
    }

    /// The index of an interface in here.
    pub fn interface_index(&self, interface: &str) -> Result<u32> {
        self.run(|| sys::interface_index(interface))
            .with_context(|| format!("there is no {interface} in namespace {}", self.name))
    }

    /// Writes settings below `/proc/sys/net`: pairs of path and value.
    pub fn sysctl(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.run(|| {
            for (key, value) in settings {
                fs::write(format!("/proc/sys/net/{key}"), value).with_context(|| {
                    format!("cannot set net/{key} to {value} in namespace {}", self.name)
                })?;
            }
            Ok(())
        })
    }

    /// The ids of the processes inside, as the kernel tells them.
    pub(super) fn processes(name: &str) -> Result<Vec<i32>> {
        let listed = output(Command::new("ip").args(["netns", "pids", name]))?;
        listed
            .split_whitespace()
            .map(|pid| {
                pid.parse()
                    .with_context(|| format!("{pid:?} is no process id"))
            })
            .collect()
    }

    /// The ids of the processes inside.
    pub fn process_ids(&self) -> Result<Vec<i32>> {
        Self::processes(&self.name)
    }

    /// Moves the calling thread inside; only for threads that do nothing else.
    fn enter(&self) {
        // The descriptor is of a namespace and whoever could open it may enter it: there is
        // nothing that a caller could do about an error.
        if let Err(error) = sys::enter(&self.file) {
            panic!("cannot enter namespace {}: {error}", self.name);
        }
    }
}

/// Refuses early, and in words, what would fail late for want of privileges.
pub(super) fn require_root() -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let owner = fs::metadata("/proc/self")
        .context("cannot read /proc/self")?
        .uid();
    ensure!(owner == 0, "the namespace lab needs root: run it with sudo");
    Ok(())
}
