//! Registering the nodes, and their heartbeats: evenly spread over time, so that the API server
//! sees a steady load.

use std::time::Duration;

use futures::{
    StreamExt,
    stream::{self, FuturesUnordered},
};
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Node};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::{Shared, count, objects};

/// The namespace of node Leases.
pub(super) const LEASE_NAMESPACE: &str = "kube-node-lease";
/// How often a node's status is written although nothing changed.
const STATUS_INTERVAL: Duration = Duration::from_secs(300);
/// Wait before a failed registration is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Registers every node, however long it takes.
pub(super) async fn register_all(shared: &Shared) {
    let registrations = stream::iter(0..shared.config.count).map(|number| async move {
        while let Err(error) = register(shared, number).await {
            shared.failed("register node", &shared.config.name(number), &error);
            tokio::time::sleep(RETRY).await;
        }
        count(&shared.progress.registered);
    });
    let mut registrations = registrations.buffer_unordered(shared.config.concurrency.max(1));
    while registrations.next().await.is_some() {}
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

/// Creates what is missing; a node of an earlier run is taken over.
async fn register(shared: &Shared, number: usize) -> Result<(), kube::Error> {
    // The Lease first: a node without one counts as silent.
    renew(shared, number).await?;
    let nodes: Api<Node> = Api::all(shared.client.clone());
    let node = serde_json::from_value(objects::node(&shared.config, number));
    let node = node.map_err(kube::Error::SerdeError)?;
    match nodes.create(&PostParams::default(), &node).await {
        Err(error) if !is_conflict(&error) => return Err(error),
        _ => {}
    }
    report(shared, number).await
}

/// Writes the node's status.
async fn report(shared: &Shared, number: usize) -> Result<(), kube::Error> {
    let nodes: Api<Node> = Api::all(shared.client.clone());
    let status = objects::node_status(&shared.config, number);
    let patch = Patch::Merge(json!({"status": status}));
    let name = shared.config.name(number);
    let params = PatchParams::default();
    nodes.patch_status(&name, &params, &patch).await.map(drop)
}

/// Renews the Lease; one that is missing is made.
async fn renew(shared: &Shared, number: usize) -> Result<(), kube::Error> {
    let leases: Api<Lease> = Api::namespaced(shared.client.clone(), LEASE_NAMESPACE);
    let name = shared.config.name(number);
    let patch = Patch::Merge(json!({"spec": {"renewTime": objects::renew_time()}}));
    match leases.patch(&name, &PatchParams::default(), &patch).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {
            let lease = serde_json::from_value(objects::lease(&shared.config, number));
            let lease = lease.map_err(kube::Error::SerdeError)?;
            match leases.create(&PostParams::default(), &lease).await {
                Err(error) if !is_conflict(&error) => Err(error),
                _ => Ok(()),
            }
        }
        other => other.map(drop),
    }
}

/// Heartbeats for ever.
pub(super) async fn run(shared: &Shared) {
    let turns = STATUS_INTERVAL.as_secs() / shared.config.lease_interval.as_secs().max(1);
    let turns = usize::try_from(turns.max(1)).unwrap_or(1);
    for turn in 0_usize.. {
        beat_once(shared, turn, turns).await;
    }
}

/// One heartbeat of each node within the interval; in each of `turns` turns others report their
/// status, too.
async fn beat_once(shared: &Shared, turn: usize, turns: usize) {
    let (begun, nodes) = (Instant::now(), shared.config.count.max(1));
    let mut beats = FuturesUnordered::new();
    for number in 0..shared.config.count {
        let share = number as f64 / nodes as f64;
        let due = begun + shared.config.lease_interval.mul_f64(share);
        loop {
            tokio::select! {
                () = sleep_until(due), if beats.len() < shared.config.concurrency.max(1) => break,
                Some(()) = beats.next(), if !beats.is_empty() => {}
            }
        }
        beats.push(beat(shared, number, (number + turn).is_multiple_of(turns)));
    }
    while beats.next().await.is_some() {}
    sleep_until(begun + shared.config.lease_interval).await;
}

async fn beat(shared: &Shared, number: usize, reports: bool) {
    let mut outcome = renew(shared, number).await;
    if outcome.is_ok() {
        count(&shared.progress.renewals);
        if reports {
            outcome = report(shared, number).await;
        }
    }
    if let Err(error) = outcome {
        shared.failed("heartbeat", &shared.config.name(number), &error);
    }
}
