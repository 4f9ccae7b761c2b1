//! The list of connections: swept out of the data plane and sent row by row, so that a million of
//! them takes no memory to speak of on either side.

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    net::SocketAddr,
    sync::Arc,
};

use axum::{
    body::{Body, Bytes},
    http::header,
    response::{IntoResponse, Response},
};
use futures_util::stream;
use serde::Deserialize;
use tokio::{sync::mpsc, task::spawn_blocking};

use super::{
    ApiError, ConnectionInfo, Context, MATCHING_HEADER,
    lookup::{backend_names, closest, find_service},
};
use crate::{
    dataplane::Connection,
    engine::Snapshot,
    model::{BackendIndex, Name, ServiceId},
};

/// Bytes that are collected before they are sent.
const CHUNK: usize = 32 * 1024;
/// Chunks that may wait for a slow reader before the sweep pauses.
const CHUNKS_IN_FLIGHT: usize = 4;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConntrackQuery {
    service: Option<String>,
    backend: Option<String>,
    /// All of them where it is missing.
    limit: Option<u64>,
}

/// An array of [`ConnectionInfo`], one per line. Connections of services that are no more are left
/// out: nothing forwards them.
pub(super) async fn list(
    context: Arc<Context>,
    query: ConntrackQuery,
) -> Result<Response, ApiError> {
    let selection = Selection::new(&context.control.snapshot(), &query)?;
    let (send, receive) = mpsc::channel(CHUNKS_IN_FLIGHT);
    let (matching, selection) = {
        let context = context.clone();
        spawn_blocking(move || (count(&context, &selection), selection))
            .await
            .map_err(|_| ApiError::Panicked)?
    };
    spawn_blocking(move || sweep(&context, &selection, query.limit, &send));
    let body = Body::from_stream(stream::unfold(receive, |mut receive| async {
        let chunk = receive.recv().await?;
        Some((Ok::<_, Infallible>(chunk), receive))
    }));
    let headers = [
        (header::CONTENT_TYPE.as_str(), "application/json".to_owned()),
        (MATCHING_HEADER, matching.to_string()),
    ];
    Ok((headers, body).into_response())
}

/// Which connections are wanted, and how they are called.
struct Selection {
    services: HashMap<ServiceId, (Name, SocketAddr)>,
    names: HashMap<BackendIndex, Name>,
    /// All of them where it is `None`.
    backends: Option<HashSet<BackendIndex>>,
}

impl Selection {
    fn new(snapshot: &Snapshot, query: &ConntrackQuery) -> Result<Self, ApiError> {
        let views = match &query.service {
            Some(name) => std::slice::from_ref(find_service(snapshot, name)?),
            None => &snapshot.services,
        };
        let backends = || views.iter().flat_map(|s| &s.backends);
        let wanted = match &query.backend {
            None => None,
            Some(name) => {
                let found: HashSet<_> = backends()
                    .filter(|b| b.backend.name.as_str() == name)
                    .map(|b| b.index)
                    .collect();
                if found.is_empty() {
                    return Err(ApiError::NoBackend {
                        name: name.clone(),
                        service: query.service.clone(),
                        hint: closest(name, backends().map(|b| b.backend.name.as_str()))
                            .unwrap_or_else(|| "`lbctl backend list` lists them".to_owned()),
                    });
                }
                Some(found)
            }
        };
        Ok(Self {
            services: views
                .iter()
                .map(|s| (s.id, (s.service.name.clone(), s.service.listen)))
                .collect(),
            names: backend_names(snapshot),
            backends: wanted,
        })
    }

    fn matches(&self, connection: &Connection) -> bool {
        self.services.contains_key(&connection.service)
            && self
                .backends
                .as_ref()
                .is_none_or(|wanted| wanted.contains(&connection.backend))
    }

    fn describe(&self, connection: Connection) -> Option<ConnectionInfo> {
        let (service, vip) = self.services.get(&connection.service)?;
        Some(ConnectionInfo {
            service: service.clone(),
            backend: self.names.get(&connection.backend).cloned(),
            client: connection.client,
            vip: *vip,
            state: connection.state.to_owned(),
            age_s: connection.age.as_secs(),
            idle_s: connection.idle.as_secs(),
        })
    }
}

fn count(context: &Context, selection: &Selection) -> u64 {
    let mut matching = 0;
    context.reader.connections(&mut |connection| {
        matching += u64::from(selection.matches(&connection));
        true
    });
    matching
}

/// Writes the array; ends early when nobody reads it any more.
fn sweep(context: &Context, selection: &Selection, limit: Option<u64>, send: &mpsc::Sender<Bytes>) {
    let mut left = limit.unwrap_or(u64::MAX);
    let mut chunk = b"[".to_vec();
    let mut separator = "\n";
    context.reader.connections(&mut |connection| {
        if left == 0 {
            return false;
        }
        if !selection.matches(&connection) {
            return true;
        }
        let Some(row) = selection.describe(connection) else {
            return true;
        };
        chunk.extend_from_slice(separator.as_bytes());
        if serde_json::to_writer(&mut chunk, &row).is_err() {
            return false;
        }
        separator = ",\n";
        left -= 1;
        chunk.len() < CHUNK || {
            let full = std::mem::replace(&mut chunk, Vec::with_capacity(CHUNK + CHUNK / 8));
            send.blocking_send(full.into()).is_ok()
        }
    });
    chunk.extend_from_slice(b"\n]\n");
    // Fails only when nobody reads it any more.
    let _ = send.blocking_send(chunk.into());
}
