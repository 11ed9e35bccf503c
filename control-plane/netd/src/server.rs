//! `/metrics`, `/healthz` and `/readyz`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// The OpenMetrics media type.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whether every table is in force.
pub type Ready = Arc<AtomicBool>;

#[derive(Clone)]
struct Shared {
    metrics: Metrics,
    ready: Ready,
}

/// Serves until `shutdown`.
///
/// # Errors
/// The address cannot be listened on, or the listener breaks.
pub async fn run(
    listen: SocketAddr,
    metrics: Metrics,
    ready: Ready,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    let router = Router::new()
        .route("/metrics", get(metrics_text))
        .route("/healthz", get(async || "ok"))
        .route("/readyz", get(readyz))
        .with_state(Shared { metrics, ready });
    axum::serve(listener, router)
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await
}

async fn metrics_text(State(shared): State<Shared>) -> Response {
    ([(CONTENT_TYPE, METRICS_TYPE)], shared.metrics.text()).into_response()
}

async fn readyz(State(shared): State<Shared>) -> Response {
    if shared.ready.load(Ordering::Acquire) {
        "ok".into_response()
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "tables are not in force yet",
        )
            .into_response()
    }
}
