//! Many pods that no scheduler looks at, and the list of them all.

use std::time::{Duration, Instant};

use anyhow::Context;
use http::Request;
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, PostParams};
use kube::client::Body;
use serde_json::json;

use super::process::Server;
use crate::Options;
use crate::load::drive;

/// What one list of everything took.
pub struct FullList {
    pub bytes: usize,
    pub first_byte: Duration,
    pub whole: Duration,
    /// What the server had in memory at most, beyond what it had before, KiB.
    pub extra_kib: u64,
}

/// Creates the pods `from` to `to` in a namespace.
pub async fn make_pods(
    client: &Client,
    namespace: &str,
    (from, to): (usize, usize),
    options: &Options,
) -> anyhow::Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let made = drive(to - from, options.concurrency, |number| {
        let pods = &pods;
        async move {
            let pod: Pod = serde_json::from_value(pod(from + number))?;
            pods.create(&PostParams::default(), &pod).await?;
            Ok(())
        }
    });
    made.await.context("creating pods")?;
    Ok(())
}

/// About what a Deployment's pod looks like before it is bound.
fn pod(number: usize) -> serde_json::Value {
    json!({
        "metadata": {
            "name": format!("web-7d4b9c6f5d-{number:06}"),
            "labels": {"app": "web", "pod-template-hash": "7d4b9c6f5d"},
        },
        "spec": {
            "schedulerName": "hull-bench-none",
            "containers": [{
                "name": "web",
                "image": "registry.example.com/team/web:v1.2.3",
                "env": [{"name": "LOG_LEVEL", "value": "info"}],
                "ports": [{"name": "http", "containerPort": 8080}],
                "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
                "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}},
            }],
        },
    })
}

/// Lists all pods in one request, reading the answer as it comes and keeping nothing of it.
pub async fn list_all(server: &Server) -> anyhow::Result<FullList> {
    let before = server.resident_kib()?;
    server.forget_peak()?;
    let begun = Instant::now();
    let request = Request::get("/api/v1/pods").body(Body::empty())?;
    let answer = server.client.send(request).await.context("list")?;
    anyhow::ensure!(answer.status().is_success(), "list: {}", answer.status());
    let mut body = answer.into_body();
    let (mut bytes, mut first_byte) = (0, None);
    while let Some(frame) = body.frame().await {
        let frame = frame.context("reading the list")?;
        first_byte.get_or_insert_with(|| begun.elapsed());
        bytes += frame.data_ref().map_or(0, bytes::Bytes::len);
    }
    Ok(FullList {
        bytes,
        first_byte: first_byte.unwrap_or_default(),
        whole: begun.elapsed(),
        extra_kib: server.peak_kib()?.saturating_sub(before),
    })
}
