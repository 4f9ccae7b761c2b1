//! What the lab's servers have in common: one thread, many connections, stopped and started again.

use std::{
    future::Future, net::SocketAddr, pin::Pin, sync::Arc, sync::mpsc, thread, time::Duration,
};

use anyhow::{Context, Result};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    runtime,
    sync::watch,
};

use super::{Netns, host::canonical};

type Handler =
    dyn Fn(TcpStream, SocketAddr) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync;

/// A TCP server in a network namespace, for IPv4 and IPv6, with a task for each connection.
pub(super) struct Listener {
    netns: Netns,
    port: u16,
    handler: Arc<Handler>,
    running: Option<Running>,
}

struct Running {
    orders: watch::Sender<Order>,
    thread: thread::JoinHandle<()>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Serve,
    /// Stop listening; the connections go on.
    Refuse,
    Die,
}

impl Listener {
    /// Returns when the server listens.
    pub(super) fn start<H, F>(netns: &Netns, port: u16, handler: H) -> Result<Self>
    where
        H: Fn(TcpStream, SocketAddr) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let mut listener = Self {
            netns: netns.clone(),
            port,
            handler: Arc::new(move |stream, peer| Box::pin(handler(stream, peer))),
            running: None,
        };
        listener.restart()?;
        Ok(listener)
    }

    /// New connections are refused from now on; those there are go on.
    pub(super) fn refuse(&self) {
        if let Some(running) = &self.running {
            running.orders.send_replace(Order::Refuse);
        }
    }

    /// Everything ends as when a process is killed: the kernel closes all sockets.
    pub(super) fn kill(&mut self) {
        if let Some(Running { orders, thread }) = self.running.take() {
            orders.send_replace(Order::Die);
            if thread.join().is_err() {
                eprintln!("a server in {} panicked", self.netns.name());
            }
        }
    }

    /// Kills it, if it still runs, and starts it anew.
    pub(super) fn restart(&mut self) -> Result<()> {
        self.kill();
        let (orders, received) = watch::channel(Order::Serve);
        let (ready, started) = mpsc::sync_channel(1);
        let (port, handler) = (self.port, Arc::clone(&self.handler));
        let thread = self.netns.spawn_thread(move || {
            let served = runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map(|runtime| runtime.block_on(serve(port, handler, received, &ready)));
            if let Err(error) | Ok(Err(error)) = served {
                // Nobody listens any more only where the start has failed already.
                let _ = ready.send(Err(error));
            }
        })?;
        started
            .recv()
            .context("the server's thread panicked")?
            .with_context(|| format!("cannot serve port {port} in {}", self.netns.name()))?;
        self.running = Some(Running { orders, thread });
        Ok(())
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Ends, and with it every connection of the runtime, at [`Order::Die`].
async fn serve(
    port: u16,
    handler: Arc<Handler>,
    mut orders: watch::Receiver<Order>,
    ready: &mpsc::SyncSender<std::io::Result<()>>,
) -> std::io::Result<()> {
    let listener = listen(port)?;
    // The starter waits for this message; if it is gone the orders end, and so does this.
    let _ = ready.send(Ok(()));
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    tokio::spawn(handler(stream, canonical(peer)));
                }
                Err(error) => {
                    // Such as: too many open files. Other connections may end and make room.
                    eprintln!("cannot accept a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            changed = orders.wait_for(|order| *order != Order::Serve) => {
                if changed.is_err() {
                    return Ok(());
                }
                break;
            }
        }
    }
    drop(listener);
    // An error means that nobody is left to give orders.
    let _ = orders.wait_for(|order| *order == Order::Die).await;
    Ok(())
}

/// One socket for both families, with a backlog for thousands of clients at once.
fn listen(port: u16) -> std::io::Result<TcpListener> {
    let socket = TcpSocket::new_v6()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, port)))?;
    socket.listen(4096)
}
