use std::{io, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{
        Path, Query, State,
        rejection::{JsonRejection, PathRejection, QueryRejection},
    },
    http::{Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::{get, patch, post},
};
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, task::spawn_blocking, time::sleep};

use super::{
    AddBackend, ApiError, BackendInfo, Changed, ConntrackStats, Context, Detached, DropInfo,
    EditBackend, FileRequest, Reloaded, Saved, ServiceDetail, ServiceInfo, Socket, StatsInfo,
    StatusInfo,
    conntrack::{self, ConntrackQuery},
    drops, views,
};
use crate::{
    engine::Change,
    model::{Admin, Backend, Name, Weight},
};

/// How long requests under way may take once the server is to end.
const GRACE: Duration = Duration::from_secs(2);

/// Why [`serve`] has returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Its `shutdown` was ready.
    Shutdown,
    /// The data plane was taken down by `POST /detach`, and the client has been told.
    Detached,
}

/// Answers requests until `shutdown` is ready or the data plane is detached.
///
/// # Errors
/// When the socket fails; a failing connection only ends that connection.
pub async fn serve(
    socket: Socket,
    context: Arc<Context>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<Ended> {
    let Socket { file, listener } = socket;
    let router = router(context.clone());
    let (announce, ended) = watch::channel(None);
    let end = async move {
        let why = tokio::select! {
            () = shutdown => Ended::Shutdown,
            () = context.detached.notified() => Ended::Detached,
        };
        drop(file);
        announce.send_replace(Some(why));
    };
    let mut end_of_grace = ended.clone();
    let server = axum::serve(listener, router).with_graceful_shutdown(end);
    tokio::select! {
        result = server => result?,
        () = async {
            // An error means that the server has gone: the other branch is ready.
            let _ = end_of_grace.wait_for(Option::is_some).await;
            sleep(GRACE).await;
        } => {}
    }
    Ok(ended.borrow().unwrap_or(Ended::Shutdown))
}

fn router(context: Arc<Context>) -> Router {
    Router::new()
        .route("/status", get(status))
        .route("/services", get(services))
        .route("/services/{service}", get(service))
        .route("/services/{service}/backends", post(add_backend))
        .route(
            "/services/{service}/backends/{backend}",
            patch(edit_backend).delete(remove_backend),
        )
        .route("/backends", get(backends))
        .route("/conntrack", get(connections))
        .route("/conntrack/stats", get(conntrack_stats))
        .route("/stats", get(stats))
        .route("/stats/drops", get(stats_drops))
        .route("/reload", post(reload))
        .route("/save", post(save))
        .route("/detach", post(detach))
        .fallback(unknown)
        .method_not_allowed_fallback(unknown)
        .with_state(context)
}

/// A JSON document for people too: indented, with a newline at its end.
pub(super) struct Pretty<T>(pub(super) T);

impl<T: Serialize> IntoResponse for Pretty<T> {
    fn into_response(self) -> Response {
        match serde_json::to_string_pretty(&self.0) {
            Ok(mut text) => {
                text.push('\n');
                ([(header::CONTENT_TYPE, "application/json")], text).into_response()
            }
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        }
    }
}

type Answer<T> = Result<Pretty<T>, ApiError>;
type Shared = State<Arc<Context>>;

/// Runs what makes system calls off the threads that serve connections.
async fn blocking<T: Send + 'static>(
    context: Arc<Context>,
    work: impl FnOnce(&Context) -> Result<T, ApiError> + Send + 'static,
) -> Answer<T> {
    spawn_blocking(move || work(&context))
        .await
        .map_err(|_| ApiError::Panicked)?
        .map(Pretty)
}

async fn status(State(context): Shared) -> Answer<StatusInfo> {
    blocking(context, views::status).await
}

async fn services(State(context): Shared) -> Answer<Vec<ServiceInfo>> {
    blocking(context, views::services).await
}

