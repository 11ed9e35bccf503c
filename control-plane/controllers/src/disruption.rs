//! PodDisruptionBudgets: how many of the pods may be evicted now.
//!
//! The eviction subresource takes from `status.disruptionsAllowed` and notes the pod in
//! `status.disruptedPods`; this controller works both out anew whenever a pod changes.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use hull_client::events::{EventType, Recorder, reference};
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet, StatefulSet},
        core::v1::{Pod, ReplicationController},
        policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec, PodDisruptionBudgetStatus},
    },
    apimachinery::pkg::{
        apis::meta::v1::{Condition, Time},
        util::intstr::IntOrString,
    },
    jiff::Timestamp,
};
use serde_json::Value;

use crate::{
    adopt::{parse_selector, selects},
    int_or_percent::resolve,
    owner::owner_of,
    pods,
    runtime::{
        Action, Controller, Delta, Informer, Key, ReconcileError, WorkQueue, Writer,
        informer::controller_of,
    },
};

/// An eviction that was granted and whose pod is still there after this time did not happen.
const EVICTION_TIMEOUT: Duration = Duration::from_secs(120);
const CONDITION: &str = "DisruptionAllowed";

/// The kinds that say how many pods there should be.
pub struct Scales {
    /// Owners of ReplicaSets.
    pub deployments: Arc<Informer<Deployment>>,
    /// Owners of pods.
    pub sets: Arc<Informer<ReplicaSet>>,
    /// Owners of pods.
    pub controllers: Arc<Informer<ReplicationController>>,
    /// Owners of pods.
    pub stateful: Arc<Informer<StatefulSet>>,
}

impl Scales {
    /// The uid and size of what controls the pod in the end; `None`: nothing does.
    fn of(&self, pod: &Pod) -> Result<Option<(String, i32)>, String> {
        let Some(reference) = controller_of(pod) else {
            return Ok(None);
        };
        let size = |replicas: Option<i32>| replicas.unwrap_or(1);
        if let Some(set) = owner_of(&self.sets, pod) {
            if let Some(deployment) = owner_of(&self.deployments, &*set) {
                let spec = deployment.spec.as_ref();
                let uid = deployment.metadata.uid.clone().unwrap_or_default();
                return Ok(Some((uid, size(spec.and_then(|spec| spec.replicas)))));
            }
            let replicas = set.spec.as_ref().and_then(|spec| spec.replicas);
            return Ok(Some((reference.uid.clone(), size(replicas))));
        }
        if let Some(owner) = owner_of(&self.controllers, pod) {
            let replicas = owner.spec.as_ref().and_then(|spec| spec.replicas);
            return Ok(Some((reference.uid.clone(), size(replicas))));
        }
        if let Some(owner) = owner_of(&self.stateful, pod) {
            let replicas = owner.spec.as_ref().and_then(|spec| spec.replicas);
            return Ok(Some((reference.uid.clone(), size(replicas))));
        }
        Err(format!(
            "{} does not implement the scale subresource",
            reference.kind
        ))
    }
}

/// See the module.
pub struct DisruptionController {
    writer: Arc<dyn Writer>,
    recorder: Recorder,
    budgets: Arc<Informer<PodDisruptionBudget>>,
    pods: Arc<Informer<Pod>>,
    scales: Scales,
    queue: Arc<WorkQueue>,
}

fn is_selected(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|selector| {
        parse_selector(selector, "").is_ok_and(|selector| selects(&selector, pod))
    })
}

