//! Clients of an [`IdentityServer`](super::IdentityServer), on a host of the lab.

use std::{
    collections::BTreeMap,
    future::Future,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime,
    time::timeout,
};

use super::{Host, Netns};

/// How long a client waits for one step before it calls it a failure.
const PATIENCE: Duration = Duration::from_secs(10);

impl Host {
    /// Opens a connection, reads the greeting, sends `length` pseudo-random bytes, and checks
    /// every byte of the echo and the orderly end.
    pub fn exchange(&self, to: SocketAddr, length: u64) -> Result<Greeting> {
        run(self.netns(), async move {
            let (mut stream, greeting) = connect(to).await?;
            exchange(&mut stream, length)
                .await
                .with_context(|| format!("talking to {} at {to}", greeting.server))?;
            Ok(greeting)
        })?
    }

    /// Opens `count` connections one after the other, `parallel` at a time; each checks the
    /// greeting and 64 bytes of echo, and closes.
    pub fn connect_many(&self, to: SocketAddr, count: u64, parallel: u64) -> Result<Spread> {
        let connected = run(
            self.netns(),
            connect_all(to, count, parallel, AndThen::Close),
        )?;
        Ok(connected.0)
    }

    /// The same, but all connections stay open until the result is dropped.
    pub fn hold_many(&self, to: SocketAddr, count: u64, parallel: u64) -> Result<Held> {
        let (spread, streams) = run(
            self.netns(),
            connect_all(to, count, parallel, AndThen::Hold),
        )?;
        Ok(Held {
            spread,
            _streams: streams,
        })
    }
}

/// What a server says of itself and of the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// Name of the server's host.
    pub server: String,
    /// The client's address as the server sees it.
    pub peer: SocketAddr,
    /// The client's address as the client sees it.
    pub local: SocketAddr,
}

/// Where connections went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    /// Connections that worked, by the server's name.
    pub by_server: BTreeMap<String, u64>,
    /// Why the others did not.
    pub failures: Vec<String>,
}

impl Spread {
    /// Connections that worked.
    pub fn connected(&self) -> u64 {
        self.by_server.values().sum()
    }
}

/// Connections kept open; dropping this closes them.
#[derive(Debug)]
pub struct Held {
    pub spread: Spread,
    _streams: Vec<std::net::TcpStream>,
}

/// Connects and reads the greeting.
pub(super) async fn connect(to: SocketAddr) -> Result<(TcpStream, Greeting)> {
    const MAX_GREETING: usize = 256;
    let mut stream = in_time(TcpStream::connect(to))
        .await
        .with_context(|| format!("cannot connect to {to}"))?;
    stream.set_nodelay(true)?;
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        ensure!(line.len() < MAX_GREETING, "{to} greets without an end");
        let byte = in_time(stream.read_u8())
            .await
            .with_context(|| format!("no greeting from {to}"))?;
        line.push(byte);
    }
    let line = String::from_utf8_lossy(&line);
    let greeting = line
        .trim_end()
        .split_once(' ')
        .and_then(|(server, peer)| Some((server.to_owned(), peer.parse().ok()?)))
        .with_context(|| format!("{to} greets with {line:?}"))?;
    let local = stream.local_addr()?;
    Ok((
        stream,
        Greeting {
            server: greeting.0,
            peer: greeting.1,
            local,
        },
    ))
}

