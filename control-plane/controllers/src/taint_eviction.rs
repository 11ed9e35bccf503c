//! Deletes pods from nodes with `NoExecute` taints: at once those that do not tolerate them,
//! later those that tolerate them for a time (`tolerationSeconds`).

use std::{sync::Arc, time::Duration};

use hull_client::{
    events::{EventType, Recorder, reference},
    taints::covers,
};
use k8s_openapi::{
    api::core::v1::{Node, Pod, Taint},
    jiff::Timestamp,
};
use kube::api::DeleteParams;
use serde_json::json;

use crate::{
    pod_gc::{disrupted, ignore_gone},
    runtime::{Action, Controller, Delta, Informer, Key, ReconcileError, WorkQueue, Writer},
};

/// See the module.
pub struct TaintEvictionController {
    writer: Arc<dyn Writer>,
    recorder: Recorder,
    nodes: Arc<Informer<Node>>,
    pods: Arc<Informer<Pod>>,
    queue: Arc<WorkQueue>,
}

impl TaintEvictionController {
    /// Connects the controller to its informers.
    pub fn new(
        writer: Arc<dyn Writer>,
        recorder: Recorder,
        nodes: Arc<Informer<Node>>,
        pods: Arc<Informer<Pod>>,
    ) -> Arc<Self> {
        let queue = Arc::new(WorkQueue::default());
        nodes.on_change({
            let (pods, queue) = (pods.clone(), queue.clone());
            move |delta| {
                let before = match delta {
                    Delta::Updated { old, .. } => no_execute(old).cloned().collect(),
                    _ => Vec::new(),
                };
                let node = delta.newest();
                if no_execute(node).eq(&before) {
                    return;
                }
                for pod in pods.all() {
                    if node_of(&pod) == node.metadata.name.as_deref() {
                        queue.add(Key::of(&*pod));
                    }
                }
            }
        });
        pods.on_change({
            let (nodes, queue) = (nodes.clone(), queue.clone());
            move |delta| {
                let pod = delta.newest();
                let node = node_of(pod).and_then(|name| nodes.get(&Key::new("", name)));
                if node.is_some_and(|node| no_execute(&node).next().is_some()) {
                    queue.add(Key::of(&**pod));
                }
            }
        });
        Arc::new(TaintEvictionController {
            writer,
            recorder,
            nodes,
            pods,
            queue,
        })
    }

    async fn evict(&self, pod: &Pod) -> Result<(), ReconcileError> {
        let key = Key::of(pod);
        tracing::info!(pod = %key, "pod evicted because of a NoExecute taint");
        self.recorder.event(
            reference(pod),
            EventType::Normal,
            "TaintManagerEviction",
            format!("Marking for deletion Pod {key}"),
        );
        let patch = json!({
            "metadata": {"uid": pod.metadata.uid},
            "status": {"conditions": disrupted(
                pod, "DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint",
            )},
        });
        let marked = self.writer.patch_object(pod, Some("status"), patch).await;
        ignore_gone(marked.map(|_| ()))?;
        ignore_gone(
            self.writer
                .delete_object(pod, DeleteParams::default())
                .await,
        )?;
        Ok(())
    }
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

fn no_execute(node: &Node) -> impl Iterator<Item = &Taint> {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    taints
        .into_iter()
        .flatten()
        .filter(|taint| taint.effect == "NoExecute")
}

/// How long the pod may stay: `None` for ever, zero not at all.
fn stays(pod: &Pod, node: &Node, now: Timestamp) -> Option<Duration> {
    let tolerations = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.tolerations.as_deref());
    let mut shortest: Option<Duration> = None;
    for taint in no_execute(node) {
        let covering: Vec<_> = tolerations
            .unwrap_or_default()
            .iter()
            .filter(|toleration| covers(toleration, taint))
            .collect();
        if covering.is_empty() {
            return Some(Duration::ZERO);
        }
        let seconds = covering
            .iter()
            .filter_map(|toleration| toleration.toleration_seconds)
            .min();
        let Some(seconds) = seconds else { continue };
        let since = taint.time_added.as_ref().map_or(now, |time| time.0);
        let passed = Duration::try_from(now.duration_since(since)).unwrap_or(Duration::ZERO);
        let tolerated = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        let left = tolerated.saturating_sub(passed);
        shortest = Some(shortest.map_or(left, |shortest| shortest.min(left)));
    }
    shortest
}