impl DisruptionController {
    /// Connects the controller to its informers.
    pub fn new(
        writer: Arc<dyn Writer>,
        recorder: Recorder,
        budgets: Arc<Informer<PodDisruptionBudget>>,
        pods: Arc<Informer<Pod>>,
        scales: Scales,
    ) -> Arc<Self> {
        let queue = Arc::new(WorkQueue::default());
        budgets.on_change({
            let queue = queue.clone();
            move |delta| queue.add(Key::of(&**delta.newest()))
        });
        pods.on_change({
            let (budgets, queue) = (budgets.clone(), queue.clone());
            move |delta| {
                let mut states = vec![delta.newest()];
                if let Delta::Updated { old, .. } = delta {
                    states.push(old);
                }
                let namespace = delta.newest().metadata.namespace.as_deref();
                for budget in budgets.in_namespace(namespace.unwrap_or_default()) {
                    if states.iter().any(|pod| is_selected(&budget, pod)) {
                        queue.add(Key::of(&*budget));
                    }
                }
            }
        });
        wake_namespace(&scales.deployments, &budgets, &queue);
        wake_namespace(&scales.sets, &budgets, &queue);
        wake_namespace(&scales.controllers, &budgets, &queue);
        wake_namespace(&scales.stateful, &budgets, &queue);
        Arc::new(DisruptionController {
            writer,
            recorder,
            budgets,
            pods,
            scales,
            queue,
        })
    }

    /// Pods expected, and pods that must stay healthy.
    fn expectation(
        &self,
        spec: &PodDisruptionBudgetSpec,
        pods: &[Arc<Pod>],
    ) -> Result<(i32, i32), String> {
        if let Some(IntOrString::Int(least)) = &spec.min_available {
            return Ok((i32::try_from(pods.len()).unwrap_or(i32::MAX), *least));
        }
        let mut scales: HashMap<String, i32> = HashMap::new();
        for pod in pods {
            scales.extend(self.scales.of(pod)?);
        }
        let expected = scales.values().sum();
        let healthy = match (&spec.max_unavailable, &spec.min_available) {
            (Some(most), _) => expected - resolve(most, expected, true),
            (None, Some(least)) => resolve(least, expected, true),
            (None, None) => 0,
        };
        Ok((expected, healthy.max(0)))
    }

    fn status(
        &self,
        budget: &PodDisruptionBudget,
        pods: &[Arc<Pod>],
        (expected, desired): (i32, i32),
        now: Timestamp,
    ) -> (PodDisruptionBudgetStatus, Option<Duration>) {
        let old = budget.status.clone().unwrap_or_default();
        let (disrupted, recheck) = still_disrupted(&old, pods, now);
        let healthy = pods.iter().filter(|pod| {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            pods::is_ready(pod)
                && pod.metadata.deletion_timestamp.is_none()
                && !disrupted.contains_key(name)
        });
        let healthy = i32::try_from(healthy.count()).unwrap_or(i32::MAX);
        let allowed = if expected <= 0 {
            0
        } else {
            (healthy - desired).max(0)
        };
        let (state, reason) = if allowed > 0 {
            ("True", "SufficientPods")
        } else {
            ("False", "InsufficientPods")
        };
        let condition = condition(budget, state, reason, "", now);
        let status = PodDisruptionBudgetStatus {
            current_healthy: Some(healthy),
            desired_healthy: Some(desired),
            expected_pods: Some(expected),
            disruptions_allowed: Some(allowed),
            disrupted_pods: (!disrupted.is_empty()).then_some(disrupted),
            observed_generation: budget.metadata.generation,
            conditions: Some(condition),
        };
        (status, recheck)
    }

    async fn write(
        &self,
        budget: &PodDisruptionBudget,
        status: PodDisruptionBudgetStatus,
    ) -> Result<(), ReconcileError> {
        if budget.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let changed = PodDisruptionBudget {
            status: Some(status),
            ..budget.clone()
        };
        // With the version that was judged: an eviction that was granted meanwhile wins.
        match self.writer.replace_status(&changed).await {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(()),
        }
    }
}

fn wake_namespace<K>(
    owners: &Informer<K>,
    budgets: &Arc<Informer<PodDisruptionBudget>>,
    queue: &Arc<WorkQueue>,
) where
    K: kube::Resource<DynamicType = ()>
        + serde::Serialize
        + std::fmt::Debug
        + Send
        + Sync
        + 'static,
{
    let (budgets, queue) = (budgets.clone(), queue.clone());
    let size = |owner: &K| -> Option<Value> {
        Some(
            serde_json::to_value(owner)
                .ok()?
                .get("spec")?
                .get("replicas")?
                .clone(),
        )
    };
    owners.on_change(move |delta| {
        if let Delta::Updated { old, new } = delta
            && size(old) == size(new)
        {
            return;
        }
        let meta = delta.newest().meta();
        for budget in budgets.in_namespace(meta.namespace.as_deref().unwrap_or_default()) {
            queue.add(Key::of(&*budget));
        }
    });
}

