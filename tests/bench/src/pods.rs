//! Create-to-running of a pod, as a watch sees it.

use std::time::{Duration, Instant};

use anyhow::Context;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, DeleteParams, ListParams, PostParams, WatchEvent, WatchParams};
use serde_json::json;
use tokio::time::timeout;

use crate::Options;
use crate::load::{client, make_namespace, remove_namespace};
use crate::stats::Samples;
use crate::table::{Report, Table, milliseconds};

/// When a pod came to each point, since its creation was sent.
struct Times {
    bound: Duration,
    running: Duration,
    gone: Duration,
}

pub async fn measure(options: &Options) -> anyhow::Result<Report> {
    let client = client().await?;
    let namespace = make_namespace(&client, "pods").await?;
    let report = run(&client, &namespace, options).await;
    remove_namespace(&client, &namespace).await;
    report
}

async fn run(client: &Client, namespace: &str, options: &Options) -> anyhow::Result<Report> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    // The first may have to pull the image, which is a figure of its own.
    let first = one(&pods, "first", options).await?;
    let (mut bound, mut start) = (Samples::default(), Samples::default());
    let (mut running, mut gone) = (Samples::default(), Samples::default());
    for number in 0..options.pods {
        let times = one(&pods, &format!("pod-{number}"), options).await?;
        bound.push(times.bound);
        start.push(times.running.saturating_sub(times.bound));
        running.push(times.running);
        gone.push(times.gone);
    }
    let mut report = Report::new(&format!("Create to running, image {}", options.image));
    let mut table = Table::new(&["step (ms)", "min", "median", "max", "first"]);
    let mut add = |name: &str, samples: &Samples, first: Duration| {
        let cells = [samples.min(), samples.median(), samples.max(), first].map(milliseconds);
        table.row([name.to_owned()].into_iter().chain(cells));
    };
    add("create to bound", &bound, first.bound);
    add(
        "bound to running",
        &start,
        first.running.saturating_sub(first.bound),
    );
    add("**create to running**", &running, first.running);
    add("delete (1 s grace) to gone", &gone, first.gone);
    report.table(table);
    report.remark(format!("{} pods, one after the other.", options.pods));
    Ok(report)
}

async fn one(pods: &Api<Pod>, name: &str, options: &Options) -> anyhow::Result<Times> {
    within(pods, name, options, async {
        let mut started = start(pods, &busybox(name, options)?).await?;
        let gone = started.end(pods).await?;
        Ok(Times {
            bound: started.bound,
            running: started.running,
            gone,
        })
    })
    .await
}

/// A pod of the image with one container that sleeps.
pub fn busybox(name: &str, options: &Options) -> anyhow::Result<Pod> {
    Ok(serde_json::from_value(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never",
            "containers": [{
                "name": "main",
                "image": options.image,
                "imagePullPolicy": "IfNotPresent",
                "command": ["sleep", "3600"],
            }],
        },
    }))?)
}

/// What is done with the pod, within the options' patience; after a failure it is deleted.
pub async fn within<T>(
    pods: &Api<Pod>,
    name: &str,
    options: &Options,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let patience = Duration::from_secs(options.patience_seconds);
    let done = timeout(patience, work).await;
    if !matches!(done, Ok(Ok(_))) {
        // Not left running after a failure.
        let _ = pods
            .delete(name, &DeleteParams::default().grace_period(0))
            .await;
    }
    done.with_context(|| format!("pod {name} did not get there within {patience:?}"))?
}

/// A pod that runs, and the watch that saw it.
pub struct Started {
    name: String,
    bound: Duration,
    running: Duration,
    events: BoxStream<'static, kube::Result<WatchEvent<Pod>>>,
}

/// Creates the pod and waits until it runs.
pub async fn start(pods: &Api<Pod>, pod: &Pod) -> anyhow::Result<Started> {
    let name = pod.metadata.name.clone().unwrap_or_default();
    let list = pods
        .list(&ListParams::default().limit(1))
        .await
        .context("listing pods")?;
    let version = list.metadata.resource_version.unwrap_or_default();
    let watch = WatchParams::default().fields(&format!("metadata.name={name}"));
    let mut events = pods
        .watch(&watch, &version)
        .await
        .context("watching pods")?
        .boxed();
    let begun = Instant::now();
    pods.create(&PostParams::default(), pod)
        .await
        .context("creating the pod")?;
    let mut bound = None;
    let running = loop {
        let event = events.try_next().await?.context("the watch ended")?;
        let (WatchEvent::Added(pod) | WatchEvent::Modified(pod)) = event else {
            continue;
        };
        if bound.is_none() && pod.spec.is_some_and(|spec| spec.node_name.is_some()) {
            bound = Some(begun.elapsed());
        }
        let phase = pod
            .status
            .and_then(|status| status.phase)
            .unwrap_or_default();
        match phase.as_str() {
            "Running" => break begun.elapsed(),
            "Failed" | "Succeeded" => anyhow::bail!("the pod's phase became {phase}"),
            _ => {}
        }
    };
    Ok(Started {
        name,
        bound: bound.unwrap_or(running),
        running,
        events,
    })
}

impl Started {
    /// Deletes it, with a second of grace, and waits until it is gone.
    pub async fn end(&mut self, pods: &Api<Pod>) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        let now = DeleteParams::default().grace_period(1);
        pods.delete(&self.name, &now)
            .await
            .context("deleting the pod")?;
        loop {
            let event = self.events.try_next().await?.context("the watch ended")?;
            if matches!(event, WatchEvent::Deleted(_)) {
                return Ok(begun.elapsed());
            }
        }
    }
}
