//! Notices nodes that stop reporting, and says so where the scheduler and the eviction look.
//!
//! ```text
//! Lease, node status ─► health: last sign of life, by our own clock
//!                         │ silent for longer than the grace period
//!                         ▼
//! node conditions Unknown ─► taints not-ready / unreachable (NoSchedule, NoExecute)
//!                         └► its pods' Ready condition False
//! ```
//!
//! When no node at all reports, the trouble is most likely ours: then no node gets a `NoExecute`
//! taint, so nothing is evicted, until one reports again.

mod health;
mod taints;
#[cfg(test)]
mod tests;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use hull_client::events::{EventType, Recorder, reference};
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Node, NodeCondition, Pod},
    },
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use serde_json::json;

use crate::{
    pod_gc::ignore_gone,
    pods,
    runtime::{Action, Controller, Informer, Key, ReconcileError, WorkQueue, Writer},
};
use health::Health;

/// Time between two looks at a node.
pub const MONITOR_PERIOD: Duration = Duration::from_secs(5);
/// Silence after which a node counts as lost.
pub const MONITOR_GRACE_PERIOD: Duration = Duration::from_secs(50);
/// Silence of a node that never reported since it was registered.
pub const STARTUP_GRACE_PERIOD: Duration = Duration::from_secs(60);
/// Where the nodes' leases are.
pub const LEASE_NAMESPACE: &str = "kube-node-lease";

/// The conditions that a silent node no longer vouches for.
const CONDITIONS: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// See the module.
pub struct NodeLifecycleController {
    writer: Arc<dyn Writer>,
    recorder: Recorder,
    nodes: Arc<Informer<Node>>,
    leases: Arc<Informer<Lease>>,
    pods: Arc<Informer<Pod>>,
    queue: Arc<WorkQueue>,
    health: Health,
    grace_period: Duration,
}

impl NodeLifecycleController {
    /// Connects the controller to its informers.
    pub fn new(
        writer: Arc<dyn Writer>,
        recorder: Recorder,
        nodes: Arc<Informer<Node>>,
        leases: Arc<Informer<Lease>>,
        pods: Arc<Informer<Pod>>,
        grace_period: Duration,
    ) -> Arc<Self> {
        let queue = Arc::new(WorkQueue::default());
        nodes.on_change({
            let queue = queue.clone();
            move |delta| queue.add(Key::of(&**delta.newest()))
        });
        Arc::new(NodeLifecycleController {
            writer,
            recorder,
            nodes,
            leases,
            pods,
            queue,
            health: Health::default(),
            grace_period,
        })
    }

    async fn look(&self, node: &Arc<Node>, now: Instant) -> Result<(), ReconcileError> {
        let name = node.metadata.name.clone().unwrap_or_default();
        let lease = self.leases.get(&Key::new(LEASE_NAMESPACE, &*name));
        let silent = self.health.observe(node, lease.as_deref(), now);
        let never_reported = ready(node).is_none();
        let grace = if never_reported {
            STARTUP_GRACE_PERIOD.max(self.grace_period)
        } else {
            self.grace_period
        };
        let mut node = node.clone();
        let was_ready = is_ready(&node);
        if silent > grace
            && let Some(changed) = self.mark_unknown(&node, never_reported).await?
        {
            node = changed;
        }
        if !is_ready(&node) {
            if was_ready {
                tracing::warn!(node = name, ?silent, "node stopped reporting");
                self.recorder.event(
                    reference(&*node),
                    EventType::Normal,
                    "NodeNotReady",
                    format!("Node {name} status is now: NodeNotReady"),
                );
            }
            self.mark_pods_unready(&name).await?;
        }
        self.write_taints(&node).await
    }

