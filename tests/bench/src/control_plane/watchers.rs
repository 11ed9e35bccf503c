//! One change and its way to many watches.
//!
//! The watches share connections as those of a client library do: HTTP/2, as many streams on each
//! as the server allows.

use std::time::{Duration, Instant};

use anyhow::Context;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::client::ConfigExt;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::process::Server;
use crate::Options;
use crate::load::{make_namespace, remove_namespace};
use crate::stats::Samples;

/// Watches on one connection: what the server allows (SETTINGS_MAX_CONCURRENT_STREAMS).
const WATCHES_PER_CONNECTION: usize = 200;
/// Changes, one after the other, each awaited at every watch.
const CHANGES: usize = 20;
/// Name of the object and key of the change's number.
const OBJECT: &str = "watched";
const NUMBER: &str = "change-";

type Http = HttpClient<HttpsConnector<HttpConnector>, Empty<bytes::Bytes>>;

/// From sending each change to each watch's having its event.
pub async fn measure(server: &Server, options: &Options) -> anyhow::Result<Samples> {
    let namespace = make_namespace(&server.client, "watch").await?;
    let samples = run(server, options, &namespace).await;
    remove_namespace(&server.client, &namespace).await;
    samples
}

async fn run(server: &Server, options: &Options, namespace: &str) -> anyhow::Result<Samples> {
    let api: Api<ConfigMap> = Api::namespaced(server.client.clone(), namespace);
    let object: ConfigMap = serde_json::from_value(json!({"metadata": {"name": OBJECT}}))?;
    api.create(&PostParams::default(), &object).await?;
    let list = api.list(&ListParams::default()).await?;
    let version = list.metadata.resource_version.unwrap_or_default();
    let uri = format!(
        "{}api/v1/namespaces/{namespace}/configmaps?watch=true&resourceVersion={version}",
        server.config.cluster_url
    );
    let (sender, mut seen) = mpsc::unbounded_channel();
    let mut watches = JoinSet::new();
    let patience = Duration::from_secs(options.patience_seconds);
    for first in (0..options.watchers).step_by(WATCHES_PER_CONNECTION) {
        let http = connection(&server.config)?;
        for _ in first..options.watchers.min(first + WATCHES_PER_CONNECTION) {
            // The answer's head comes when the watch is registered.
            let answer = timeout(
                patience,
                http.request(Request::get(&uri).body(Empty::new())?),
            );
            let answer = answer.await.context("a watch does not begin")??;
            anyhow::ensure!(answer.status().is_success(), "watch: {}", answer.status());
            watches.spawn(follow(answer.into_body(), sender.clone()));
        }
    }
    drop(sender);
    let mut samples = Samples::default();
    for change in 0..CHANGES {
        let sent = Instant::now();
        let patch = Patch::Merge(json!({"data": {"sent": format!("{NUMBER}{change}.")}}));
        api.patch(OBJECT, &PatchParams::default(), &patch).await?;
        for _ in 0..options.watchers {
            let at = timeout(patience, seen.recv()).await;
            let at: Instant = at
                .context("an event is missing")?
                .context("watches ended")?;
            samples.push(at.saturating_duration_since(sent));
        }
    }
    Ok(samples)
}

/// A client of one connection.
fn connection(config: &kube::Config) -> anyhow::Result<Http> {
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(config.rustls_client_config()?)
        .https_only()
        .enable_http2()
        .build();
    Ok(HttpClient::builder(TokioExecutor::new())
        .http2_only(true)
        .build(connector))
}

/// Says when each change came. An event may come in pieces; its mark is looked for across them.
async fn follow(mut body: hyper::body::Incoming, seen: mpsc::UnboundedSender<Instant>) {
    let mut line = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        let Some(data) = frame.data_ref() else {
            continue;
        };
        line.extend_from_slice(data);
        while let Some(end) = line.iter().position(|byte| *byte == b'\n') {
            let event: Vec<u8> = line.drain(..=end).collect();
            let is_change = event
                .windows(NUMBER.len())
                .any(|part| part == NUMBER.as_bytes());
            if is_change && seen.send(Instant::now()).is_err() {
                return;
            }
        }
    }
}
