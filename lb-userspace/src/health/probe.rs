//! One probe: ask a backend once, and say what was seen.

use std::{io, net::SocketAddr, time::Duration};

use hyper::StatusCode;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::{
    http::{Get, GetError},
    legs::{Ends, LegsError},
    path::PathProbe,
};
use crate::model::{Check, CheckKind, format_duration};

/// What was seen, for people: `HTTP 200 from GET /healthz`.
pub(super) type Outcome = Result<String, ProbeError>;

/// A question that can be put to a backend again and again.
#[derive(Debug)]
pub(super) struct Probe {
    address: SocketAddr,
    timeout: Duration,
    kind: Kind,
    /// Where replies do not come back through this host.
    path: Option<PathProbe>,
}

#[derive(Debug)]
enum Kind {
    Tcp,
    Http(Get),
}

/// Why a probe failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProbeError {
    #[error("{}", io_reason(.0))]
    Connect(#[source] io::Error),
    #[error("no answer within {}", format_duration(*.0))]
    NoAnswer(Duration),
    #[error("no answer to GET {path} within {}", format_duration(*.timeout))]
    NoResponse { path: String, timeout: Duration },
    #[error("GET {path}: {source}")]
    Get { path: String, source: GetError },
    #[error("HTTP {} from GET {path}", .status.as_u16())]
    Status { status: StatusCode, path: String },
    #[error(transparent)]
    Legs(Box<LegsError>),
}

impl Probe {
    /// `None` for a check that asks nothing.
    pub(super) fn new(address: SocketAddr, check: &Check, path: Option<PathProbe>) -> Option<Self> {
        let kind = match &check.kind {
            CheckKind::None => return None,
            CheckKind::Tcp => Kind::Tcp,
            CheckKind::Http { path, host } => Kind::Http(Get {
                path: path.clone(),
                host: host.clone().unwrap_or_else(|| address.to_string()),
            }),
        };
        Some(Self {
            address,
            timeout: check.timeout,
            kind,
            path,
        })
    }

    /// Asks once, over a fresh connection. Takes no longer than the check's timeout.
    pub(super) async fn run(&self) -> Outcome {
        let Some(path) = &self.path else {
            return self.direct(self.timeout).await;
        };
        let ends = Ends {
            backend: self.address,
            way: *path.way(),
        };
        match &self.kind {
            Kind::Tcp => {
                let patience = self.timeout / 2;
                ends.path_decides(path.run(), self.direct(patience), patience)
                    .await
            }
            Kind::Http(_) => {
                ends.both_decide(path.run(), self.direct(self.timeout))
                    .await
            }
        }
    }

    /// Asks at the backend's own address.
    async fn direct(&self, patience: Duration) -> Outcome {
        let deadline = Instant::now() + patience;
        let stream = timeout_at(deadline, TcpStream::connect(self.address))
            .await
            .map_err(|_| ProbeError::NoAnswer(patience))?
            .map_err(ProbeError::Connect)?;
        match &self.kind {
            Kind::Tcp => end(stream),
            Kind::Http(get) => self.get(get, stream, deadline).await,
        }
    }

    async fn get(&self, get: &Get, stream: TcpStream, deadline: Instant) -> Outcome {
        let path = || get.path.clone();
        let answer = timeout_at(deadline, get.send(stream))
            .await
            .map_err(|_| ProbeError::NoResponse {
                path: path(),
                timeout: self.timeout,
            })?
            .map_err(|source| ProbeError::Get {
                path: path(),
                source,
            })?;
        let status = answer.status();
        // The status alone decides: a body that is still coming at the deadline is cut off.
        drop(timeout_at(deadline, answer.drain()).await);
        if (200..400).contains(&status.as_u16()) {
            Ok(format!("HTTP {} from GET {}", status.as_u16(), get.path))
        } else {
            Err(ProbeError::Status {
                status,
                path: path(),
            })
        }
    }
}

impl From<LegsError> for ProbeError {
    fn from(error: LegsError) -> Self {
        Self::Legs(Box::new(error))
    }
}

impl ProbeError {
    /// Whether this host lacked something (descriptors, memory), so that the backend was not asked.
    pub(super) fn is_local(&self) -> bool {
        match self {
            Self::Connect(error) => matches!(
                error.raw_os_error(),
                Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
            ),
            Self::Legs(error) => error.is_local(),
            _ => false,
        }
    }
}

/// Ends a connection that was opened only to see that it can be: with a RST, as HAProxy's TCP
/// check does unless told to linger.
///
/// A FIN would leave one of this host's ports in TIME_WAIT for a minute after each probe (16 000
/// backends every 2 s: half a million of them), and would leave it to the backend's application
/// to notice and close its end. A RST frees both ends at once.
fn end(stream: TcpStream) -> Outcome {
    stream.set_zero_linger().map_err(ProbeError::Connect)?;
    drop(stream);
    Ok("connection accepted".to_owned())
}

/// An error of the socket calls in an operator's words, without its number where the words suffice.
pub(super) fn io_reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        io::ErrorKind::HostUnreachable => "no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "network unreachable".to_owned(),
        io::ErrorKind::TimedOut => "connection timed out".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::health::testing::{
        DEADLINE, failed, http, listener, ok, probe, probe_within, refusing, unanswering,
    };

    #[test]
    fn no_check_no_probe() {
        let check = Check {
            kind: CheckKind::None,
            ..Check::default()
        };
        assert!(Probe::new(([127, 0, 0, 1], 80).into(), &check, None).is_none());
    }

    #[tokio::test]
    async fn tcp_succeeds_and_ends_with_a_reset() {
        let (listener, address) = listener().await;
        assert_eq!(
            probe(address, CheckKind::Tcp).await,
            ok("connection accepted")
        );
        let (mut stream, _) = listener.accept().await.unwrap();
        assert_eq!(
            stream.read_u8().await.unwrap_err().kind(),
            io::ErrorKind::ConnectionReset
        );
    }

    #[tokio::test]
    async fn a_closed_port_refuses() {
        let (_socket, address) = refusing();
        for kind in [CheckKind::Tcp, http("/")] {
            assert_eq!(probe(address, kind).await, failed("connection refused"));
        }
    }

    #[tokio::test]
    async fn a_syn_without_answer_runs_into_the_timeout() {
        let (_listener, _queued, address) = unanswering().await;
        for kind in [CheckKind::Tcp, http("/")] {
            assert_eq!(
                probe_within(Duration::from_millis(100), address, kind).await,
                failed("no answer within 100ms")
            );
        }
    }

    #[test]
    fn socket_errors_read_as_operators_say_them() {
        for (errno, words) in [
            (libc::ECONNREFUSED, "connection refused"),
            (libc::ECONNRESET, "connection reset"),
            (libc::EHOSTUNREACH, "no route to host"),
            (libc::ENETUNREACH, "network unreachable"),
            (libc::ETIMEDOUT, "connection timed out"),
            (libc::EPERM, "Operation not permitted (os error 1)"),
        ] {
            assert_eq!(io_reason(&io::Error::from_raw_os_error(errno)), words);
        }
    }

    #[test]
    fn only_a_lack_of_resources_is_this_hosts_fault() {
        let connect = |errno| ProbeError::Connect(io::Error::from_raw_os_error(errno));
        for errno in [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM] {
            assert!(connect(errno).is_local(), "{errno}");
        }
        for errno in [libc::ECONNREFUSED, libc::EHOSTUNREACH, libc::EADDRNOTAVAIL] {
            assert!(!connect(errno).is_local(), "{errno}");
        }
        assert!(!ProbeError::NoAnswer(DEADLINE).is_local());
    }
}
