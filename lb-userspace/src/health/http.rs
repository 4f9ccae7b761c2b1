//! One HTTP/1.1 exchange over a connection of its own.

use std::{error::Error, io};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::{CONNECTION, HOST, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinSet};

use super::probe::io_reason;

const AGENT: &str = concat!("lb-health/", env!("CARGO_PKG_VERSION"));

/// More of a response's head than this is not read.
const HEAD_LIMIT: usize = 16 * 1024;

/// More of a response's body than this is not read. A page made for checks is far shorter, and
/// Kubernetes' kubelet draws the line at 10 KiB.
const BODY_LIMIT: usize = 16 * 1024;

/// A request that asks whether a backend is well.
#[derive(Debug)]
pub(super) struct Get {
    pub(super) path: String,
    pub(super) host: String,
}

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub(super) enum GetError {
    #[error("cannot be sent: {0}")]
    Request(#[from] hyper::http::Error),
    #[error("{}", exchange_reason(.0))]
    Exchange(#[from] hyper::Error),
}

/// A response whose head has been read.
pub(super) struct Answer {
    response: Response<Incoming>,
    /// Drives the connection, and ends it when dropped.
    _connection: JoinSet<()>,
}

impl Get {
    /// Sends the request and reads the head of the response.
    pub(super) async fn send(&self, stream: TcpStream) -> Result<Answer, GetError> {
        let request = Request::get(self.path.as_str())
            .header(HOST, self.host.as_str())
            .header(USER_AGENT, AGENT)
            .header(CONNECTION, "close")
            .body(Empty::<Bytes>::new())?;
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(HEAD_LIMIT)
            .handshake(TokioIo::new(stream))
            .await?;
        let mut driver = JoinSet::new();
        driver.spawn(async {
            // Whatever goes wrong on the connection, the request learns of it too.
            drop(connection.await);
        });
        Ok(Answer {
            response: sender.send_request(request).await?,
            _connection: driver,
        })
    }
}

impl Answer {
    pub(super) fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// Reads the body up to a bound and throws it away, so that the backend can finish and close
    /// in peace: cut off at the status line, many a server logs a broken pipe for every probe.
    pub(super) async fn drain(self) {
        // The verdict stands already; a body that breaks off does not change it.
        drop(
            Limited::new(self.response.into_body(), BODY_LIMIT)
                .collect()
                .await,
        );
    }
}

fn exchange_reason(error: &hyper::Error) -> String {
    if error.is_incomplete_message() {
        return "connection closed before the response was complete".to_owned();
    }
    if error.is_parse_too_large() {
        return format!("the head of the response is longer than {HEAD_LIMIT} bytes");
    }
    if error.is_parse() {
        return format!("the response is not HTTP/1.1 ({error})");
    }
    match error.source().and_then(|e| e.downcast_ref::<io::Error>()) {
        Some(source) => io_reason(source),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;
    use crate::{
        health::testing::{
            DEADLINE, Server, failed, http, listener, ok, probe, probe_within, read_head,
        },
        model::CheckKind,
    };

    /// What `GET /healthz` makes of a server that answers so, and closes.
    async fn verdict_on(answer: &'static str) -> Result<String, String> {
        let server = Server::answering(answer).await;
        probe(server.address, http("/healthz")).await
    }

    #[tokio::test]
    async fn a_server_that_accepts_and_says_nothing_runs_into_the_timeout() {
        let (_listener, address) = listener().await;
        assert_eq!(
            probe_within(Duration::from_millis(100), address, http("/healthz")).await,
            failed("no answer to GET /healthz within 100ms")
        );
    }

    #[tokio::test]
    async fn the_status_decides() {
        for (answer, expected) in [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
                ok("HTTP 200 from GET /healthz"),
            ),
            (
                "HTTP/1.0 204 No Content\r\n\r\n",
                ok("HTTP 204 from GET /healthz"),
            ),
            (
                "HTTP/1.1 302 Found\r\nLocation: /login\r\n\r\n",
                ok("HTTP 302 from GET /healthz"),
            ),
            ("HTTP/1.1 399 \r\n\r\n", ok("HTTP 399 from GET /healthz")),
            (
                "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
                failed("HTTP 404 from GET /healthz"),
            ),
            (
                "HTTP/1.1 503 Service Unavailable\r\n\r\nsorry",
                failed("HTTP 503 from GET /healthz"),
            ),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 500 Oops\r\n\r\n",
                failed("HTTP 500 from GET /healthz"),
            ),
        ] {
            assert_eq!(verdict_on(answer).await, expected, "{answer:?}");
        }
    }

    #[tokio::test]
    async fn a_response_cut_off_in_its_head_is_a_failure_and_in_its_body_is_none() {
        let cut = failed("GET /healthz: connection closed before the response was complete");
        for head in ["", "HTTP/1.1 2", "HTTP/1.1 200 OK\r\nContent-Le"] {
            assert_eq!(verdict_on(head).await, cut, "{head:?}");
        }
        assert_eq!(
            verdict_on("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").await,
            ok("HTTP 200 from GET /healthz")
        );
    }

    #[tokio::test]
    async fn another_protocol_is_called_so() {
        for answer in [
            "SSH-2.0-OpenSSH_9.2p1\r\n",
            "220 mail.example ESMTP\r\n",
            "HTTP/1.1 abc\r\n\r\n",
        ] {
            let reason = verdict_on(answer).await.unwrap_err();
            assert!(
                reason.starts_with("GET /healthz: the response is not HTTP/1.1 ("),
                "{answer:?}: {reason}"
            );
        }
    }

    #[tokio::test]
    async fn a_head_beyond_the_limit_is_not_read_to_the_end() {
        let (listener, address) = listener().await;
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_head(&mut stream).await;
            let long = format!(
                "HTTP/1.1 200 OK\r\nX: {}\r\n\r\n",
                "x".repeat(2 * HEAD_LIMIT)
            );
            // May fail at any point: the prober need not wait for the rest.
            drop(stream.write_all(long.as_bytes()).await);
        };
        let (outcome, ()) = tokio::join!(probe(address, http("/")), server);
        assert_eq!(
            outcome,
            failed("GET /: the head of the response is longer than 16384 bytes")
        );
    }

    #[tokio::test]
    async fn a_reset_is_called_so() {
        let (listener, address) = listener().await;
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_head(&mut stream).await;
            stream.set_zero_linger().unwrap();
        });
        assert_eq!(
            probe(address, http("/")).await,
            failed("GET /: connection reset")
        );
    }

    #[tokio::test]
    async fn the_request_names_host_and_prober() {
        let mut server = Server::answering("HTTP/1.1 200 OK\r\n\r\n").await;
        let get = |host: Option<&str>| CheckKind::Http {
            path: "/healthz?full=1".to_owned(),
            host: host.map(str::to_owned),
        };

        probe(server.address, get(None)).await.unwrap();
        let request = server.request().await;
        assert!(request.starts_with("GET /healthz?full=1 HTTP/1.1\r\n"));
        for header in [
            format!("host: {}", server.address),
            format!("user-agent: lb-health/{}", env!("CARGO_PKG_VERSION")),
            "connection: close".to_owned(),
        ] {
            assert!(request.lines().any(|l| l == header), "{header}: {request}");
        }

        probe(server.address, get(Some("web.example")))
            .await
            .unwrap();
        let request = server.request().await;
        assert!(request.lines().any(|l| l == "host: web.example"));
    }

    #[tokio::test]
    async fn a_request_that_cannot_be_made_is_a_failure() {
        let (_listener, address) = listener().await;
        assert_eq!(
            probe(address, http("/a b")).await,
            failed("GET /a b: cannot be sent: invalid uri character")
        );
    }

    /// Answers with the head of a response and hands the connection back.
    async fn send_head(listener: &TcpListener) -> TcpStream {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_head(&mut stream).await;
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n";
        stream.write_all(head).await.unwrap();
        stream
    }

    #[tokio::test]
    async fn a_body_is_waited_for_and_the_connection_closed_in_peace() {
        let (listener, address) = listener().await;
        let server = async {
            let mut stream = send_head(&listener).await;
            let early = Duration::from_millis(100);
            assert!(
                tokio::time::timeout(early, stream.read_u8()).await.is_err(),
                "the prober closed before the body had come"
            );
            stream.write_all(b"well").await.unwrap();
            stream.read_u8().await.unwrap_err().kind()
        };
        let (outcome, end) = tokio::join!(probe(address, http("/")), server);
        assert_eq!(outcome, ok("HTTP 200 from GET /"));
        assert_eq!(end, io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_changes_nothing() {
        let (listener, address) = listener().await;
        let (outcome, _stream) = tokio::join!(
            probe_within(Duration::from_millis(300), address, http("/")),
            send_head(&listener)
        );
        assert_eq!(outcome, ok("HTTP 200 from GET /"));
    }

    #[tokio::test]
    async fn a_body_without_end_is_not_read_to_the_end() {
        let (listener, address) = listener().await;
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            while stream.write_all(b"and more").await.is_ok() {}
        });
        let probe = probe_within(DEADLINE * 100, address, http("/"));
        assert_eq!(
            tokio::time::timeout(DEADLINE, probe).await.expect("an end"),
            ok("HTTP 200 from GET /")
        );
        server.await.unwrap();
    }
}
