//! Long-lived connections that notice everything that happens to them.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime,
    sync::watch,
    time::{MissedTickBehavior, interval, timeout},
};

use super::{Host, clients::connect};

const MESSAGE: usize = 64;
const INTERVAL: Duration = Duration::from_millis(100);
/// How long the last messages may be on their way at the end.
const DRAIN: Duration = Duration::from_secs(5);

/// Connections that each send a numbered message of 64 bytes every 100 ms and check its echo.
///
/// Made by [`Host::live_connections`]. They talk until [`finish`](Self::finish) or drop.
pub struct LiveConnections {
    stop: watch::Sender<bool>,
    progress: Arc<[Mutex<Progress>]>,
    thread: Option<thread::JoinHandle<()>>,
}

/// What has happened to [`LiveConnections`] so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LiveReport {
    /// Connections by the server that they were given.
    pub by_server: BTreeMap<String, u64>,
    /// One line for each connection that broke: whose it was, when and how.
    pub broken: Vec<String>,
    /// Messages that came back unchanged, the least of any connection.
    pub fewest_echoes: u64,
    /// Messages that came back unchanged, all connections together.
    pub echoes: u64,
    /// Bytes sent on connections that have ended, whose echo never came.
    pub bytes_lost: u64,
    /// The longest time that any connection heard nothing; about 100 ms when all is well.
    pub longest_silence: Duration,
}

/// One connection's.
struct Progress {
    server: String,
    sent: u64,
    echoed: u64,
    heard: Instant,
    longest_silence: Duration,
    state: State,
}

impl Progress {
    /// Bytes whose echo has not come yet.
    fn outstanding(&self) -> u64 {
        self.sent - self.echoed
    }
}

enum State {
    Talking,
    Finished,
    Broken(String),
}

impl Host {
    /// Opens connections that talk until they are told to stop.
    ///
    /// # Errors
    /// When one of them cannot be opened.
    pub fn live_connections(&self, to: SocketAddr, count: usize) -> Result<LiveConnections> {
        LiveConnections::start(self, to, count)
    }
}

impl LiveConnections {
    fn start(host: &Host, to: SocketAddr, count: usize) -> Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let (opened, opening) = mpsc::sync_channel(1);
        let thread = host.netns().spawn_thread(move || {
            let runtime = runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .context("cannot start a runtime");
            let result = runtime.map(|runtime| {
                runtime.block_on(async {
                    let (progress, streams) = open(to, count).await?;
                    // The starter waits for this message, and stops us if it goes away.
                    let _ = opened.send(Ok(Arc::clone(&progress)));
                    talk_all(progress, streams, stopped).await;
                    anyhow::Ok(())
                })
            });
            if let Err(error) | Ok(Err(error)) = result {
                let _ = opened.send(Err(error));
            }
        })?;
        let progress = opening.recv().context("the clients' thread panicked")??;
        Ok(Self {
            stop,
            progress,
            thread: Some(thread),
        })
    }

    /// What has happened so far, while they go on.
    pub fn report(&self) -> LiveReport {
        let mut report = LiveReport {
            fewest_echoes: u64::MAX,
            ..LiveReport::default()
        };
        for (number, progress) in self.progress.iter().enumerate() {
            let progress = lock(progress);
            let echoes = progress.echoed / MESSAGE as u64;
            *report.by_server.entry(progress.server.clone()).or_default() += 1;
            report.echoes += echoes;
            report.fewest_echoes = report.fewest_echoes.min(echoes);
            let silence = match &progress.state {
                State::Talking => progress.longest_silence.max(progress.heard.elapsed()),
                State::Finished | State::Broken(_) => {
                    report.bytes_lost += progress.outstanding();
                    progress.longest_silence
                }
            };
            report.longest_silence = report.longest_silence.max(silence);
            if let State::Broken(reason) = &progress.state {
                let server = &progress.server;
                report.broken.push(format!(
                    "connection {number} to {server}, after {echoes} echoes: {reason}"
                ));
            }
        }
        report
    }

    /// Lets every connection wait for its last echoes and close, and says how it all went.
    pub fn finish(mut self) -> LiveReport {
        self.end();
        self.report()
    }

    fn end(&mut self) {
        self.stop.send_replace(true);
        if let Some(Err(_)) = self.thread.take().map(thread::JoinHandle::join) {
            eprintln!("the thread of the live connections panicked");
        }
    }
}