async fn service(
    State(context): Shared,
    path: Result<Path<String>, PathRejection>,
) -> Answer<ServiceDetail> {
    let Path(name) = path?;
    blocking(context, move |context| {
        views::service_detail(context, &name)
    })
    .await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BackendsQuery {
    service: Option<String>,
}

async fn backends(
    State(context): Shared,
    query: Result<Query<BackendsQuery>, QueryRejection>,
) -> Answer<Vec<BackendInfo>> {
    let Query(query) = query?;
    blocking(context, move |context| {
        views::backends(context, query.service.as_deref())
    })
    .await
}

async fn connections(
    State(context): Shared,
    query: Result<Query<ConntrackQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(query) = query?;
    conntrack::list(context, query).await
}

async fn conntrack_stats(State(context): Shared) -> Answer<ConntrackStats> {
    blocking(context, views::conntrack_stats).await
}

async fn stats(State(context): Shared) -> Answer<StatsInfo> {
    blocking(context, views::stats).await
}

async fn stats_drops(State(context): Shared) -> Answer<Vec<DropInfo>> {
    blocking(context, drops::drops).await
}

async fn add_backend(
    State(context): Shared,
    path: Result<Path<Name>, PathRejection>,
    body: Result<Json<AddBackend>, JsonRejection>,
) -> Answer<Changed> {
    let (Path(service), Json(request)) = (path?, body?);
    let backend = Backend {
        name: match request.name {
            Some(name) => name,
            None => Name::from(request.address),
        },
        address: request.address,
        weight: request.weight.unwrap_or(Weight::DEFAULT),
        admin: Admin::Enabled,
    };
    change(&context, Change::AddBackend { service, backend }).await
}

async fn edit_backend(
    State(context): Shared,
    path: Result<Path<(Name, Name)>, PathRejection>,
    body: Result<Json<EditBackend>, JsonRejection>,
) -> Answer<Changed> {
    let (Path((service, backend)), Json(edit)) = (path?, body?);
    let wanted = match edit {
        EditBackend::Weight(weight) => Change::SetWeight {
            service,
            backend,
            weight,
        },
        EditBackend::Admin(admin) => Change::SetAdmin {
            service,
            backend,
            admin,
        },
    };
    change(&context, wanted).await
}

async fn remove_backend(
    State(context): Shared,
    path: Result<Path<(Name, Name)>, PathRejection>,
) -> Answer<Changed> {
    let Path((service, backend)) = path?;
    change(&context, Change::RemoveBackend { service, backend }).await
}

async fn change(context: &Context, change: Change) -> Answer<Changed> {
    let changes = context.control.change(change).await?;
    Ok(Pretty(Changed { changes }))
}

async fn reload(
    State(context): Shared,
    body: Result<Json<FileRequest>, JsonRejection>,
) -> Answer<Reloaded> {
    let file = absolute(body?)?;
    Ok(Pretty(context.reload(file.as_deref()).await?))
}

async fn save(
    State(context): Shared,
    body: Result<Json<FileRequest>, JsonRejection>,
) -> Answer<Saved> {
    let file = absolute(body?)?;
    blocking(context, move |context| Ok(context.save(file.as_deref())?)).await
}

/// The file of a request; the daemon's working directory is not the client's.
fn absolute(Json(request): Json<FileRequest>) -> Result<Option<std::path::PathBuf>, ApiError> {
    match request.file {
        Some(file) if !file.is_absolute() => Err(ApiError::RelativePath(file)),
        file => Ok(file),
    }
}

async fn detach(State(context): Shared) -> Answer<Detached> {
    let worker = context.clone();
    let answer = blocking(worker, |context| Ok((context.detach)()?)).await?;
    context.detached.notify_one();
    Ok(answer)
}

async fn unknown(method: Method, uri: Uri) -> ApiError {
    ApiError::NoRoute(format!("{method} {}", uri.path()))
}
