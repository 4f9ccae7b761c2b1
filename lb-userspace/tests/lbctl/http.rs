//! The HTTP side of the API: statuses and error documents that `lbctl` never provokes.

use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, StatusCode, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use lb_userspace::api::Ended;
use serde_json::Value;
use tokio::{net::UnixStream, time::timeout};

use crate::fake::{DEADLINE, Daemon};

async fn request(daemon: &Daemon, method: Method, path: &str, body: &str) -> (StatusCode, Value) {
    let exchange = async {
        let stream = UnixStream::connect(daemon.path("lbd.sock")).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "lbd")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        let status = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap())
    };
    timeout(DEADLINE, exchange).await.unwrap()
}

#[tokio::test]
async fn refusals_are_documents_with_a_fitting_status() {
    let daemon = Daemon::start().await;
    let backend = "/services/web/backends/web-1";
    let add = "/services/web/backends";
    for (method, path, body, status, code) in [
        (Method::GET, "/nowhere", "", 404, "not_found"),
        (Method::PUT, "/status", "", 404, "not_found"),
        (Method::GET, "/services/nobody", "", 404, "not_found"),
        (
            Method::GET,
            "/backends?service=nobody",
            "",
            404,
            "not_found",
        ),
        (
            Method::GET,
            "/backends?sevice=web",
            "",
            400,
            "invalid_request",
        ),
        (
            Method::GET,
            "/conntrack?limit=-1",
            "",
            400,
            "invalid_request",
        ),
        (Method::POST, add, "{", 400, "invalid_request"),
        (
            Method::POST,
            add,
            r#"{"address": "10.0.0.1"}"#,
            400,
            "invalid_request",
        ),
        (
            Method::POST,
            add,
            r#"{"address": "10.0.0.1:80", "wieght": 1}"#,
            400,
            "invalid_request",
        ),
        (
            Method::PATCH,
            backend,
            r#"{"weight": 65536}"#,
            400,
            "invalid_request",
        ),
        (
            Method::PATCH,
            backend,
            r#"{"admin": "off"}"#,
            400,
            "invalid_request",
        ),
        (Method::PATCH, backend, "{}", 400, "invalid_request"),
        (
            Method::PATCH,
            "/services/web/backends/a%20b",
            r#"{"weight": 1}"#,
            400,
            "invalid_request",
        ),
        (
            Method::POST,
            "/reload",
            r#"{"file": "lb.toml"}"#,
            400,
            "invalid_request",
        ),
        (
            Method::POST,
            "/save",
            r#"{"file": "lb.toml"}"#,
            400,
            "invalid_request",
        ),
        (
            Method::POST,
            "/reload",
            r#"{"file": "/none"}"#,
            422,
            "invalid_config",
        ),
        (Method::POST, "/save", r#"{"file": "/"}"#, 500, "failed"),
        (Method::DELETE, backend, "", 503, "stopping"),
    ] {
        let (got, document) = request(&daemon, method.clone(), path, body).await;
        assert_eq!(
            (got.as_u16(), &document["code"]),
            (status, &Value::from(code)),
            "{method} {path} {body}: {document}"
        );
        let error = document["error"].as_str().unwrap();
        assert!(!error.is_empty(), "{method} {path} {body}");
    }
}

#[tokio::test]
async fn a_client_that_says_nothing_does_not_hold_the_server_up() {
    let daemon = Daemon::start().await;
    let idle = UnixStream::connect(daemon.path("lbd.sock")).await.unwrap();
    // An answer to a later client shows that the idle one has been accepted.
    request(&daemon, Method::GET, "/status", "").await;
    assert_eq!(daemon.ended(true).await, Ended::Shutdown);
    drop(idle);
}
