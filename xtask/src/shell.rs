//! Running programs, and saying so.

use std::{
    collections::VecDeque,
    env,
    io::{self, BufRead as _, BufReader, IsTerminal as _, Write as _},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

/// How often a program that works in the background shows a sign of life where there is no
/// terminal to rewrite a line of.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);
/// Lines of a failed program that are shown.
const TAIL: usize = 40;

/// The workspace's directory.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."))
}

/// `cargo` in the workspace: the one that runs this.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Whether a program runs and succeeds, and nothing else of it.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Runs a program that shows its own progress.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = show(command);
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot run {shown}"))?;
    if !status.success() {
        bail!("failed ({status}): {shown}");
    }
    Ok(())
}

/// Runs a program of which only the latest line is shown while it works, and the last ones if it
/// fails.
pub(crate) fn quietly(mut command: Command) -> Result<()> {
    let shown = show(&command);
    let (reader, writer) = io::pipe().context("cannot make a pipe")?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(writer.try_clone().context("cannot share a pipe")?)
        .stderr(writer)
        .spawn()
        .with_context(|| format!("cannot run {shown}"))?;
    // It holds the pipe's writing ends: the reader sees an end only once they are closed.
    drop(command);

    let mut progress = Progress::new();
    let mut tail = VecDeque::with_capacity(TAIL);
    for line in BufReader::new(reader).split(b'\n') {
        let line = line.with_context(|| format!("cannot read the output of {shown}"))?;
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        progress.show(&line);
        if tail.len() == TAIL {
            tail.pop_front();
        }
        tail.push_back(line);
    }
    progress.clear();
    let status = child
        .wait()
        .with_context(|| format!("cannot wait for {shown}"))?;
    if !status.success() {
        for line in tail {
            eprintln!("   {line}");
        }
        bail!("failed ({status}): {shown}");
    }
    Ok(())
}

/// A step that may take a while: says that it begins, and how long it took.
pub(crate) fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("── {what} …");
    let start = Instant::now();
    let done = work();
    let seconds = start.elapsed().as_secs_f64();
    match &done {
        Ok(_) => eprintln!("── {what}: done in {seconds:.1} s"),
        Err(_) => eprintln!("── {what}: FAILED after {seconds:.1} s"),
    }
    done
}

/// The latest line of a program: in place on a terminal, now and then elsewhere.
struct Progress {
    terminal: bool,
    last: Instant,
}

impl Progress {
    fn new() -> Self {
        Self {
            terminal: io::stderr().is_terminal(),
            last: Instant::now(),
        }
    }

    fn show(&mut self, line: &str) {
        let line: String = line.chars().filter(|c| !c.is_control()).take(76).collect();
        if line.is_empty() {
            return;
        }
        if self.terminal {
            // Back to the first column, and clear the line.
            eprint!("\r\x1b[2K   {line}");
            // A terminal that does not take it loses progress, nothing else.
            let _ = io::stderr().flush();
        } else if self.last.elapsed() >= SIGN_OF_LIFE {
            eprintln!("   {line}");
            self.last = Instant::now();
        }
    }

    fn clear(&self) {
        if self.terminal {
            eprint!("\r\x1b[2K");
        }
    }
}

fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_quiet_program_says_nothing_unless_it_fails() {
        quietly(shell("echo out; echo err >&2")).unwrap();
        let error = quietly(shell("exit 3")).unwrap_err().to_string();
        assert_eq!(error, "failed (exit status: 3): sh -c exit 3");
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = quietly(Command::new("/nonexistent/program")).unwrap_err();
        assert_eq!(error.to_string(), "cannot run /nonexistent/program");
        assert!(!succeeds(&mut Command::new("/nonexistent/program")));
    }
}