/// Sends and checks at the same time, so that neither side's buffers fill up; then closes, and
/// expects the server to do the same.
async fn exchange(stream: &mut TcpStream, length: u64) -> Result<()> {
    let seed = u64::from(stream.local_addr()?.port());
    let (mut reader, mut writer) = stream.split();
    let send = async {
        let mut pattern = Pattern::new(seed);
        let mut left = length;
        let mut chunk = [0; 8 * 1024];
        while left > 0 {
            let size = left.min(chunk.len() as u64) as usize;
            pattern.fill(&mut chunk[..size]);
            in_time(writer.write_all(&chunk[..size]))
                .await
                .with_context(|| format!("sending, {left} bytes before the end"))?;
            left -= size as u64;
        }
        in_time(writer.shutdown()).await.context("closing")
    };
    let check = async {
        let mut pattern = Pattern::new(seed);
        let mut received = 0;
        let (mut chunk, mut expected) = ([0; 8 * 1024], [0; 8 * 1024]);
        loop {
            let size = in_time(reader.read(&mut chunk))
                .await
                .with_context(|| format!("reading after {received} bytes"))?;
            if size == 0 {
                ensure!(
                    received == length,
                    "the server closed after {received} of {length} bytes"
                );
                return Ok(());
            }
            pattern.fill(&mut expected[..size]);
            if let Some(at) = (0..size).find(|&i| chunk[i] != expected[i]) {
                bail!("byte {} came back changed", received + at as u64);
            }
            received += size as u64;
        }
    };
    tokio::try_join!(send, check)?;
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum AndThen {
    Close,
    Hold,
}

async fn connect_all(
    to: SocketAddr,
    count: u64,
    parallel: u64,
    and_then: AndThen,
) -> (Spread, Vec<std::net::TcpStream>) {
    let started = Arc::new(AtomicU64::new(0));
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..parallel.min(count) {
        let started = Arc::clone(&started);
        workers.spawn(async move {
            let mut results = Vec::new();
            while started.fetch_add(1, Ordering::Relaxed) < count {
                results.push(connect_once(to, and_then).await);
            }
            results
        });
    }
    let mut spread = Spread::default();
    let mut streams = Vec::new();
    for result in workers.join_all().await.into_iter().flatten() {
        match result {
            Ok((server, stream)) => {
                *spread.by_server.entry(server).or_default() += 1;
                streams.extend(stream);
            }
            Err(error) => spread.failures.push(format!("{error:#}")),
        }
    }
    (spread, streams)
}

async fn connect_once(
    to: SocketAddr,
    and_then: AndThen,
) -> Result<(String, Option<std::net::TcpStream>)> {
    const LENGTH: usize = 64;
    let (mut stream, greeting) = connect(to).await?;
    let held = match and_then {
        AndThen::Close => {
            exchange(&mut stream, LENGTH as u64).await?;
            None
        }
        AndThen::Hold => {
            let (mut sent, mut echoed) = ([0; LENGTH], [0; LENGTH]);
            Pattern::new(greeting.local.port().into()).fill(&mut sent);
            in_time(stream.write_all(&sent)).await?;
            in_time(stream.read_exact(&mut echoed)).await?;
            ensure!(echoed == sent, "the echo of {} differs", greeting.server);
            // A plain socket needs no runtime to stay open.
            Some(stream.into_std()?)
        }
    };
    Ok((greeting.server, held))
}

/// Runs a future to its end on a thread of its own inside a namespace.
pub(super) fn run<F>(netns: &Netns, work: F) -> Result<F::Output>
where
    F: Future + Send,
    F::Output: Send,
{
    netns.run(|| {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start a runtime")?;
        Ok(runtime.block_on(work))
    })
}

pub(super) async fn in_time<T>(step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(PATIENCE, step).await.unwrap_or_else(|_| {
        let message = format!("nothing happened for {PATIENCE:?}");
        Err(io::Error::new(io::ErrorKind::TimedOut, message))
    })
}

/// An endless stream of bytes that a seed determines (SplitMix64), however it is cut up.
struct Pattern {
    state: u64,
    word: [u8; 8],
    used: usize,
}

impl Pattern {
    fn new(seed: u64) -> Self {
        Self {
            state: seed,
            word: [0; 8],
            used: 8,
        }
    }

    fn fill(&mut self, buffer: &mut [u8]) {
        for byte in buffer {
            if self.used == self.word.len() {
                self.word = self.next_word().to_le_bytes();
                self.used = 0;
            }
            *byte = self.word[self.used];
            self.used += 1;
        }
    }

    fn next_word(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_the_same_however_it_is_cut() {
        let mut whole = [0; 100];
        Pattern::new(7).fill(&mut whole);
        let mut pieces = [0; 100];
        let mut pattern = Pattern::new(7);
        for piece in pieces.chunks_mut(13) {
            pattern.fill(piece);
        }
        assert_eq!(whole, pieces);
        let mut other = [0; 100];
        Pattern::new(8).fill(&mut other);
        assert_ne!(whole, other);
    }
}