    /// Sets the conditions of a silent node to Unknown.
    async fn mark_unknown(
        &self,
        node: &Node,
        never_reported: bool,
    ) -> Result<Option<Arc<Node>>, ReconcileError> {
        let (reason, message) = if never_reported {
            (
                "NodeStatusNeverUpdated",
                "Kubelet never posted node status.",
            )
        } else {
            ("NodeStatusUnknown", "Kubelet stopped posting node status.")
        };
        let status = node.status.clone().unwrap_or_default();
        let mut conditions = status.conditions.unwrap_or_default();
        let now = Timestamp::now();
        let before = conditions.clone();
        for kind in CONDITIONS {
            match conditions
                .iter_mut()
                .find(|condition| condition.type_ == kind)
            {
                Some(condition) if condition.status == "Unknown" => {}
                Some(condition) => {
                    condition.status = "Unknown".into();
                    condition.reason = Some(reason.into());
                    condition.message = Some(message.into());
                    condition.last_transition_time = Some(Time(now));
                }
                None => conditions.push(NodeCondition {
                    type_: kind.into(),
                    status: "Unknown".into(),
                    reason: Some(reason.into()),
                    message: Some(message.into()),
                    last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                    last_transition_time: Some(Time(now)),
                }),
            }
        }
        if conditions == before {
            return Ok(None);
        }
        // With the version that was judged: a status that arrives meanwhile wins.
        let patch = json!({
            "metadata": {"uid": node.metadata.uid, "resourceVersion": node.metadata.resource_version},
            "status": {"conditions": conditions},
        });
        let patched = self
            .writer
            .patch_object(node, Some("status"), patch)
            .await?;
        Ok(Some(Arc::new(crate::runtime::writer::object(patched)?)))
    }

    async fn mark_pods_unready(&self, node: &str) -> Result<(), ReconcileError> {
        for pod in self.pods.all() {
            let there = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node);
            if !there || !pods::is_ready(&pod) {
                continue;
            }
            let mut status = pod.status.clone().unwrap_or_default();
            for condition in status.conditions.iter_mut().flatten() {
                if condition.type_ == "Ready" {
                    condition.status = "False".into();
                    condition.last_transition_time = Some(Time(Timestamp::now()));
                }
            }
            let patch = json!({
                "metadata": {
                    "uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version
                },
                "status": {"conditions": status.conditions},
            });
            let patched = self.writer.patch_object(&*pod, Some("status"), patch).await;
            ignore_gone(patched.map(|_| ()))?;
            self.recorder.event(
                reference(&*pod),
                EventType::Warning,
                "NodeNotReady",
                "Node is not ready",
            );
        }
        Ok(())
    }

    /// Whether no node at all reports.
    fn all_lost(&self) -> bool {
        self.nodes.all().iter().all(|node| !is_ready(node))
    }

    async fn write_taints(&self, node: &Node) -> Result<(), ReconcileError> {
        let spec = node.spec.clone().unwrap_or_default();
        let current = spec.taints.clone().unwrap_or_default();
        let wanted = taints::wanted(node, &current, !self.all_lost(), Timestamp::now());
        if wanted == current {
            return Ok(());
        }
        let patch = json!({
            "metadata": {"uid": node.metadata.uid, "resourceVersion": node.metadata.resource_version},
            "spec": {"taints": wanted},
        });
        self.writer.patch_object(node, None, patch).await?;
        Ok(())
    }
}

fn ready(node: &Node) -> Option<&NodeCondition> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions
        .iter()
        .find(|condition| condition.type_ == "Ready")
}

fn is_ready(node: &Node) -> bool {
    ready(node).is_some_and(|condition| condition.status == "True")
}

#[async_trait::async_trait]
impl Controller for NodeLifecycleController {
    fn name(&self) -> &'static str {
        "node-lifecycle"
    }

    fn queue(&self) -> &Arc<WorkQueue> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<Action, ReconcileError> {
        let Some(node) = self.nodes.get(key) else {
            self.health.forget(&key.name);
            return Ok(Action::Done);
        };
        self.look(&node, Instant::now()).await?;
        Ok(Action::After(MONITOR_PERIOD))
    }
}
