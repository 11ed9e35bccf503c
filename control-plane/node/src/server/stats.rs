//! `/stats/summary`, `/metrics/resource`, `/metrics/cadvisor`.

use std::path::Path;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;

use super::{Refusal, Shared};
use crate::stats::node_usage::{Filesystem, Memory};
use crate::stats::{cadvisor, number, resource, summary};

/// The Prometheus text format.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) async fn serve_summary(State(shared): State<Shared>) -> Result<Response, Refusal> {
    let node = &shared.node;
    let pods = node.cri.list_pod_stats().await?;
    let image = node.cri.image_filesystem().await.ok().flatten();
    let mountpoint = image
        .as_ref()
        .and_then(|usage| usage.fs_id.as_ref())
        .map(|id| id.mountpoint.clone());
    let found = summary::summary(&summary::Sources {
        node_name: &node.config.node_name,
        cpu: node.cpu_meter.read(),
        memory: Memory::read(),
        node_fs: Filesystem::of(&node.config.root_dir),
        image_fs: mountpoint.and_then(|path| Filesystem::of(Path::new(&path))),
        image_bytes: image.and_then(|usage| number(usage.used_bytes.as_ref())),
        pods: &pods,
        now: Timestamp::now(),
    });
    Ok(axum::Json(found).into_response())
}

pub(super) async fn serve_resource(State(shared): State<Shared>) -> Response {
    let node = &shared.node;
    let pods = node.cri.list_pod_stats().await;
    if let Err(error) = &pods {
        tracing::warn!(%error, "pods not measured");
    }
    let complete = pods.is_ok();
    let pods = pods.unwrap_or_default();
    let text = resource::metrics(node.cpu_meter.read(), Memory::read(), &pods, complete);
    ([("content-type", TEXT)], text).into_response()
}

pub(super) async fn serve_cadvisor(State(shared): State<Shared>) -> Result<Response, Refusal> {
    let cri = &shared.node.cri;
    let descriptors = cri.metric_descriptors().await?;
    let text = cadvisor::metrics(&descriptors, &cri.pod_metrics().await?);
    Ok(([("content-type", TEXT)], text).into_response())
}
