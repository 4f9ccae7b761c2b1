//! Servers that run in this process, on a host of the lab.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Host, Netns, Process, binaries, listener::Listener, wait_for};

impl Host {
    /// Starts a server that says who it is and then echoes; see [`IdentityServer`].
    pub fn serve_identity(&self, port: u16) -> Result<IdentityServer> {
        IdentityServer::start(self.name(), self.netns(), port)
    }

    /// Starts the same server as a process of its own, which has its own limit of open files: for
    /// more connections at once than one process can hold both ends of.
    pub fn spawn_identity(&self, port: u16) -> Result<Process> {
        let program = binaries::beside_us("identity-server")?;
        let mut server = self.spawn(&program, &[self.name(), &port.to_string()])?;
        let listens = format!("listens as process {}\n", server.id());
        let listening = wait_for(Duration::from_secs(10), "the server listens", || {
            let ended = server.exited().is_ok_and(|status| status.is_some());
            (ended || server.log().ends_with(&listens)).then_some(!ended)
        });
        ensure!(
            listening?,
            "the server of {} has ended: {}",
            self.name(),
            server.log()
        );
        Ok(server)
    }

    /// Starts an HTTP server that answers every request with one status; see [`HealthServer`].
    pub fn serve_health(&self, port: u16) -> Result<HealthServer> {
        HealthServer::start(self, port)
    }
}

/// Tells each client its own name and the address it sees the client under, as one line
/// (`backend-1 10.1.0.11:40000`), and then echoes every byte until the client closes.
pub struct IdentityServer {
    listener: Listener,
    served: Arc<Served>,
}

#[derive(Default)]
struct Served {
    connections: AtomicU64,
    open: AtomicU64,
    bytes: AtomicU64,
}

impl IdentityServer {
    /// Listens in a namespace and calls itself `name`.
    pub fn start(name: &str, netns: &Netns, port: u16) -> Result<Self> {
        let served = Arc::new(Served::default());
        let name: Arc<str> = name.into();
        let counts = Arc::clone(&served);
        let listener = Listener::start(netns, port, move |stream, peer| {
            let (name, counts) = (Arc::clone(&name), Arc::clone(&counts));
            async move {
                counts.connections.fetch_add(1, Ordering::Relaxed);
                let _open = Open::new(&counts.open);
                // A client that goes away in the middle is a client's business.
                let _ = greet_and_echo(stream, &name, peer, &counts.bytes).await;
            }
        })?;
        Ok(Self { listener, served })
    }

    /// Connections accepted since the start, those of health probes included.
    pub fn connections(&self) -> u64 {
        self.served.connections.load(Ordering::Relaxed)
    }

    /// Connections that are open now.
    pub fn open(&self) -> u64 {
        self.served.open.load(Ordering::Relaxed)
    }

    /// Bytes received since the start, to be echoed.
    pub fn bytes(&self) -> u64 {
        self.served.bytes.load(Ordering::Relaxed)
    }

    /// Stops listening; open connections go on.
    pub fn refuse(&self) {
        self.listener.refuse();
    }

    /// Ends it as SIGKILL ends a process: the kernel closes its sockets, all at once.
    pub fn kill(&mut self) {
        self.listener.kill();
    }

    /// Starts it anew, after [`kill`](Self::kill) or [`refuse`](Self::refuse); it keeps its counts.
    pub fn restart(&mut self) -> Result<()> {
        self.listener.restart()
    }
}

async fn greet_and_echo(
    mut stream: TcpStream,
    name: &str,
    peer: SocketAddr,
    received: &AtomicU64,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream
        .write_all(format!("{name} {peer}\n").as_bytes())
        .await?;
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            return stream.shutdown().await;
        }
        // Counted first, so that whoever has seen the answer sees the count.
        received.fetch_add(length as u64, Ordering::Relaxed);
        stream.write_all(&buffer[..length]).await?;
    }
}

/// Counts a connection as open while it lives, also when its task is cancelled.
struct Open<'a>(&'a AtomicU64);

impl<'a> Open<'a> {
    fn new(count: &'a AtomicU64) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A minimal HTTP/1.0 server: every request gets the status that is set at the moment, 200 at
/// first, and its server's name as the body.
pub struct HealthServer {
    listener: Listener,
    status: Arc<AtomicU16>,
    requests: Arc<AtomicU64>,
}

impl HealthServer {
    fn start(host: &Host, port: u16) -> Result<Self> {
        let status = Arc::new(AtomicU16::new(200));
        let requests = Arc::new(AtomicU64::new(0));
        let name: Arc<str> = host.name().into();
        let (current, count) = (Arc::clone(&status), Arc::clone(&requests));
        let listener = Listener::start(host.netns(), port, move |stream, _| {
            let (name, current, count) =
                (Arc::clone(&name), Arc::clone(&current), Arc::clone(&count));
            async move {
                // A client that goes away in the middle is a client's business.
                let _ = answer(stream, &name, &current, &count).await;
            }
        })?;
        Ok(Self {
            listener,
            status,
            requests,
        })
    }

    /// The status of every answer from now on.
    pub fn set_status(&self, status: u16) {
        self.status.store(status, Ordering::Relaxed);
    }

    /// Requests answered since the start.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Ends it as SIGKILL ends a process.
    pub fn kill(&mut self) {
        self.listener.kill();
    }

    /// Starts it anew, with the status it had.
    pub fn restart(&mut self) -> Result<()> {
        self.listener.restart()
    }
}

async fn answer(
    mut stream: TcpStream,
    name: &str,
    status: &AtomicU16,
    requests: &AtomicU64,
) -> io::Result<()> {
    const MAX_REQUEST: usize = 8 * 1024;
    let mut request = Vec::new();
    while !request.windows(4).any(|w| w == b"\r\n\r\n") {
        if stream.read_buf(&mut request).await? == 0 || request.len() > MAX_REQUEST {
            return Ok(());
        }
    }
    let status = status.load(Ordering::Relaxed);
    let length = name.len();
    let answer = format!(
        "HTTP/1.0 {status} Status\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{name}"
    );
    // Counted first, so that whoever has seen the answer sees the count.
    requests.fetch_add(1, Ordering::Relaxed);
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}
