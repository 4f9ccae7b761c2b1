//! Backends on the loopback, well and ill, and probes of them, for the tests of this room.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::mpsc,
    time::timeout,
};

use super::probe::Probe;
use crate::model::{Check, CheckKind};

const ANYWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// For what must happen: generous, because it is only waited out where a test fails.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);

/// A server that answers every connection in the same way.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    /// The head of each request, or what came of it before the client closed.
    requests: mpsc::UnboundedReceiver<String>,
}

impl Server {
    /// Answers each request with these bytes and closes.
    pub(super) async fn answering(answer: &'static str) -> Self {
        let (listener, address) = listener().await;
        let (sender, requests) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                if sender.send(read_head(&mut stream).await).is_err() {
                    return;
                }
                // A client that has gone away is its own business.
                drop(stream.write_all(answer.as_bytes()).await);
            }
        });
        Self { address, requests }
    }

    /// The next request, in the order of the connections.
    pub(super) async fn request(&mut self) -> String {
        timeout(DEADLINE, self.requests.recv())
            .await
            .expect("a request in time")
            .unwrap()
    }
}

/// A listener whose connections the test itself accepts, or leaves alone.
pub(super) async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(ANYWHERE).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// An address that refuses connections for as long as the socket is kept: bound, so that nobody
/// else gets the port, but not listening.
pub(super) fn refusing() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(ANYWHERE).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// An address that answers no SYN for as long as the sockets are kept: its queue of connections
/// to be accepted is full.
pub(super) async fn unanswering() -> (TcpListener, Vec<TcpStream>, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(ANYWHERE).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(stream) = timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
        queued.push(stream.unwrap());
        assert!(queued.len() < 16, "the queue has no end");
    }
    (listener, queued, address)
}

/// Reads up to the empty line that ends a request's head, or to the end of the stream.
pub(super) async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

/// A check by `GET path`.
pub(super) fn http(path: &str) -> CheckKind {
    CheckKind::Http {
        path: path.to_owned(),
        host: None,
    }
}

/// Probes once: what was seen, or the reason why not.
pub(super) async fn probe_within(
    timeout: Duration,
    address: SocketAddr,
    kind: CheckKind,
) -> Result<String, String> {
    let check = Check {
        kind,
        timeout,
        ..Check::default()
    };
    Probe::new(address, &check, None)
        .expect("a check that asks something")
        .run()
        .await
        .map_err(|error| error.to_string())
}

pub(super) async fn probe(address: SocketAddr, kind: CheckKind) -> Result<String, String> {
    probe_within(DEADLINE, address, kind).await
}

pub(super) fn ok(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

pub(super) fn failed(text: &str) -> Result<String, String> {
    Err(text.to_owned())
}
