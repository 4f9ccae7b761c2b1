//! HTTP over the daemon's unix socket.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
    header,
};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::UnixStream, time::timeout};

use crate::api::{ErrorCode, ErrorInfo, MATCHING_HEADER};

/// How long the daemon may take to begin its answer. Making the slot tables of a thousand services
/// takes some ten seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error("cannot reach lbd on {}", .socket.display())]
    Connect {
        socket: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("lbd on {} has not answered within {} s", .socket.display(), PATIENCE.as_secs())]
    Timeout { socket: PathBuf },
    #[error("lbd on {} broke off", .socket.display())]
    BrokenOff {
        socket: PathBuf,
        #[source]
        source: hyper::Error,
    },
    #[error("lbd on {} answers what this lbctl cannot read", .socket.display())]
    Unreadable {
        socket: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The daemon has answered, and refuses.
    #[error("{}", .0.error)]
    Refused(ErrorInfo),
}

/// Talks to the daemon on one socket; each request has its own connection.
#[derive(Debug)]
pub(super) struct Client {
    socket: PathBuf,
}

/// An answer of the daemon that is not a refusal; its body is still on the way.
#[derive(Debug)]
pub(super) struct Reply {
    socket: PathBuf,
    body: Incoming,
    /// Of a list that was cut short: how many there are in all.
    pub(super) matching: Option<u64>,
}

impl Client {
    pub(super) fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }

    pub(super) async fn get(&self, path: &str) -> Result<Reply, ClientError> {
        self.request(Method::GET, path, Bytes::new()).await
    }

    pub(super) async fn delete(&self, path: &str) -> Result<Reply, ClientError> {
        self.request(Method::DELETE, path, Bytes::new()).await
    }

    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Reply, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| self.unreadable(error))?;
        self.request(method, path, body.into()).await
    }

    async fn request(&self, method: Method, path: &str, body: Bytes) -> Result<Reply, ClientError> {
        timeout(PATIENCE, self.exchange(method, path, body))
            .await
            .map_err(|_| ClientError::Timeout {
                socket: self.socket.clone(),
            })?
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Reply, ClientError> {
        let stream =
            UnixStream::connect(&self.socket)
                .await
                .map_err(|source| ClientError::Connect {
                    socket: self.socket.clone(),
                    source,
                })?;
        let broken_off = |source| ClientError::BrokenOff {
            socket: self.socket.clone(),
            source,
        };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broken_off)?;
        // It ends with the runtime; what goes wrong on it is told to the sender and to the body.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "lbd")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| self.unreadable(error))?;
        let response = sender.send_request(request).await.map_err(broken_off)?;
        let status = response.status();
        let matching = response
            .headers()
            .get(MATCHING_HEADER)
            .and_then(|value| value.to_str().ok()?.parse().ok());
        let reply = Reply {
            socket: self.socket.clone(),
            body: response.into_body(),
            matching,
        };
        if status.is_success() {
            Ok(reply)
        } else {
            Err(reply.into_refusal(status).await)
        }
    }

    fn unreadable(
        &self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> ClientError {
        ClientError::Unreadable {
            socket: self.socket.clone(),
            source: source.into(),
        }
    }
}

impl Reply {
    /// The next piece of the body as it came; `None` after the last.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|source| ClientError::BrokenOff {
                socket: self.socket.clone(),
                source,
            })?;
            // Trailers are of no interest.
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    pub(super) async fn decode<T: DeserializeOwned>(mut self) -> Result<T, ClientError> {
        let bytes = self.bytes().await?;
        serde_json::from_slice(&bytes).map_err(|error| ClientError::Unreadable {
            socket: self.socket,
            source: error.into(),
        })
    }

    async fn bytes(&mut self) -> Result<Vec<u8>, ClientError> {
        let mut bytes = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    async fn into_refusal(mut self, status: StatusCode) -> ClientError {
        let bytes = match self.bytes().await {
            Ok(bytes) => bytes,
            Err(error) => return error,
        };
        ClientError::Refused(
            serde_json::from_slice(&bytes).unwrap_or_else(|_| ErrorInfo {
                error: format!("lbd answers {status}: {}", String::from_utf8_lossy(&bytes)),
                code: ErrorCode::Failed,
                hint: None,
            }),
        )
    }
}
