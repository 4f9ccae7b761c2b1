//! Running other programs: to the end with [`output`], or beside us as a [`Process`].

use std::{
    fs::{self, File},
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use super::{footprint::making, sys, wait_for};

/// Runs a command to its end and returns what it printed on stdout.
///
/// # Errors
/// When it cannot be started, or exits with anything but 0: the error shows the command line as
/// one would type it, and what it printed on stderr.
pub fn output(command: &mut Command) -> Result<String> {
    let line = command_line(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{line}`"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("`{line}` failed ({}): {}", output.status, stderr.trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{line}` printed no UTF-8"))
}

fn command_line(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// A program that runs beside us, killed with all its children when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    line: String,
    log: PathBuf,
}

impl Process {
    /// Starts the program; what it prints is appended to `log`.
    ///
    /// It gets a process group of its own, so that its workers can be ended with it.
    pub fn spawn(mut command: Command, log: &Path) -> Result<Self> {
        let line = command_line(&command);
        let _making = making();
        let open = || -> io::Result<File> { File::options().create(true).append(true).open(log) };
        let child = command
            .stdin(Stdio::null())
            .stdout(open().with_context(|| format!("cannot write {}", log.display()))?)
            .stderr(open().with_context(|| format!("cannot write {}", log.display()))?)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start `{line}`"))?;
        Ok(Self {
            child,
            line,
            log: log.to_owned(),
        })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed so far, on stdout and stderr.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_else(|error| format!("(no log: {error})"))
    }

    /// Sends a signal, such as `libc::SIGHUP`, to this process alone.
    pub fn signal(&self, signal: i32) -> Result<()> {
        sys::kill(self.pid(), signal)
            .with_context(|| format!("cannot send signal {signal} to `{}`", self.line))
    }

    /// Its exit status, or `None` while it runs.
    pub fn exited(&mut self) -> Result<Option<ExitStatus>> {
        let line = &self.line;
        self.child
            .try_wait()
            .with_context(|| format!("cannot wait for `{line}`"))
    }

    /// Waits until it has ended by itself.
    pub fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        let what = format!("`{}` has ended", self.line);
        wait_for(patience, what, || self.exited().transpose())?
    }

    /// Kills it and every process it started (SIGKILL), and waits for its end.
    pub fn kill(&mut self) -> Result<()> {
        if self.exited()?.is_none() {
            // The group is the child's own: its id cannot be another's until the child is reaped.
            sys::kill(-self.pid(), libc::SIGKILL)
                .with_context(|| format!("cannot kill `{}`", self.line))?;
        }
        self.child
            .wait()
            .map(drop)
            .with_context(|| format!("cannot wait for `{}`", self.line))
    }

    fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("{error:#}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_command_is_shown_with_its_stderr() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo oh dear >&2; exit 3"]);
        let error = output(&mut command).unwrap_err().to_string();
        assert!(
            error.contains("sh -c")
                && error.contains("exit status: 3")
                && error.contains("oh dear"),
            "{error}"
        );
    }

    #[test]
    fn a_dropped_process_takes_its_children_with_it() {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 60 & echo $!; wait"]);
        let process = Process::spawn(command, &directory.path().join("log")).unwrap();
        let grandchild = wait_for(Duration::from_secs(5), "the child has spoken", || {
            process.log().trim().parse::<u32>().ok()
        })
        .unwrap();
        drop(process);
        // An orphan that nobody has reaped yet still stands in /proc, but runs no more.
        wait_for(Duration::from_secs(5), "the grandchild is dead", || {
            let status = fs::read_to_string(format!("/proc/{grandchild}/stat"));
            status.map_or(true, |s| s.contains(") Z ")).then_some(())
        })
        .unwrap();
    }
}
