//! Creating and deleting a job's pods.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::future::join_all;
use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use serde_json::json;

use super::{
    JobController, Sync, TRACKING_FINALIZER, backoff,
    indexes::{self, INDEX},
    is_tracked, replaces_only_failed,
    tally::count,
};
use crate::{
    pod_control::{BURST, Failure, pod_from_template},
    runtime::WriteError,
};

/// Where an indexed pod's containers find their index.
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";

impl JobController {
    /// The job ends: its pods go, counted like any other.
    pub(super) async fn end(&self, sync: &Sync, may_act: bool) -> Result<(), Failure> {
        if !may_act {
            return Ok(());
        }
        self.control
            .change(&*sync.job, Vec::new(), &sync.active)
            .await
    }

    /// Brings the number of pods to what is wanted now. Also gives when to look again because of
    /// a back-off.
    pub(super) async fn manage(&self, sync: &Sync) -> (Result<(), Failure>, Option<Duration>) {
        if sync.is_suspended() {
            return (self.remove(sync, &sync.active).await, None);
        }
        let doomed = surplus(sync);
        if !doomed.is_empty() {
            return (self.remove(sync, &doomed).await, None);
        }
        let mut missing = usize::try_from(wanted(sync)).unwrap_or(0);
        missing = missing.saturating_sub(sync.active.len());
        if replaces_only_failed(&sync.spec) {
            missing = missing.saturating_sub(sync.terminating);
        }
        if missing == 0 {
            return (Ok(()), None);
        }
        let (pods, retry) = next_pods(sync, missing.min(BURST));
        (self.control.change(&*sync.job, pods, &[]).await, retry)
    }

    /// Deletes pods that are no longer wanted; they count neither way.
    async fn remove(&self, sync: &Sync, pods: &[Arc<Pod>]) -> Result<(), Failure> {
        let pods = &pods[..pods.len().min(BURST)];
        let let_go = join_all(pods.iter().map(|pod| self.release(pod))).await;
        if let Some(error) = let_go.into_iter().find_map(Result::err) {
            return Err(Failure {
                reason: "FailedDelete",
                error: error.into(),
            });
        }
        self.control.change(&*sync.job, Vec::new(), pods).await
    }

    /// Takes our finalizer away.
    pub(super) async fn release(&self, pod: &Pod) -> Result<(), WriteError> {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        self.removed.expect(uid);
        let outcome = without_finalizer(&*self.control.writer, pod).await;
        if outcome.is_err() || !is_tracked(pod) {
            self.removed.seen(uid);
        }
        outcome
    }
}

