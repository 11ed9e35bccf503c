//! What a deployment notes on its sets, under Kubernetes' names.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};

use super::{bounds, wanted};

/// Number of the rollout; `kubectl rollout history` shows it.
pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
/// Earlier numbers of a set that became the new one again.
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// The deployment's size when the set was last scaled.
pub(super) const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// That plus maxSurge.
pub(super) const MAX: &str = "deployment.kubernetes.io/max-replicas";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const ROLLBACK: &str = "deprecated.deployment.rollback.to";

/// Most bytes of the revision history.
const REVISION_HISTORY_LIMIT: usize = 2000;

fn number(annotations: Option<&BTreeMap<String, String>>, name: &str) -> Option<i64> {
    annotations?.get(name)?.parse().ok()
}

/// The set's revision; 0 if it has none.
pub(super) fn revision(set: &ReplicaSet) -> i64 {
    number(set.metadata.annotations.as_ref(), REVISION).unwrap_or(0)
}

/// The deployment's size noted on the set.
pub(super) fn desired(set: &ReplicaSet) -> Option<i32> {
    let noted = number(set.metadata.annotations.as_ref(), DESIRED)?;
    i32::try_from(noted).ok()
}

/// The deployment's largest size noted on the set.
pub(super) fn max(set: &ReplicaSet) -> Option<i32> {
    i32::try_from(number(set.metadata.annotations.as_ref(), MAX)?).ok()
}

/// The sizes to note.
pub(super) fn sizes(deployment: &Deployment) -> [(&'static str, String); 2] {
    let wanted = wanted(deployment);
    [
        (DESIRED, wanted.to_string()),
        (MAX, (wanted + bounds(deployment).surge).to_string()),
    ]
}

/// The new set's annotations: the deployment's own (but for those about the deployment object),
/// and the revision.
pub(super) fn of_new_set(
    deployment: &Deployment,
    existing: Option<&BTreeMap<String, String>>,
    revision: i64,
) -> BTreeMap<String, String> {
    const NOT_COPIED: [&str; 6] = [
        LAST_APPLIED,
        REVISION,
        REVISION_HISTORY,
        DESIRED,
        MAX,
        ROLLBACK,
    ];
    let mut annotations = existing.cloned().unwrap_or_default();
    for (name, value) in deployment.metadata.annotations.iter().flatten() {
        if !NOT_COPIED.contains(&name.as_str()) {
            annotations.insert(name.clone(), value.clone());
        }
    }
    let old = number(existing, REVISION);
    if old.is_none_or(|old| old < revision) {
        annotations.insert(REVISION.into(), revision.to_string());
        if let Some(old) = old.filter(|old| *old > 0) {
            let history = annotations.entry(REVISION_HISTORY.into()).or_default();
            if !history.is_empty() {
                history.push(',');
            }
            history.push_str(&old.to_string());
            while history.len() > REVISION_HISTORY_LIMIT
                && let Some(comma) = history.find(',')
            {
                history.drain(..=comma);
            }
        }
    }
    annotations
}
