//! Removes pods that no node will ever finish.
//!
//! * Pods of a node that is gone (after a quarantine, and asked again at the API server).
//! * Pods that are being deleted and were never given a node.
//! * The oldest ended pods beyond a number, so that finished work does not fill the store.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::{
    api::core::v1::{Node, Pod},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use kube::api::DeleteParams;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::{
    pods,
    runtime::{Action, Controller, Informer, Key, ReconcileError, WorkQueue, WriteError, Writer},
};

/// Time between two sweeps.
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(20);
/// How long a node must be unknown before its pods go.
pub const NODE_QUARANTINE: Duration = Duration::from_secs(40);
/// Most ended pods kept.
pub const TERMINATED_PODS_KEPT: usize = 12_500;

/// See the module.
pub struct PodGcController {
    writer: Arc<dyn Writer>,
    pods: Arc<Informer<Pod>>,
    nodes: Arc<Informer<Node>>,
    queue: Arc<WorkQueue>,
    terminated_kept: usize,
    quarantine: Duration,
    unknown_nodes: Mutex<HashMap<String, Instant>>,
}

impl PodGcController {
    /// Connects the controller to its informers; the first sweep is due at once.
    pub fn new(
        writer: Arc<dyn Writer>,
        pods: Arc<Informer<Pod>>,
        nodes: Arc<Informer<Node>>,
        terminated_kept: usize,
    ) -> Arc<Self> {
        let queue = Arc::new(WorkQueue::default());
        queue.add(Key::new("", "sweep"));
        Arc::new(PodGcController {
            writer,
            pods,
            nodes,
            queue,
            terminated_kept,
            quarantine: NODE_QUARANTINE,
            unknown_nodes: Mutex::default(),
        })
    }

    /// Nodes that pods name, that were unknown for the quarantine, and that the API server does
    /// not know either.
    async fn gone_nodes(&self, pods: &[Arc<Pod>], now: Instant) -> Result<Vec<String>, WriteError> {
        let unknown: Vec<String> = {
            let mut names: Vec<_> = pods
                .iter()
                .filter_map(|pod| node_of(pod))
                .filter(|name| self.nodes.get(&Key::new("", *name)).is_none())
                .map(str::to_owned)
                .collect();
            names.sort();
            names.dedup();
            names
        };
        let overdue: Vec<String> = {
            let mut since = self.unknown_nodes.lock();
            since.retain(|name, _| unknown.contains(name));
            unknown
                .into_iter()
                .filter(|name| {
                    let first = *since.entry(name.clone()).or_insert(now);
                    now.saturating_duration_since(first) >= self.quarantine
                })
                .collect()
        };
        let mut gone = Vec::new();
        for name in overdue {
            match self.writer.get_object::<Node>("", &name).await {
                Err(error) if error.is_not_found() => gone.push(name),
                Err(error) => return Err(error),
                Ok(_) => {}
            }
        }
        Ok(gone)
    }

    async fn sweep(&self, now: Instant) -> Result<(), WriteError> {
        let pods = self.pods.all();
        for name in self.gone_nodes(&pods, now).await? {
            for pod in pods.iter().filter(|pod| node_of(pod) == Some(&name)) {
                tracing::info!(pod = %Key::of(&**pod), node = name, "pod of a vanished node removed");
                self.mark_disrupted(pod).await?;
                self.force_delete(pod).await?;
            }
        }
        for pod in &pods {
            if pod.metadata.deletion_timestamp.is_some() && node_of(pod).is_none() {
                self.force_delete(pod).await?;
            }
        }
        let mut ended: Vec<_> = pods
            .iter()
            .filter(|pod| pods::is_terminal(pod) && pod.metadata.deletion_timestamp.is_none())
            .collect();
        let excess = ended.len().saturating_sub(self.terminated_kept);
        if excess > 0 {
            ended.sort_by_key(|pod| {
                pod.metadata
                    .creation_timestamp
                    .as_ref()
                    .map(|time| time.0.as_second())
            });
            for pod in ended.into_iter().take(excess) {
                self.force_delete(pod).await?;
            }
        }
        Ok(())
    }

    /// Says in the status why the pod went, for those who still hold it by a finalizer.
    async fn mark_disrupted(&self, pod: &Pod) -> Result<(), WriteError> {
        if pods::is_terminal(pod) {
            return Ok(());
        }
        let patch = json!({
            "metadata": {"uid": pod.metadata.uid},
            "status": {"phase": "Failed", "conditions": disrupted(
                pod, "DeletionByPodGC", "PodGC: node no longer exists",
            )},
        });
        ignore_gone(
            self.writer
                .patch_object(pod, Some("status"), patch)
                .await
                .map(|_| ()),
        )
    }