impl Drop for LiveConnections {
    fn drop(&mut self) {
        self.end();
    }
}

async fn open(to: SocketAddr, count: usize) -> Result<(Arc<[Mutex<Progress>]>, Vec<TcpStream>)> {
    let mut opening = tokio::task::JoinSet::new();
    for _ in 0..count {
        opening.spawn(connect(to));
    }
    let mut streams = Vec::with_capacity(count);
    let mut progress = Vec::with_capacity(count);
    for result in opening.join_all().await {
        let (stream, greeting) = result?;
        streams.push(stream);
        progress.push(Mutex::new(Progress {
            server: greeting.server,
            sent: 0,
            echoed: 0,
            heard: Instant::now(),
            longest_silence: Duration::ZERO,
            state: State::Talking,
        }));
    }
    Ok((progress.into(), streams))
}

async fn talk_all(
    progress: Arc<[Mutex<Progress>]>,
    streams: Vec<TcpStream>,
    stopped: watch::Receiver<bool>,
) {
    let mut talking = tokio::task::JoinSet::new();
    for (number, stream) in streams.into_iter().enumerate() {
        let (progress, stopped) = (Arc::clone(&progress), stopped.clone());
        talking.spawn(async move {
            let result = talk(&progress[number], number, stream, stopped).await;
            lock(&progress[number]).state = match result {
                Ok(()) => State::Finished,
                Err(error) => State::Broken(format!("{error:#}")),
            };
        });
    }
    talking.join_all().await;
}

async fn talk(
    progress: &Mutex<Progress>,
    number: usize,
    mut stream: TcpStream,
    mut stopped: watch::Receiver<bool>,
) -> Result<()> {
    let (reader, mut writer) = stream.split();
    let mut echo = Echo {
        reader,
        number,
        partial: [0; MESSAGE],
        filled: 0,
    };
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for sequence in 0.. {
        // Hearing goes on while we wait for our turn to speak.
        tokio::select! {
            // An error means that the owner is gone: time to stop as well.
            _ = stopped.wait_for(|stop| *stop) => break,
            _ = ticks.tick() => {}
            result = echo.listen(progress) => return result,
        }
        writer
            .write_all(&message(number, sequence))
            .await
            .context("cannot send")?;
        lock(progress).sent += MESSAGE as u64;
    }
    let drained = timeout(DRAIN, async {
        while lock(progress).outstanding() > 0 {
            echo.hear(progress).await?;
        }
        writer.shutdown().await.context("cannot close")
    });
    drained
        .await
        .with_context(|| format!("the last echoes did not come within {DRAIN:?}"))?
}

/// The hearing half of a connection.
struct Echo<'a> {
    reader: tokio::net::tcp::ReadHalf<'a>,
    number: usize,
    partial: [u8; MESSAGE],
    filled: usize,
}

impl Echo<'_> {
    /// Hears echo after echo, and returns only when something is wrong. May be cancelled.
    async fn listen(&mut self, progress: &Mutex<Progress>) -> Result<()> {
        loop {
            self.hear(progress).await?;
        }
    }

    /// Hears a part of an echo, and checks it once it is whole. May be cancelled.
    async fn hear(&mut self, progress: &Mutex<Progress>) -> Result<()> {
        let length = self
            .reader
            .read(&mut self.partial[self.filled..])
            .await
            .context("cannot read")?;
        if length == 0 {
            bail!("closed by the server");
        }
        self.filled += length;
        if self.filled < MESSAGE {
            return Ok(());
        }
        self.filled = 0;
        let mut progress = lock(progress);
        let sequence = progress.echoed / MESSAGE as u64;
        if self.partial != message(self.number, sequence) {
            bail!("message {sequence} came back changed");
        }
        progress.echoed += MESSAGE as u64;
        progress.longest_silence = progress.longest_silence.max(progress.heard.elapsed());
        progress.heard = Instant::now();
        Ok(())
    }
}

/// Tells apart every message of every connection.
fn message(connection: usize, sequence: u64) -> [u8; MESSAGE] {
    let mut message = [b'.'; MESSAGE];
    message[..8].copy_from_slice(&(connection as u64).to_be_bytes());
    message[MESSAGE - 8..].copy_from_slice(&sequence.to_be_bytes());
    message
}

/// A panic elsewhere leaves numbers that are still true.
fn lock(progress: &Mutex<Progress>) -> MutexGuard<'_, Progress> {
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}
