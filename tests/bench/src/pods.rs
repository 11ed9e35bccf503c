//! Create-to-running of a pod, as a watch sees it.

use std::time::{Duration, Instant};

use anyhow::Context;
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
    let patience = Duration::from_secs(options.patience_seconds);
    let pod: Pod = serde_json::from_value(json!({
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
    }))?;
    let times = timeout(patience, follow(pods, name, &pod)).await;
    if !matches!(times, Ok(Ok(_))) {
        // Not left running after a failure.
        let _ = pods
            .delete(name, &DeleteParams::default().grace_period(0))
            .await;
    }
    times.with_context(|| format!("pod {name} did not get there within {patience:?}"))?
}

async fn follow(pods: &Api<Pod>, name: &str, pod: &Pod) -> anyhow::Result<Times> {
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
    let begun = Instant::now();
    let now = DeleteParams::default().grace_period(1);
    pods.delete(name, &now).await.context("deleting the pod")?;
    loop {
        let event = events.try_next().await?.context("the watch ended")?;
        if matches!(event, WatchEvent::Deleted(_)) {
            break;
        }
    }
    Ok(Times {
        bound: bound.unwrap_or(running),
        running,
        gone: begun.elapsed(),
    })
}