    async fn force_delete(&self, pod: &Pod) -> Result<(), WriteError> {
        let options = DeleteParams {
            grace_period_seconds: Some(0),
            ..DeleteParams::default()
        };
        ignore_gone(self.writer.delete_object(pod, options).await)
    }
}

/// The pod's conditions with DisruptionTarget.
pub(crate) fn disrupted(pod: &Pod, reason: &str, message: &str) -> Vec<Value> {
    let status = pod.status.clone().unwrap_or_default();
    let mut conditions: Vec<Value> = status
        .conditions
        .iter()
        .flatten()
        .filter(|condition| condition.type_ != "DisruptionTarget")
        .filter_map(|condition| serde_json::to_value(condition).ok())
        .collect();
    conditions.push(json!({
        "type": "DisruptionTarget",
        "status": "True",
        "reason": reason,
        "message": message,
        "lastTransitionTime": Time(Timestamp::now()),
    }));
    conditions
}

pub(crate) fn ignore_gone(outcome: Result<(), WriteError>) -> Result<(), WriteError> {
    match outcome {
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
        outcome => outcome,
    }
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec
        .as_ref()?
        .node_name
        .as_deref()
        .filter(|name| !name.is_empty())
}

#[async_trait::async_trait]
impl Controller for PodGcController {
    fn name(&self) -> &'static str {
        "pod-garbage-collector"
    }

    fn queue(&self) -> &Arc<WorkQueue> {
        &self.queue
    }

    async fn reconcile(&self, _: &Key) -> Result<Action, ReconcileError> {
        self.sweep(Instant::now()).await?;
        Ok(Action::After(SWEEP_INTERVAL))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::fake::FakeApi;

    fn bench(kept: usize) -> (Arc<FakeApi>, Arc<PodGcController>) {
        let api = FakeApi::new();
        let controller = PodGcController::new(api.clone(), Arc::default(), Arc::default(), kept);
        (api, controller)
    }

    fn seed(api: &FakeApi, name: &str, node: Option<&str>, phase: &str, deleting: bool) {
        let mut pod = json!({
            "metadata": {"name": name, "namespace": "shop"},
            "spec": {"containers": [], "nodeName": node}, "status": {"phase": phase}
        });
        if deleting {
            pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        api.seed::<Pod>(pod);
    }

    fn names(api: &FakeApi) -> Vec<String> {
        api.all::<Pod>()
            .into_iter()
            .map(|pod| pod.metadata.name.unwrap())
            .collect()
    }

    #[tokio::test]
    async fn pods_of_a_vanished_node_go_after_the_quarantine() {
        let (api, controller) = bench(10);
        api.seed::<Node>(json!({"metadata": {"name": "here"}}));
        seed(&api, "kept", Some("here"), "Running", false);
        seed(&api, "lost", Some("gone"), "Running", false);
        api.pump(&controller.pods);
        api.pump(&controller.nodes);
        let start = Instant::now();
        controller.sweep(start).await.unwrap();
        assert_eq!(names(&api), ["kept", "lost"]);
        controller.sweep(start + NODE_QUARANTINE).await.unwrap();
        assert_eq!(names(&api), ["kept"]);
    }

    #[tokio::test]
    async fn a_node_that_only_the_informer_misses_keeps_its_pods() {
        let (api, controller) = bench(10);
        seed(&api, "kept", Some("new"), "Running", false);
        api.pump(&controller.pods);
        api.seed::<Node>(json!({"metadata": {"name": "new"}}));
        let start = Instant::now();
        controller.sweep(start).await.unwrap();
        controller.sweep(start + NODE_QUARANTINE).await.unwrap();
        assert_eq!(names(&api), ["kept"]);
    }

    #[tokio::test]
    async fn deleted_pods_without_a_node_and_excess_ended_pods_go() {
        let (api, controller) = bench(2);
        api.seed::<Node>(json!({"metadata": {"name": "here"}}));
        seed(&api, "unplaced", None, "Pending", true);
        seed(&api, "stopping", Some("here"), "Running", true);
        for n in 0..4 {
            seed(&api, &format!("done-{n}"), Some("here"), "Succeeded", false);
        }
        api.pump(&controller.pods);
        api.pump(&controller.nodes);
        controller.sweep(Instant::now()).await.unwrap();
        assert_eq!(names(&api), ["done-2", "done-3", "stopping"]);
    }
}
