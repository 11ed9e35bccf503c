//! How long a job waits before it replaces a pod that failed.

use std::{cmp::Reverse, sync::Arc, time::Duration};

use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};

use super::indexes;
use crate::pods::{condition, phase};

/// Wait after the first failure; doubles with each further one.
const INITIAL_BACKOFF: Duration = Duration::from_secs(10);
/// Longest such wait.
const MAX_BACKOFF: Duration = Duration::from_secs(600);
/// How often the index failed before this pod.
pub(crate) const FAILURE_COUNT: &str = "batch.kubernetes.io/job-index-failure-count";

/// How often the pod's index had failed before it.
pub(crate) fn index_failures(pod: &Pod) -> i32 {
    let annotations = pod.metadata.annotations.as_ref();
    annotations
        .and_then(|annotations| annotations.get(FAILURE_COUNT)?.parse().ok())
        .unwrap_or(0)
}

/// When the pod ended, as well as its status says.
pub(crate) fn finished_at(pod: &Pod) -> Option<Timestamp> {
    let status = pod.status.as_ref();
    let containers = status.and_then(|status| status.container_statuses.as_ref());
    let last = containers
        .into_iter()
        .flatten()
        .filter_map(|container| {
            let ended = container.state.as_ref()?.terminated.as_ref()?;
            Some(ended.finished_at.as_ref()?.0)
        })
        .max();
    let not_ready = || condition(pod, "Ready")?.last_transition_time.clone();
    let other = || not_ready().or_else(|| pod.metadata.deletion_timestamp.clone());
    last.or_else(|| other().map(|time| time.0))
        .or_else(|| pod.metadata.creation_timestamp.as_ref().map(|time| time.0))
}

fn wait(failures: usize, last: Timestamp, now: Timestamp) -> Duration {
    let doublings = u32::try_from(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    let whole = INITIAL_BACKOFF
        .saturating_mul(1 << doublings.min(16))
        .min(MAX_BACKOFF);
    let passed = Duration::try_from(now.duration_since(last)).unwrap_or(Duration::ZERO);
    whole.saturating_sub(passed)
}

/// What is left of the wait of the whole job: by the failures since the last success.
pub(super) fn remaining(pods: &[Arc<Pod>], now: Timestamp) -> Duration {
    let ended = |wanted: &'static str| {
        pods.iter()
            .filter(move |pod| phase(pod) == wanted)
            .filter_map(|pod| finished_at(pod))
    };
    let success = ended("Succeeded").max();
    let failures: Vec<Timestamp> = ended("Failed")
        .filter(|at| success.is_none_or(|success| *at > success))
        .collect();
    match failures.iter().max() {
        Some(last) => wait(failures.len(), *last, now),
        None => Duration::ZERO,
    }
}

/// The newest failed pod of an index.
pub(super) fn last_failed(pods: &[Arc<Pod>], index: i32, completions: i32) -> Option<&Arc<Pod>> {
    pods.iter()
        .filter(|pod| {
            let leaving = pod.metadata.deletion_timestamp.is_some();
            let failed = phase(pod) == "Failed" || (leaving && phase(pod) != "Succeeded");
            failed && indexes::of(pod, completions) == Some(index)
        })
        .min_by_key(|pod| Reverse((index_failures(pod), finished_at(pod))))
}

/// What is left of the wait of one index, after its last failed pod.
pub(super) fn remaining_of_index(last_failed: &Pod, now: Timestamp) -> Duration {
    let failures = usize::try_from(index_failures(last_failed)).unwrap_or(0) + 1;
    finished_at(last_failed).map_or(Duration::ZERO, |at| wait(failures, at, now))
}
