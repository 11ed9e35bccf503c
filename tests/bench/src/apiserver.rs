//! Requests per second of the API server while it holds many objects.
//!
//! The answers to lists are read but not parsed: what is measured is the server.

use std::time::{Duration, Instant};

use anyhow::Context;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::{Api, DeleteParams, GetParams, ListParams, Patch, PatchParams, PostParams};
use kube::api::{WatchEvent, WatchParams};
use kube::core::Request;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::Options;
use crate::load::{Load, Runs, client, drive, make_namespace, remove_namespace};
use crate::stats::Samples;
use crate::table::Report;

/// Payload of one object, bytes.
pub const OBJECT_BYTES: usize = 900;
/// Full lists, and lists of one page.
const LISTS: usize = 20;
const PAGES: usize = 200;
/// Objects of a page: what kubectl asks for.
const PAGE_OBJECTS: u32 = 500;
/// A multiplier that has no factor in common with any round number of objects, so that gets go
/// all over them.
const STRIDE: usize = 7919;
/// Key of the time of a change, in microseconds since the benchmark began.
const SENT: &str = "sent";

struct Bench<'a> {
    client: Client,
    options: &'a Options,
    path: String,
    objects: Api<ConfigMap>,
}

/// Measures the server of `KUBECONFIG`.
pub async fn measure(options: &Options) -> anyhow::Result<Report> {
    let runs = runs(&client().await?, options).await?;
    let mut report = Report::new(&heading(options));
    report.table(runs.table());
    report.remark(remark(options));
    Ok(report)
}

/// All requests, `options.runs` times, each time in a new namespace.
pub async fn runs(client: &Client, options: &Options) -> anyhow::Result<Runs> {
    let mut runs = Runs::default();
    for _ in 0..options.runs {
        let namespace = make_namespace(client, "api").await?;
        let bench = Bench {
            path: format!("/api/v1/namespaces/{namespace}/configmaps"),
            objects: Api::namespaced(client.clone(), &namespace),
            client: client.clone(),
            options,
        };
        let result = bench.run(&mut runs).await;
        // Asked for in one request: removing object by object takes as long as making them.
        let (all, none) = (ListParams::default(), DeleteParams::default());
        if let Err(error) = bench.objects.delete_collection(&none, &all).await {
            eprintln!("objects of {namespace} are left to its removal: {error}");
        }
        remove_namespace(client, &namespace).await;
        result?;
    }
    Ok(runs)
}

/// What was measured.
pub fn heading(options: &Options) -> String {
    let objects = options.objects;
    format!("API server at {objects} objects of {OBJECT_BYTES} bytes")
}

/// How it was measured, and the peer.
pub fn remark(options: &Options) -> String {
    let Options {
        concurrency, runs, ..
    } = options;
    format!(
        "{concurrency} requests at once over TLS from a client on the same machine (lists 4, \
         patches 1); medians of {runs} runs. {PEER}"
    )
}

/// Kubernetes' own server, measured once with this load; it does not run here.
const PEER: &str = "Peer, measured on such a machine on 2026-11-22 and not in this run: \
    kube-apiserver 1.36.2 with etcd 3.4.23, 64 connections, ConfigMaps of 900 bytes: 1109 creates \
    a second (p99 150 ms), 2362 gets (p99 73 ms), 64 lists of 500.";

