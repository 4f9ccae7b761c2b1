//! The daemon under test, in the balancer's namespace, with files and pins of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use super::{Binaries, Lab, Netns, Process, footprint::BPFFS, process::output, wait_for};

/// A program must be verified and a table of a million connections made.
const START: Duration = Duration::from_secs(30);
const STOP: Duration = Duration::from_secs(10);

/// A running `lbd`. When this is dropped the daemon is killed, and its pins are removed and with
/// them its programs: nothing is balanced any more.
pub struct Lbd {
    netns: Netns,
    binaries: Binaries,
    paths: Paths,
    process: Option<Process>,
}

struct Paths {
    config: PathBuf,
    socket: PathBuf,
    state: PathBuf,
    bpffs: PathBuf,
    log: PathBuf,
}

impl Lbd {
    /// Starts the daemon on the lab's balancer, and returns when it answers `lbctl status`.
    ///
    /// `config` is its configuration without the table `[daemon]`, which is the lab's affair.
    ///
    /// # Errors
    /// When the daemon ends, or does not answer within 30 s: the error holds its log.
    pub fn start(lab: &Lab, config: &str) -> Result<Self> {
        Self::start_from(lab, &Binaries::locate()?, config)
    }

    /// The same with programs of the caller's choice.
    pub fn start_from(lab: &Lab, binaries: &Binaries, config: &str) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        mount_bpffs()?;
        let name = format!("lbd-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let home = lab.directory().join(&name);
        let paths = Paths {
            config: home.join("lb.toml"),
            socket: home.join("lbd.sock"),
            state: home.join("state"),
            // The daemon makes this directory itself; the name is the lab's, for its sweep.
            bpffs: Path::new(BPFFS).join(format!("{}-{name}", lab.name())),
            log: home.join("lbd.log"),
        };
        fs::create_dir(&home)
            .and_then(|()| fs::create_dir(&paths.state))
            .with_context(|| format!("cannot make {}", home.display()))?;
        let mut daemon = Self {
            netns: lab.lb().netns().clone(),
            binaries: binaries.clone(),
            paths,
            process: None,
        };
        daemon.configure(config)?;
        daemon.start_again()?;
        Ok(daemon)
    }

    /// Replaces the configuration file, again without `[daemon]`; the daemon is not told.
    pub fn configure(&self, config: &str) -> Result<()> {
        let Paths {
            config: file,
            socket,
            state,
            bpffs,
            ..
        } = &self.paths;
        let text = format!(
            "[daemon]\nsocket = {socket:?}\nstate_dir = {state:?}\nbpffs = {bpffs:?}\n\n{config}"
        );
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    }

    /// Starts the daemon after its end, on what its predecessor left.
    pub fn start_again(&mut self) -> Result<()> {
        let mut command = self.netns.command(self.binaries.lbd());
        command.arg("--config").arg(&self.paths.config);
        self.process = Some(Process::spawn(command, &self.paths.log)?);
        let answered = wait_for(START, "lbd answers", || match self.answers() {
            Ok(false) => None,
            Ok(true) => Some(Ok(())),
            Err(error) => Some(Err(error)),
        });
        answered
            .unwrap_or_else(|timed_out| Err(timed_out.into()))
            .with_context(|| format!("lbd does not start; its log:\n{}", self.log()))
    }

    /// Whether it answers `lbctl status`; an error when it has ended.
    fn answers(&mut self) -> Result<bool> {
        if let Some(status) = self.running()?.exited()? {
            bail!("lbd has ended ({status})");
        }
        Ok(self.lbctl(&["status"])?.status.success())
    }

    /// Ends the daemon with SIGTERM and starts it again.
    pub fn restart(&mut self) -> Result<()> {
        self.terminate()?;
        self.start_again()
    }

    /// Ends the daemon with SIGTERM, and waits for its end.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        self.running()?.signal(libc::SIGTERM)?;
        let status = self.running()?.wait(STOP);
        self.process = None;
        status.with_context(|| format!("lbd does not stop; its log:\n{}", self.log()))
    }

    /// Ends the daemon with SIGKILL.
    pub fn kill9(&mut self) -> Result<()> {
        self.running()?.kill()?;
        self.process = None;
        Ok(())
    }

    /// Has the daemon read its configuration again; it does so in its own time.
    pub fn sighup(&mut self) -> Result<()> {
        self.running()?.signal(libc::SIGHUP)
    }

    /// Process id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Everything it has logged since the first start.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.paths.log).unwrap_or_else(|error| format!("(no log: {error})"))
    }

    pub fn config_path(&self) -> &Path {
        &self.paths.config
    }

    pub fn socket(&self) -> &Path {
        &self.paths.socket
    }

    pub fn state_directory(&self) -> &Path {
        &self.paths.state
    }

    /// The directory of its pins.
    pub fn bpffs(&self) -> &Path {
        &self.paths.bpffs
    }

    /// `lbctl …` on the balancer, speaking to this daemon; says how it ended, also when it failed.
    pub fn lbctl(&self, arguments: &[&str]) -> Result<Output> {
        self.lbctl_command(arguments)
            .stdin(Stdio::null())
            .output()
            .context("cannot start lbctl")
    }

    /// What `lbctl …` prints; an error unless it succeeds.
    pub fn lbctl_text(&self, arguments: &[&str]) -> Result<String> {
        output(&mut self.lbctl_command(arguments))
    }

    /// What `lbctl -o json …` prints.
    pub fn lbctl_json(&self, arguments: &[&str]) -> Result<serde_json::Value> {
        let text = output(&mut self.lbctl_command(&[&["-o", "json"], arguments].concat()))?;
        serde_json::from_str(&text).with_context(|| format!("lbctl printed no JSON: {text}"))
    }

    fn lbctl_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.netns.command(self.binaries.lbctl());
        command.arg("--socket").arg(&self.paths.socket);
        command.args(arguments);
        command
    }

    fn running(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("lbd does not run")
    }
}

impl Drop for Lbd {
    fn drop(&mut self) {
        self.process = None;
        match fs::remove_dir_all(&self.paths.bpffs) {
            Err(error) if self.paths.bpffs.exists() => {
                eprintln!("cannot remove {}: {error}", self.paths.bpffs.display());
            }
            _ => {}
        }
    }
}

/// Mounts bpffs where it belongs, if it is not; the lock keeps two processes from mounting twice.
pub(super) fn mount_bpffs() -> Result<()> {
    let mount = format!("mountpoint -q {BPFFS} || mount -t bpf bpf {BPFFS}");
    let mut command = Command::new("flock");
    output(command.args([BPFFS, "sh", "-c", &mount]))?;
    Ok(())
}
