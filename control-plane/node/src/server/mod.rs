//! The node's HTTPS server on port 10250: logs, exec, attach, port-forward, pods, metrics and
//! health. Only clients with a certificate of the cluster's CA are answered, `/healthz` included.
//!
//! ```text
//!  API server ──TLS, client certificate──► axum router
//!      /containerLogs/NS/POD/CONTAINER   logs.rs       reads the CRI log file
//!      /exec, /attach, /portForward      streaming.rs  asks CRI for a URL, splices the upgrade
//!      /stats, /metrics/...              stats.rs      what the node and its pods use
//!      /pods /metrics /healthz           here
//! ```

mod logs;
mod stats;
mod streaming;
mod tls;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::Pod;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::context::NodeContext;
use crate::error::NodeError;
use crate::manager::PodIndex;
use hull_client::timeouts::scaled;

/// How long a client may take for the TLS handshake, before scaling.
const HANDSHAKE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// What handlers share.
#[derive(Clone)]
pub(crate) struct Shared {
    node: Arc<NodeContext>,
    index: PodIndex,
    shutdown: CancellationToken,
}

/// A request that cannot be answered; the message is the body.
pub(crate) struct Refusal(StatusCode, String);

impl Refusal {
    fn new(code: StatusCode, message: impl Into<String>) -> Self {
        Refusal(code, message.into())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, self.1).into_response()
    }
}

impl From<crate::cri::CriError> for Refusal {
    fn from(error: crate::cri::CriError) -> Self {
        let code = if error.is_not_found() {
            StatusCode::NOT_FOUND
        } else if error.is_unimplemented() {
            StatusCode::NOT_IMPLEMENTED
        } else {
            StatusCode::INTERNAL_SERVER_ERROR
        };
        Refusal(code, error.to_string())
    }
}

impl Shared {
    /// A pod of this node by name.
    fn pod(&self, namespace: &str, name: &str) -> Result<Arc<Pod>, Refusal> {
        let matches = |pod: &&Arc<Pod>| {
            pod.metadata.namespace.as_deref() == Some(namespace)
                && pod.metadata.name.as_deref() == Some(name)
        };
        self.index
            .read()
            .values()
            .find(matches)
            .cloned()
            .ok_or_else(|| {
                Refusal::new(
                    StatusCode::NOT_FOUND,
                    format!(
                        "pod \"{name}\" does not exist in namespace \"{namespace}\" on this node"
                    ),
                )
            })
    }
}

/// Listens and serves until `shutdown`; `None` without TLS material.
pub(crate) async fn start(
    node: Arc<NodeContext>,
    index: PodIndex,
    shutdown: CancellationToken,
) -> Result<Option<JoinHandle<()>>, NodeError> {
    let Some(tls) = &node.config.server_tls else {
        tracing::warn!("no serving certificate: logs and exec are not served");
        return Ok(None);
    };
    let acceptor = tls::acceptor(tls)?;
    let address = node.config.listen;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| NodeError::Listen { address, source })?;
    let shared = Shared {
        node,
        index,
        shutdown: shutdown.clone(),
    };
    let router = Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/metrics", get(metrics))
        .route("/stats/summary", get(stats::serve_summary))
        .route("/metrics/resource", get(stats::serve_resource))
        .route("/metrics/cadvisor", get(stats::serve_cadvisor))
        .route("/pods", get(pods))
        .route(
            "/containerLogs/{namespace}/{pod}/{container}",
            get(logs::serve),
        )
        .route("/exec/{namespace}/{pod}/{container}", any(streaming::exec))
        .route(
            "/attach/{namespace}/{pod}/{container}",
            any(streaming::attach),
        )
        .route(
            "/portForward/{namespace}/{pod}",
            any(streaming::port_forward),
        )
        .with_state(shared);
    tracing::info!(%address, "node server listens");
    Ok(Some(tokio::spawn(accept(
        listener, acceptor, router, shutdown,
    ))))
}

async fn accept(
    listener: TcpListener,
    acceptor: tokio_rustls::TlsAcceptor,
    router: Router,
    shutdown: CancellationToken,
) {
    loop {
        let (stream, peer) = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let acceptor = acceptor.clone();
        let service = hyper_util::service::TowerToHyperService::new(router.clone());
        let stop = shutdown.clone();
        tokio::spawn(async move {
            let handshake =
                tokio::time::timeout(scaled(HANDSHAKE_TIMEOUT), acceptor.accept(stream));
            let stream = match handshake.await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => {
                    tracing::debug!(%peer, %error, "TLS handshake refused");
                    return;
                }
                Err(_) => return,
            };
            let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
            tokio::select! {
                result = connection => {
                    if let Err(error) = result {
                        tracing::debug!(%peer, %error, "connection ended");
                    }
                }
                () = stop.cancelled() => {}
            }
        });
    }
}

async fn metrics(State(shared): State<Shared>) -> Response {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    (
        [("content-type", content_type)],
        shared.node.metrics.render(),
    )
        .into_response()
}

async fn pods(State(shared): State<Shared>) -> Response {
    let items: Vec<Pod> = shared
        .index
        .read()
        .values()
        .map(|pod| Pod::clone(pod))
        .collect();
    axum::Json(
        serde_json::json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}),
    )
    .into_response()
}