impl Bench<'_> {
    async fn run(&self, runs: &mut Runs) -> anyhow::Result<()> {
        runs.add("create", self.create().await?);
        runs.add("get", self.get().await?);
        let all = ListParams::default();
        let full = self.list(LISTS, &all).await?;
        runs.add(&format!("list all {}", self.options.objects), full);
        let page = ListParams::default().limit(PAGE_OBJECTS);
        let pages = self.list(PAGES, &page).await?;
        runs.add(&format!("list a page of {PAGE_OBJECTS}"), pages);
        let (update, delivery) = self.watch().await?;
        let watches = self.options.watches;
        runs.add(&format!("patch, with {watches} watches open"), update);
        runs.add(
            "watch events: from sending the patch to its event",
            delivery,
        );
        Ok(())
    }

    async fn send(&self, request: http::Request<Vec<u8>>) -> anyhow::Result<()> {
        self.client.request_text(request).await?;
        Ok(())
    }

    async fn create(&self) -> anyhow::Result<Load> {
        let payload = "x".repeat(OBJECT_BYTES);
        let load = drive(self.options.objects, self.options.concurrency, |number| {
            let object = json!({
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": name(number), "labels": {"app": "bench"}},
                "data": {"payload": payload},
            });
            async move {
                let body = serde_json::to_vec(&object)?;
                let request = Request::new(&self.path).create(&PostParams::default(), body)?;
                self.send(request).await
            }
        });
        load.await.context("create")
    }

    async fn get(&self) -> anyhow::Result<Load> {
        let Options {
            objects,
            concurrency,
            ..
        } = *self.options;
        let load = drive(objects, concurrency, |number| async move {
            let name = name(number * STRIDE % objects);
            self.send(Request::new(&self.path).get(&name, &GetParams::default())?)
                .await
        });
        load.await.context("get")
    }

    async fn list(&self, count: usize, parameters: &ListParams) -> anyhow::Result<Load> {
        /// Full lists are large; more at once would measure the client's memory.
        const LISTS_AT_ONCE: usize = 4;
        let load = drive(count, LISTS_AT_ONCE, |_| async move {
            self.send(Request::new(&self.path).list(parameters)?).await
        });
        load.await.context("list")
    }

    /// Opens watches, changes objects one after the other, and times each event's way.
    async fn watch(&self) -> anyhow::Result<(Load, Load)> {
        let Options {
            watches,
            changes,
            objects,
            patience_seconds,
            ..
        } = *self.options;
        let page = self
            .objects
            .list(&ListParams::default().limit(1))
            .await
            .context("list")?;
        let version = page.metadata.resource_version.unwrap_or_default();
        let origin = Instant::now();
        let (sender, mut delivered) = mpsc::unbounded_channel();
        let mut opened = Vec::new();
        for _ in 0..watches {
            let stream = self.objects.watch(&WatchParams::default(), &version).await;
            let mut stream = stream.context("watch")?.boxed();
            let sender = sender.clone();
            opened.push(tokio::spawn(async move {
                while let Ok(Some(event)) = stream.try_next().await {
                    if let Some(sent) = sent_at(&event) {
                        let took = origin.elapsed().saturating_sub(sent);
                        if sender.send(took).is_err() {
                            return;
                        }
                    }
                }
            }));
        }
        drop(sender);
        let begun = Instant::now();
        let update = drive(changes, 1, |number| async move {
            let sent = origin.elapsed().as_micros().to_string();
            let patch = Patch::Merge(json!({"data": {SENT: sent}}));
            let name = name(number % objects);
            self.objects
                .patch(&name, &PatchParams::default(), &patch)
                .await?;
            Ok(())
        });
        let update = update.await.context("patch")?;
        let mut samples = Samples::default();
        let all = async {
            while samples.len() < changes * watches {
                match delivered.recv().await {
                    Some(took) => samples.push(took),
                    None => anyhow::bail!("the watches ended"),
                }
            }
            Ok(())
        };
        let patience = Duration::from_secs(patience_seconds);
        timeout(patience, all)
            .await
            .context("waiting for watch events")??;
        let delivery = Load {
            samples,
            elapsed: begun.elapsed(),
        };
        opened.iter().for_each(tokio::task::JoinHandle::abort);
        Ok((update, delivery))
    }
}

fn name(number: usize) -> String {
    format!("object-{number:06}")
}

/// When the change that an event tells of was sent, since the benchmark began.
fn sent_at(event: &WatchEvent<ConfigMap>) -> Option<Duration> {
    let WatchEvent::Modified(object) = event else {
        return None;
    };
    let microseconds = object.data.as_ref()?.get(SENT)?.parse().ok()?;
    Some(Duration::from_micros(microseconds))
}