/// Granted evictions that are still under way, and when the first of them is overdue.
fn still_disrupted(
    old: &PodDisruptionBudgetStatus,
    pods: &[Arc<Pod>],
    now: Timestamp,
) -> (BTreeMap<String, Time>, Option<Duration>) {
    let mut kept = BTreeMap::new();
    let mut recheck: Option<Duration> = None;
    for (name, since) in old.disrupted_pods.iter().flatten() {
        let pod = pods
            .iter()
            .find(|pod| pod.metadata.name.as_ref() == Some(name));
        if pod.is_none_or(|pod| pod.metadata.deletion_timestamp.is_some()) {
            continue;
        }
        let passed = Duration::try_from(now.duration_since(since.0)).unwrap_or(Duration::ZERO);
        let left = EVICTION_TIMEOUT.saturating_sub(passed);
        if !left.is_zero() {
            kept.insert(name.clone(), since.clone());
            recheck = Some(recheck.map_or(left, |recheck| recheck.min(left)));
        }
    }
    (kept, recheck)
}

/// The conditions with ours as it is now; its time changes with its state only.
fn condition(
    budget: &PodDisruptionBudget,
    state: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> Vec<Condition> {
    let old = budget
        .status
        .as_ref()
        .and_then(|status| status.conditions.clone());
    let mut conditions = old.unwrap_or_default();
    let before = conditions.iter().position(|own| own.type_ == CONDITION);
    let before = before.map(|index| conditions.remove(index));
    let since = before
        .filter(|before| before.status == state)
        .map_or(Time(now), |before| before.last_transition_time);
    conditions.push(Condition {
        type_: CONDITION.into(),
        status: state.into(),
        reason: reason.into(),
        message: message.into(),
        last_transition_time: since,
        observed_generation: budget.metadata.generation,
    });
    conditions
}

#[async_trait::async_trait]
impl Controller for DisruptionController {
    fn name(&self) -> &'static str {
        "disruption"
    }

    fn queue(&self) -> &Arc<WorkQueue> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<Action, ReconcileError> {
        let Some(budget) = self.budgets.get(key) else {
            return Ok(Action::Done);
        };
        let Some(spec) = &budget.spec else {
            return Ok(Action::Done);
        };
        let mut pods = self.pods.in_namespace(&key.namespace);
        pods.retain(|pod| is_selected(&budget, pod) && !pods::is_terminal(pod));
        let now = Timestamp::now();
        if pods.is_empty() {
            self.recorder.event(
                reference(&*budget),
                EventType::Normal,
                "NoPods",
                "No matching pods found",
            );
        }
        let expectation = match self.expectation(spec, &pods) {
            Ok(expectation) => expectation,
            // Fail safe: nothing may be evicted while the number is not known.
            Err(problem) => {
                let message = format!("Failed to calculate the number of expected pods: {problem}");
                self.recorder.event(
                    reference(&*budget),
                    EventType::Warning,
                    "CalculateExpectedPodCountFailed",
                    message,
                );
                let old = budget.status.clone().unwrap_or_default();
                let status = PodDisruptionBudgetStatus {
                    disruptions_allowed: Some(0),
                    observed_generation: budget.metadata.generation,
                    conditions: Some(condition(&budget, "False", "SyncFailed", &problem, now)),
                    ..old
                };
                self.write(&budget, status).await?;
                return Ok(Action::Done);
            }
        };
        let (status, recheck) = self.status(&budget, &pods, expectation, now);
        self.write(&budget, status).await?;
        Ok(recheck.map_or(Action::Done, Action::After))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::fake::{FakeApi, settle};
    use serde_json::json;

    struct Bench {
        api: Arc<FakeApi>,
        controller: Arc<DisruptionController>,
    }

    fn bench(spec: Value, replicas: i32, ready: usize) -> Bench {
        let api = FakeApi::new();
        let (recorder, _) = Recorder::channel();
        let scales = Scales {
            deployments: Arc::default(),
            sets: Arc::default(),
            controllers: Arc::default(),
            stateful: Arc::default(),
        };
        let (budgets, pods) = (Arc::default(), Arc::default());
        let controller = DisruptionController::new(api.clone(), recorder, budgets, pods, scales);
        let mut full = json!({"selector": {"matchLabels": {"app": "web"}}});
        for (key, value) in spec.as_object().unwrap() {
            full[key] = value.clone();
        }
        api.seed::<PodDisruptionBudget>(json!({
            "metadata": {"name": "web", "namespace": "shop"}, "spec": full
        }));
        api.seed::<ReplicaSet>(json!({
            "metadata": {"name": "web", "namespace": "shop", "uid": "set"},
            "spec": {"replicas": replicas, "selector": {}}
        }));
        for number in 0..ready {
            api.seed::<Pod>(json!({
                "metadata": {
                    "name": format!("web-{number}"), "namespace": "shop", "labels": {"app": "web"},
                    "ownerReferences": [{
                        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web",
                        "uid": "set", "controller": true
                    }]
                },
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
            }));
        }
        Bench { api, controller }
    }

    impl Bench {
        async fn status(&self) -> PodDisruptionBudgetStatus {
            settle(&*self.controller, || {
                self.api.pump(&self.controller.scales.sets);
                self.api.pump(&self.controller.pods);
                self.api.pump(&self.controller.budgets);
            })
            .await;
            self.api.all::<PodDisruptionBudget>()[0]
                .status
                .clone()
                .unwrap()
        }
    }

    #[tokio::test]
    async fn what_may_go_follows_from_the_bound_and_the_healthy_pods() {
        for (spec, replicas, ready, allowed) in [
            (json!({"minAvailable": 2}), 3, 3, 1),
            (json!({"minAvailable": "50%"}), 5, 4, 1),
            (json!({"maxUnavailable": 1}), 3, 3, 1),
            (json!({"maxUnavailable": 1}), 4, 3, 0),
            (json!({"maxUnavailable": "30%"}), 10, 10, 3),
            (json!({"minAvailable": 0}), 0, 0, 0),
        ] {
            let status = bench(spec.clone(), replicas, ready).status().await;
            assert_eq!(status.disruptions_allowed, Some(allowed), "{spec}");
            let reason = if allowed > 0 {
                "SufficientPods"
            } else {
                "InsufficientPods"
            };
            assert_eq!(status.conditions.unwrap()[0].reason, reason);
        }
    }

    #[tokio::test]
    async fn a_granted_eviction_counts_until_its_pod_is_gone_or_it_is_overdue() {
        let bench = bench(json!({"minAvailable": 1}), 3, 3);
        let granted = |at: String| json!({"status": {"disruptedPods": {"web-0": at}}});
        let key = Key::new("shop", "web");
        let plural = "poddisruptionbudgets";
        bench
            .api
            .change(plural, &key, granted(Timestamp::now().to_string()));
        assert_eq!(bench.status().await.disruptions_allowed, Some(1));
        bench
            .api
            .change(plural, &key, granted("2020-01-01T00:00:00Z".into()));
        let status = bench.status().await;
        assert_eq!(
            (status.disruptions_allowed, status.disrupted_pods),
            (Some(2), None)
        );
    }

    #[tokio::test]
    async fn nothing_may_go_when_the_size_cannot_be_known() {
        let bench = bench(json!({"maxUnavailable": 1}), 3, 3);
        bench.api.change(
            "pods",
            &Key::new("shop", "web-0"),
            json!({"metadata": {
                "ownerReferences": [{
                    "apiVersion": "x/v1", "kind": "Odd", "name": "o", "uid": "o", "controller": true
                }]
            }}),
        );
        let status = bench.status().await;
        assert_eq!(status.disruptions_allowed, Some(0));
        assert_eq!(status.conditions.unwrap()[0].reason, "SyncFailed");
    }
}