/// Takes the tracking finalizer from a pod; one that is gone has none.
pub(super) async fn without_finalizer(
    writer: &dyn crate::runtime::Writer,
    pod: &Pod,
) -> Result<(), WriteError> {
    if !is_tracked(pod) {
        return Ok(());
    }
    let mut finalizers = pod.metadata.finalizers.clone().unwrap_or_default();
    finalizers.retain(|own| own != TRACKING_FINALIZER);
    let patch = json!({"metadata": {
        "uid": pod.metadata.uid,
        "resourceVersion": pod.metadata.resource_version,
        "finalizers": finalizers,
    }});
    match writer.patch_object(pod, None, patch).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

/// How many pods should be active.
fn wanted(sync: &Sync) -> i32 {
    let parallelism = sync.spec.parallelism.unwrap_or(1);
    let succeeded = sync.tally.all_succeeded(&sync.spec);
    match sync.spec.completions {
        // Once one has succeeded no further ones are started.
        None if succeeded > 0 => parallelism.min(count(sync.active.len())),
        None => parallelism,
        Some(completions) => {
            let over = succeeded + count(sync.tally.failed_indexes.len());
            parallelism.min((completions - over).max(0))
        }
    }
}

/// Active pods to delete: those of indexes that need none, doubles, and what is beyond the wanted
/// number, the least useful first.
fn surplus(sync: &Sync) -> Vec<Arc<Pod>> {
    let mut doomed = Vec::new();
    let mut rest: Vec<Arc<Pod>> = sync.active.clone();
    if sync.is_indexed() {
        let completions = sync.spec.completions.unwrap_or(0);
        let mut taken: BTreeSet<i32> = &sync.tally.succeeded_indexes | &sync.tally.failed_indexes;
        rest.sort_by_key(|pod| (!crate::pods::is_ready(pod), created(pod)));
        rest.retain(|pod| {
            let wanted = indexes::of(pod, completions).is_some_and(|index| taken.insert(index));
            if !wanted {
                doomed.push(pod.clone());
            }
            wanted
        });
    }
    let excess = count(rest.len()) - wanted(sync);
    if excess > 0 {
        rest.sort_by_key(|pod| {
            let assigned = pod
                .spec
                .as_ref()
                .is_some_and(|spec| spec.node_name.is_some());
            let running = crate::pods::phase(pod) == "Running";
            // The highest indexes and the youngest go first.
            let index = indexes::of(pod, sync.spec.completions.unwrap_or(0)).unwrap_or(0);
            (
                assigned,
                running,
                crate::pods::is_ready(pod),
                -index,
                -created(pod),
            )
        });
        doomed.extend(rest.into_iter().take(usize::try_from(excess).unwrap_or(0)));
    }
    doomed
}

fn created(pod: &Pod) -> i64 {
    let created = pod.metadata.creation_timestamp.as_ref();
    created.map_or(0, |time| time.0.as_second())
}

/// Up to `count` pods to create now, and when there may be more.
fn next_pods(sync: &Sync, count: usize) -> (Vec<Pod>, Option<Duration>) {
    let pods: &[Arc<Pod>] = &sync.owned;
    if sync.spec.backoff_limit_per_index.is_none() || !sync.is_indexed() {
        let wait = backoff::remaining(pods, sync.now);
        if !wait.is_zero() {
            return (Vec::new(), Some(wait));
        }
    }
    if !sync.is_indexed() {
        return (vec![tracked(sync); count], None);
    }
    let completions = sync.spec.completions.unwrap_or(0);
    let busy: BTreeSet<i32> = pods
        .iter()
        .filter(|pod| {
            let waits = replaces_only_failed(&sync.spec) && !crate::pods::is_terminal(pod);
            crate::pods::is_active(pod) || waits
        })
        .filter_map(|pod| indexes::of(pod, completions))
        .collect();
    let tally = &sync.tally;
    let free = (0..completions).filter(|index| {
        !busy.contains(index)
            && !tally.succeeded_indexes.contains(index)
            && !tally.failed_indexes.contains(index)
    });
    let (mut next, mut retry): (Vec<Pod>, Option<Duration>) = (Vec::new(), None);
    for index in free {
        if next.len() >= count {
            break;
        }
        let failed = sync
            .spec
            .backoff_limit_per_index
            .and_then(|_| backoff::last_failed(pods, index, completions));
        let wait = failed.map_or(Duration::ZERO, |pod| {
            backoff::remaining_of_index(pod, sync.now)
        });
        if wait.is_zero() {
            next.push(indexed(sync, index, failed.map(|pod| &**pod)));
        } else {
            retry = Some(retry.map_or(wait, |retry| retry.min(wait)));
        }
    }
    (next, retry)
}

/// A pod of the template that carries our finalizer.
fn tracked(sync: &Sync) -> Pod {
    let mut pod = pod_from_template(&*sync.job, Some(&sync.spec.template));
    let finalizers = pod.metadata.finalizers.get_or_insert_default();
    finalizers.push(TRACKING_FINALIZER.into());
    pod
}

fn indexed(sync: &Sync, index: i32, last_failed: Option<&Pod>) -> Pod {
    let mut pod = tracked(sync);
    let job = sync.job.metadata.name.as_deref().unwrap_or_default();
    let meta = &mut pod.metadata;
    meta.generate_name = Some(format!("{job}-{index}-"));
    let labels = meta.labels.get_or_insert_default();
    labels.insert(INDEX.into(), index.to_string());
    let annotations = meta.annotations.get_or_insert_default();
    annotations.insert(INDEX.into(), index.to_string());
    if sync.spec.backoff_limit_per_index.is_some() {
        let failures = last_failed.map_or(0, |pod| backoff::index_failures(pod) + 1);
        annotations.insert(backoff::FAILURE_COUNT.into(), failures.to_string());
    }
    let Some(spec) = &mut pod.spec else {
        return pod;
    };
    spec.hostname = Some(format!("{job}-{index}"));
    let containers = spec.containers.iter_mut();
    for container in containers.chain(spec.init_containers.iter_mut().flatten()) {
        let variables = container.env.get_or_insert_default();
        if variables.iter().all(|own| own.name != INDEX_VARIABLE) {
            variables.push(index_variable());
        }
    }
    pod
}

fn index_variable() -> EnvVar {
    EnvVar {
        name: INDEX_VARIABLE.into(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: format!("metadata.annotations['{INDEX}']"),
                ..ObjectFieldSelector::default()
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
}