#[async_trait::async_trait]
impl Controller for TaintEvictionController {
    fn name(&self) -> &'static str {
        "taint-eviction"
    }

    fn queue(&self) -> &Arc<WorkQueue> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<Action, ReconcileError> {
        let Some(pod) = self.pods.get(key) else {
            return Ok(Action::Done);
        };
        if pod.metadata.deletion_timestamp.is_some() {
            return Ok(Action::Done);
        }
        let node = node_of(&pod).and_then(|name| self.nodes.get(&Key::new("", name)));
        let Some(node) = node else {
            return Ok(Action::Done);
        };
        match stays(&pod, &node, Timestamp::now()) {
            None => Ok(Action::Done),
            Some(left) if left.is_zero() => {
                self.evict(&pod).await?;
                Ok(Action::Done)
            }
            Some(left) => Ok(Action::After(left)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::runtime::fake::FakeApi;

    fn bench() -> (Arc<FakeApi>, Arc<TaintEvictionController>) {
        let api = FakeApi::new();
        let controller = TaintEvictionController::new(
            api.clone(),
            Recorder::channel().0,
            Arc::default(),
            Arc::default(),
        );
        (api, controller)
    }

    fn pod(name: &str, tolerations: Value) -> Value {
        json!({
            "metadata": {"name": name, "namespace": "shop"},
            "spec": {"nodeName": "lost", "containers": [], "tolerations": tolerations}
        })
    }

    fn taint(since: Timestamp) -> Value {
        json!({"spec": {"taints": [
            {"key": "unreachable", "effect": "NoExecute", "timeAdded": Time(since)},
            {"key": "other", "effect": "NoSchedule"}
        ]}})
    }

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    #[tokio::test]
    async fn evicts_by_toleration() {
        let (api, controller) = bench();
        api.seed::<Node>(json!({"metadata": {"name": "lost"}}));
        let tolerate = |seconds: Value| json!([{"key": "unreachable", "operator": "Exists", "tolerationSeconds": seconds}]);
        api.seed::<Pod>(pod("at-once", json!([])));
        api.seed::<Pod>(pod("for-ever", tolerate(Value::Null)));
        api.seed::<Pod>(pod("five-minutes", tolerate(json!(300))));
        api.seed::<Pod>(pod("a-second", tolerate(json!(1))));
        api.pump(&controller.nodes);
        api.pump(&controller.pods);
        assert!(controller.queue.is_empty(), "no taint, no work");
        let since = Timestamp::now() - std::time::Duration::from_secs(60);
        api.change("nodes", &Key::new("", "lost"), taint(since));
        api.pump(&controller.nodes);
        let mut actions = std::collections::BTreeMap::new();
        for key in controller.queue.take_all() {
            actions.insert(key.name.clone(), controller.reconcile(&key).await.unwrap());
        }
        let left: Vec<_> = api
            .all::<Pod>()
            .into_iter()
            .map(|pod| pod.metadata.name.unwrap())
            .collect();
        assert_eq!(left, ["five-minutes", "for-ever"]);
        assert_eq!(actions["for-ever"], Action::Done);
        match actions["five-minutes"] {
            Action::After(wait) => assert!((230..=240).contains(&wait.as_secs()), "{wait:?}"),
            Action::Done => panic!("must come back"),
        }
    }

    #[tokio::test]
    async fn a_taint_that_went_in_time_evicts_nobody() {
        let (api, controller) = bench();
        api.seed::<Node>(json!({"metadata": {"name": "lost"}}));
        api.seed::<Pod>(pod("web", json!([])));
        api.change("nodes", &Key::new("", "lost"), taint(Timestamp::now()));
        api.pump(&controller.nodes);
        api.pump(&controller.pods);
        api.change(
            "nodes",
            &Key::new("", "lost"),
            json!({"spec": {"taints": null}}),
        );
        api.pump(&controller.nodes);
        for key in controller.queue.take_all() {
            controller.reconcile(&key).await.unwrap();
        }
        assert_eq!(api.all::<Pod>().len(), 1);
    }
}
