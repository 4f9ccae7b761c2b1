use std::{fs, net::SocketAddr, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, bail};

use super::http::Connection;
use crate::lab::{Host, Process, output, wait_for};

/// The port of every nginx.
pub(crate) const PORT: u16 = 8080;

/// nginx on a host, with a configuration and a directory of its own.
pub(crate) struct Nginx {
    host: Host,
    /// That answers `GET /` when it runs.
    address: SocketAddr,
    /// The directory of its files.
    prefix: String,
    process: Option<Process>,
}

impl Nginx {
    /// Starts it on a backend, and returns when it answers; to `GET /` with the backend's name.
    /// `directory` is for its files.
    pub(crate) fn start(host: &Host, directory: &Path) -> Result<Self> {
        Self::start_with(host, directory, host.v4(PORT), &configuration(host.name()))
    }

    /// The same with a configuration of the caller's, by which it answers at `address`; once on a
    /// host.
    pub(crate) fn start_with(
        host: &Host,
        directory: &Path,
        address: SocketAddr,
        configuration: &str,
    ) -> Result<Self> {
        let prefix = directory.join(format!("nginx-{host}"));
        fs::create_dir_all(&prefix).with_context(|| format!("cannot make {}", prefix.display()))?;
        let config = prefix.join("nginx.conf");
        fs::write(&config, configuration)
            .with_context(|| format!("cannot write {}", config.display()))?;
        let mut nginx = Self {
            host: host.clone(),
            address,
            prefix: prefix.to_string_lossy().into_owned(),
            process: None,
        };
        nginx.start_again()?;
        Ok(nginx)
    }

    pub(crate) fn start_again(&mut self) -> Result<()> {
        let mut process = self.host.spawn("nginx", &self.arguments())?;
        let answers = wait_for(Duration::from_secs(10), "nginx answers", || {
            match process.exited() {
                Ok(None) => self.answers().then_some(Ok(())),
                Ok(Some(status)) => Some(Err(anyhow::anyhow!("nginx has ended ({status})"))),
                Err(error) => Some(Err(error)),
            }
        });
        if let Err(error) = answers.unwrap_or_else(|timed_out| Err(timed_out.into())) {
            bail!("on {}: {error:#}; its log:\n{}", self.host, process.log());
        }
        self.process = Some(process);
        Ok(())
    }

    /// SIGKILL to the master and its worker.
    pub(crate) fn kill9(&mut self) -> Result<()> {
        let mut process = self.process.take().context("nginx does not run")?;
        process.kill()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What starts it again, by hand.
    pub(crate) fn command_line(&self) -> String {
        format!("nginx {}", self.arguments().join(" "))
    }

    fn arguments(&self) -> [&str; 4] {
        ["-p", &self.prefix, "-c", "nginx.conf"]
    }

    fn answers(&self) -> bool {
        let address = self.address;
        self.host.netns().run(|| {
            Connection::open(address)
                .and_then(|mut connection| connection.ask())
                .is_ok()
        })
    }
}

fn configuration(name: &str) -> String {
    format!(
        r#"daemon off;
user root;
pid nginx.pid;
error_log stderr;
worker_processes 1;
worker_rlimit_nofile 16384;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    client_body_temp_path body;
    default_type text/plain;
    keepalive_timeout 1h;
    keepalive_requests 1000000000;
    server {{
        listen {PORT} backlog=4096;
        listen [::]:{PORT} ipv6only=on backlog=4096;
        location = / {{ return 200 "{name}\n"; }}
        location = /healthz {{ return 200 "ok\n"; }}
    }}
}}
"#
    )
}

/// Such as `1.22.1`.
pub(crate) fn version() -> Result<String> {
    // It says so on stderr.
    let said = output(Command::new("sh").args(["-c", "nginx -v 2>&1"]))?;
    Ok(said
        .trim()
        .rsplit_once('/')
        .map_or(said.clone(), |(_, version)| version.to_owned()))
}

/// The line that loads the module `stream`, where nginx does not have it built in.
///
/// # Errors
/// nginx has no such module, or its file is not installed.
pub(crate) fn load_stream() -> Result<String> {
    let said = output(Command::new("sh").args(["-c", "nginx -V 2>&1"]))?;
    let options: Vec<_> = said.split_whitespace().collect();
    if options.contains(&"--with-stream") {
        return Ok(String::new());
    }
    if !options.contains(&"--with-stream=dynamic") {
        bail!("this nginx was built without its module stream");
    }
    let directory = options
        .iter()
        .find_map(|option| option.strip_prefix("--modules-path="))
        .context("nginx does not say where its modules are")?;
    let module = Path::new(directory).join("ngx_stream_module.so");
    if !module.is_file() {
        bail!(
            "there is no {}: install nginx's module stream (libnginx-mod-stream, \
             nginx-mod-stream)",
            module.display()
        );
    }
    Ok(format!("load_module {};\n", module.display()))
}
