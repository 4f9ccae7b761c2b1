//! Load from wrk, whose numbers are read from its Lua hooks rather than from its prose.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::lab::{Host, Process};

/// What wrk runs beside its requests: no hook is called per request, so this costs nothing.
const SCRIPT: &str = r#"
local targets = {}
for host, port in string.gmatch(os.getenv("TARGETS"), "(%S+):(%d+)") do
   table.insert(targets, { host = host, port = port })
end

local threads = 0
function setup(thread)
   local target = targets[threads % #targets + 1]
   threads = threads + 1
   thread.addr = wrk.lookup(target.host, target.port)[1]
end

function done(summary, latency, requests)
   local errors = summary.errors
   print(string.format("result %d %d %d %d %d %d %d %d %d",
      summary.requests, summary.duration, summary.bytes, latency:percentile(99),
      errors.connect, errors.read, errors.write, errors.timeout, errors.status))
end
"#;

/// What to ask for, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load<'a> {
    /// Threads of wrk take these in turn.
    pub(crate) targets: &'a [SocketAddr],
    /// Of the URL, such as `/`.
    pub(crate) path: &'a str,
    pub(crate) connections: u32,
    pub(crate) threads: u32,
    pub(crate) seconds: u32,
    pub(crate) reuse: Reuse,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reuse {
    /// Connections live as long as the load.
    KeepAlive,
    /// A connection for each request.
    Close,
}

/// wrk at work.
pub(crate) struct Running {
    process: Process,
    /// How long it may take.
    patience: Duration,
}

/// What wrk has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Answered, whatever the status.
    pub(crate) requests: u64,
    pub(crate) duration: Duration,
    /// Received, headers included, also of answers that were not over.
    pub(crate) bytes: u64,
    /// 99 % of the requests took no longer.
    pub(crate) percentile_99: Duration,
    pub(crate) errors: Errors,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Errors {
    pub(crate) connect: u64,
    pub(crate) read: u64,
    pub(crate) write: u64,
    /// Requests that took longer than 2 s.
    pub(crate) timeout: u64,
    /// Answers above 399.
    pub(crate) status: u64,
}

impl Errors {
    pub(crate) fn all(self) -> u64 {
        self.connect + self.read + self.write + self.timeout + self.status
    }
}

impl Outcome {
    pub(crate) fn per_second(&self) -> f64 {
        self.requests as f64 / self.duration.as_secs_f64()
    }
}

impl Load<'_> {
    /// Starts wrk on a host; `directory` is for its files.
    pub(crate) fn start(&self, host: &Host, directory: &Path) -> Result<Running> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let script = directory.join("wrk.lua");
        fs::write(&script, SCRIPT).with_context(|| format!("cannot write {}", script.display()))?;
        let targets: Vec<_> = self.targets.iter().map(SocketAddr::to_string).collect();
        let first = targets.first().context("no target")?;
        let mut command = host.netns().command("wrk");
        command
            .env("TARGETS", targets.join(" "))
            .args(["-c", &self.connections.to_string()])
            .args(["-t", &self.threads.to_string()])
            .args(["-d", &format!("{}s", self.seconds)])
            .arg("-s")
            .arg(script);
        if self.reuse == Reuse::Close {
            command.args(["-H", "Connection: close"]);
        }
        command.arg(format!("http://{first}{}", self.path));
        let log = format!("wrk-{}.log", NEXT.fetch_add(1, Ordering::Relaxed));
        Ok(Running {
            process: Process::spawn(command, &directory.join(log))?,
            patience: Duration::from_secs(u64::from(self.seconds) + 10),
        })
    }

    /// Runs wrk to its end.
    pub(crate) fn run(&self, host: &Host, directory: &Path) -> Result<Outcome> {
        self.start(host, directory)?.finish()
    }
}

impl Running {
    /// Waits until its time is over.
    pub(crate) fn finish(mut self) -> Result<Outcome> {
        let status = self.process.wait(self.patience)?;
        let said = self.process.log();
        ensure!(status.success(), "wrk failed ({status}): {said}");
        Outcome::parse(&said).with_context(|| format!("wrk printed no result: {said}"))
    }
}

impl Outcome {
    fn parse(said: &str) -> Option<Self> {
        let line = said.lines().find_map(|line| line.strip_prefix("result "))?;
        let numbers: Vec<u64> = line
            .split(' ')
            .map_while(|word| word.parse().ok())
            .collect();
        let [
            requests,
            duration,
            bytes,
            percentile_99,
            connect,
            read,
            write,
            timeout,
            status,
        ] = numbers[..]
        else {
            return None;
        };
        Some(Self {
            requests,
            duration: Duration::from_micros(duration),
            bytes,
            percentile_99: Duration::from_micros(percentile_99),
            errors: Errors {
                connect,
                read,
                write,
                timeout,
                status,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_read() {
        let said = "Running 3s test\n  2 threads\nresult 30000 3000000 5000000 950 1 2 3 4 5\n";
        let outcome = Outcome::parse(said).unwrap();
        assert_eq!(outcome.per_second(), 10_000.0);
        assert_eq!(outcome.bytes, 5_000_000);
        assert_eq!(outcome.percentile_99, Duration::from_micros(950));
        assert_eq!(outcome.errors.all(), 15);
        assert_eq!(Outcome::parse("result 1 2 3"), None);
        assert_eq!(Outcome::parse("unable to connect"), None);
    }
}
