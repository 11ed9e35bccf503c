//! Pods bound per second on many nodes that exist only as objects.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{
    Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::Options;
use crate::load::{client, drive, make_namespace, remove_namespace};
use crate::stats::{Samples, rate};
use crate::table::{Report, Table, milliseconds};

/// Label of the fake nodes, which the pods select, so that none lands on a real one.
const LABEL: &str = "hull-bench/fake";

pub async fn measure(options: &Options) -> anyhow::Result<Report> {
    measure_at(&client().await?, options).await
}

/// Measures the cluster that this client speaks to.
pub async fn measure_at(client: &Client, options: &Options) -> anyhow::Result<Report> {
    let namespace = make_namespace(client, "scheduler").await?;
    let report = run(client, &namespace, options).await;
    clean_up(client, &namespace, options).await;
    remove_namespace(client, &namespace).await;
    report
}

async fn run(client: &Client, namespace: &str, options: &Options) -> anyhow::Result<Report> {
    make_nodes(client, options)
        .await
        .context("making fake nodes")?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let first = pods
        .list(&ListParams::default().limit(1))
        .await
        .context("listing pods")?;
    let version = first.metadata.resource_version.unwrap_or_default();
    let mut stream = pods.watch(&WatchParams::default(), &version).await?.boxed();
    let (sender, mut bound) = mpsc::unbounded_channel();
    let watch = tokio::spawn(async move {
        while let Ok(Some(event)) = stream.try_next().await {
            if let WatchEvent::Modified(pod) = event
                && pod
                    .spec
                    .as_ref()
                    .is_some_and(|spec| spec.node_name.is_some())
                && sender.send((pod.name_any(), Instant::now())).is_err()
            {
                return;
            }
        }
    });
    let begun = Instant::now();
    let created = drive(options.bindings, options.concurrency, |number| {
        let pods = &pods;
        async move {
            let pod: Pod = serde_json::from_value(pod(number))?;
            pods.create(&PostParams::default(), &pod).await?;
            Ok(())
        }
    });
    let created = created.await.context("creating pods")?;
    let mut seen: BTreeMap<String, Instant> = BTreeMap::new();
    let all = async {
        while seen.len() < options.bindings {
            match bound.recv().await {
                Some((name, at)) => seen.entry(name).or_insert(at),
                None => return,
            };
        }
    };
    let in_time = timeout(Duration::from_secs(options.patience_seconds), all)
        .await
        .is_ok();
    watch.abort();
    let mut since_first = Samples::default();
    seen.values()
        .for_each(|at| since_first.push(at.saturating_duration_since(begun)));
    let mut report = Report::new(&format!("Scheduler on {} fake nodes", options.fake_nodes));
    let mut table = Table::new(&["what", "value"]);
    let mut add = |name: &str, value: String| table.row([name.to_owned(), value]);
    add("pods created", options.bindings.to_string());
    add(
        "pods created per second",
        format!("{:.0}", rate(options.bindings, created.elapsed)),
    );
    add("pods bound", seen.len().to_string());
    add(
        "**pods bound per second**, first create to last binding",
        format!("{:.0}", rate(seen.len(), since_first.max())),
    );
    add(
        "half of them bound after, ms",
        milliseconds(since_first.median()),
    );
    add("last one bound after, ms", milliseconds(since_first.max()));
    report.table(table);
    if !in_time {
        report.remark(format!(
            "Not all were bound within {} s.",
            options.patience_seconds
        ));
    }
    report.remark(
        "Peer, measured on such a machine on 2026-11-22 and not in this run: kube-scheduler 1.36.2's \
         scheduler_perf, 5000 nodes and 10000 pods: 143 a second on average.",
    );
    Ok(report)
}

/// Nodes that are ready, with nobody behind them.
pub async fn make_nodes(client: &Client, options: &Options) -> anyhow::Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    drive(options.fake_nodes, options.concurrency, |number| {
        let nodes = &nodes;
        async move {
            let node: Node = serde_json::from_value(node(number))?;
            let made = nodes.create(&PostParams::default(), &node).await?;
            let has_capacity = made
                .status
                .is_some_and(|status| status.allocatable.is_some());
            if !has_capacity {
                let patch = Patch::Merge(json!({"status": status()}));
                let name = node_name(number);
                nodes
                    .patch_status(&name, &PatchParams::default(), &patch)
                    .await?;
            }
            Ok(())
        }
    })
    .await?;
    Ok(())
}

/// Pods first, by force: no node agent is there to confirm their end.
async fn clean_up(client: &Client, namespace: &str, options: &Options) {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let nodes: Api<Node> = Api::all(client.clone());
    let force = DeleteParams::default().grace_period(0);
    let now = DeleteParams::default();
    let (pods, nodes, force, now) = (&pods, &nodes, &force, &now);
    let names = pods
        .list_metadata(&ListParams::default())
        .await
        .map(|list| list.items);
    let names: Vec<String> = names
        .unwrap_or_default()
        .iter()
        .map(ResourceExt::name_any)
        .collect();
    let names = &names;
    let removed = drive(names.len(), options.concurrency, |number| async move {
        if let Some(name) = names.get(number) {
            pods.delete(name, force).await?;
        }
        Ok(())
    });
    let removed = removed.await;
    let nodes_removed = drive(
        options.fake_nodes,
        options.concurrency,
        |number| async move {
            match nodes.delete(&node_name(number), now).await {
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
                other => other.map(drop).map_err(anyhow::Error::from),
            }
        },
    );
    for result in [removed, nodes_removed.await] {
        if let Err(error) = result {
            eprintln!("cleaning up after the scheduler benchmark: {error:#}");
        }
    }
}

fn node_name(number: usize) -> String {
    format!("hull-bench-node-{number:05}")
}

fn node(number: usize) -> Value {
    let name = node_name(number);
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {LABEL: "true", "kubernetes.io/hostname": name}},
        "spec": {},
        "status": status(),
    })
}

fn status() -> Value {
    let resources =
        json!({"cpu": "32", "memory": "128Gi", "ephemeral-storage": "500Gi", "pods": "110"});
    let now = jiff::Timestamp::now()
        .strftime("%Y-%m-%dT%H:%M:%SZ")
        .to_string();
    json!({
        "capacity": resources,
        "allocatable": resources,
        "conditions": [{
            "type": "Ready",
            "status": "True",
            "reason": "Fake",
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        }],
    })
}

fn pod(number: usize) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": format!("pod-{number:06}"), "labels": {"app": "bench"}},
        "spec": {
            "nodeSelector": {LABEL: "true"},
            // Nobody renews the fake nodes' leases; they may be tainted before the end.
            "tolerations": [{"operator": "Exists"}],
            "containers": [{
                "name": "none",
                "image": "none",
                "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
            }],
        },
    })
}
