//! What is said about a rollout.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use serde_json::json;

use super::{DeploymentController, Sets, available, bounds, new_set::parse, sum, wanted};
use crate::runtime::{Action, ReconcileError};

const PROGRESSING: &str = "Progressing";
const AVAILABLE: &str = "Available";
const REPLICA_FAILURE: &str = "ReplicaFailure";
const NEW_SET_AVAILABLE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";

/// A state of the condition Progressing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Progress {
    status: &'static str,
    reason: &'static str,
    message: String,
}

impl Progress {
    pub(super) fn created(set: &str) -> Self {
        let message = format!("Created new replica set {set:?}");
        Progress {
            status: "True",
            reason: "NewReplicaSetCreated",
            message,
        }
    }

    pub(super) fn found(set: &str) -> Self {
        let message = format!("Found new replica set {set:?}");
        Progress {
            status: "True",
            reason: "FoundNewReplicaSet",
            message,
        }
    }

    pub(super) fn create_failed(set: &str, error: &str) -> Self {
        let message = format!("Failed to create new replica set {set:?}: {error}");
        Progress {
            status: "False",
            reason: "ReplicaSetCreateError",
            message,
        }
    }

    fn condition(self, now: Timestamp) -> DeploymentCondition {
        condition(PROGRESSING, self.status, self.reason, &self.message, now)
    }
}

fn condition(
    kind: &str,
    status: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> DeploymentCondition {
    DeploymentCondition {
        type_: kind.into(),
        status: status.into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

/// Sets a condition; one with the same status keeps its transition time, one with the same
/// reason too is left alone unless `refresh`.
fn set(conditions: &mut Vec<DeploymentCondition>, mut new: DeploymentCondition, refresh: bool) {
    if let Some(old) = conditions.iter().find(|old| old.type_ == new.type_) {
        if old.status == new.status && old.reason == new.reason && !refresh {
            return;
        }
        if old.status == new.status {
            new.last_transition_time = old.last_transition_time.clone();
        }
    }
    conditions.retain(|old| old.type_ != new.type_);
    conditions.push(new);
}

/// The condition Progressing.
pub(super) fn progressing(deployment: &Deployment) -> Option<&DeploymentCondition> {
    let conditions = deployment.status.as_ref()?.conditions.as_ref()?;
    conditions
        .iter()
        .find(|condition| condition.type_ == PROGRESSING)
}

/// `spec.progressDeadlineSeconds`; the largest number means none.
fn deadline(deployment: &Deployment) -> Option<Duration> {
    let seconds = deployment.spec.as_ref()?.progress_deadline_seconds?;
    (seconds != i32::MAX).then(|| Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

/// Counts and the condition Available, from the sets.
pub(super) fn calculate(deployment: &Deployment, sets: &Sets) -> DeploymentStatus {
    let old = deployment.status.clone().unwrap_or_default();
    let count = |of: fn(&k8s_openapi::api::apps::v1::ReplicaSetStatus) -> i32| {
        sum(sets.all(), |set| set.status.as_ref().map_or(0, of))
    };
    let total_spec = sum(sets.all(), super::size);
    let total_available = sum(sets.all(), available);
    let mut conditions = old.conditions.unwrap_or_default();
    let now = Timestamp::now();
    let enough = total_available >= wanted(deployment) - bounds(deployment).unavailable;
    let available_condition = if enough {
        condition(
            AVAILABLE,
            "True",
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.",
            now,
        )
    } else {
        condition(
            AVAILABLE,
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
            now,
        )
    };
    set(&mut conditions, available_condition, false);
    DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: Some(count(|status| status.replicas)),
        updated_replicas: Some(
            sets.new
                .as_ref()
                .and_then(|new| new.status.as_ref())
                .map_or(0, |s| s.replicas),
        ),
        ready_replicas: Some(count(|status| status.ready_replicas.unwrap_or(0))),
        available_replicas: Some(total_available),
        unavailable_replicas: Some((total_spec - total_available).max(0)),
        collision_count: old.collision_count,
        conditions: Some(conditions),
        terminating_replicas: old.terminating_replicas,
    }
}

/// All pods are of the new set and available.
pub(super) fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = Some(wanted(deployment));
    status.updated_replicas == wanted
        && status.replicas == wanted
        && status.available_replicas == wanted
        && status.observed_generation >= deployment.metadata.generation
}

/// Something moved forward since the last status.
fn is_progressing(deployment: &Deployment, new: &DeploymentStatus) -> bool {
    let old = deployment.status.clone().unwrap_or_default();
    let value = |number: Option<i32>| number.unwrap_or(0);
    let old_pods =
        |status: &DeploymentStatus| value(status.replicas) - value(status.updated_replicas);
    value(new.updated_replicas) > value(old.updated_replicas)
        || old_pods(new) < old_pods(&old)
        || value(new.ready_replicas) > value(old.ready_replicas)
        || value(new.available_replicas) > value(old.available_replicas)
}

/// When the rollout exceeds its deadline, if it stands still until then.
fn times_out_in(deployment: &Deployment, now: Timestamp) -> Option<Duration> {
    let deadline = deadline(deployment)?;
    let current = progressing(deployment)?;
    if matches!(
        current.reason.as_deref(),
        Some(NEW_SET_AVAILABLE | TIMED_OUT | PAUSED)
    ) {
        return None;
    }
    let since = current.last_update_time.as_ref()?.0;
    let waited = Duration::try_from(now.duration_since(since)).unwrap_or(Duration::ZERO);
    Some(deadline.saturating_sub(waited))
}

fn progress(deployment: &Deployment, sets: &Sets, status: &mut DeploymentStatus) {
    let mut conditions = status.conditions.take().unwrap_or_default();
    let current = progressing(deployment).cloned();
    let reason = current.as_ref().and_then(|current| current.reason.clone());
    let was_complete =
        status.replicas == status.updated_replicas && reason.as_deref() == Some(NEW_SET_AVAILABLE);
    if deadline(deployment).is_none() {
        conditions.retain(|condition| condition.type_ != PROGRESSING);
    } else if !was_complete {
        let name = sets.new.as_ref().and_then(|new| new.metadata.name.clone());
        let subject = match name {
            Some(name) => format!("ReplicaSet {name:?}"),
            None => format!(
                "Deployment {:?}",
                deployment.metadata.name.as_deref().unwrap_or("")
            ),
        };
        let now = Timestamp::now();
        if is_complete(deployment, status) {
            let message = format!("{subject} has successfully progressed.");
            set(
                &mut conditions,
                condition(PROGRESSING, "True", NEW_SET_AVAILABLE, &message, now),
                false,
            );
        } else if is_progressing(deployment, status) {
            let message = format!("{subject} is progressing.");
            set(
                &mut conditions,
                condition(PROGRESSING, "True", "ReplicaSetUpdated", &message, now),
                true,
            );
        } else if times_out_in(deployment, now).is_some_and(|left| left.is_zero()) {
            let message = format!("{subject} has timed out progressing.");
            set(
                &mut conditions,
                condition(PROGRESSING, "False", TIMED_OUT, &message, now),
                false,
            );
        }
    }
    conditions.retain(|condition| condition.type_ != REPLICA_FAILURE);
    let failure = sets.new.iter().chain(&sets.old).find_map(|set| {
        let conditions = set.status.as_ref()?.conditions.as_ref()?;
        conditions
            .iter()
            .find(|condition| condition.type_ == REPLICA_FAILURE)
            .cloned()
    });
    if let Some(failure) = failure {
        conditions.push(DeploymentCondition {
            type_: REPLICA_FAILURE.into(),
            status: failure.status,
            reason: failure.reason,
            message: failure.message,
            last_update_time: failure.last_transition_time.clone(),
            last_transition_time: failure.last_transition_time,
        });
    }
    status.conditions = Some(conditions);
}

fn normal(status: &DeploymentStatus) -> DeploymentStatus {
    let zero = |number: Option<i32>| Some(number.unwrap_or(0));
    let mut conditions = status.conditions.clone().unwrap_or_default();
    conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
    DeploymentStatus {
        replicas: zero(status.replicas),
        updated_replicas: zero(status.updated_replicas),
        ready_replicas: zero(status.ready_replicas),
        available_replicas: zero(status.available_replicas),
        unavailable_replicas: zero(status.unavailable_replicas),
        conditions: Some(conditions),
        ..status.clone()
    }
}

impl DeploymentController {
    /// Writes the status if it differs; says when to look again for the deadline.
    pub(super) async fn write_status(
        &self,
        deployment: &Arc<Deployment>,
        sets: &Sets,
    ) -> Result<Action, ReconcileError> {
        let mut status = calculate(deployment, sets);
        progress(deployment, sets, &mut status);
        let old = deployment.status.clone().unwrap_or_default();
        let mut current = deployment.clone();
        if normal(&old) != normal(&status) {
            let patch = json!({
                "metadata": {"uid": deployment.metadata.uid},
                "status": normal(&status),
            });
            let patched = self
                .writer
                .patch_object(&**deployment, Some("status"), patch)
                .await?;
            current = Arc::new(parse(&patched, "deployment")?);
        }
        if is_complete(&current, &status) {
            return Ok(Action::Done);
        }
        // A second later, so that the deadline is over by then.
        Ok(
            times_out_in(&current, Timestamp::now()).map_or(Action::Done, |left| {
                Action::After(left + Duration::from_secs(1))
            }),
        )
    }

    /// Sets the condition Progressing, if the deployment has a deadline.
    pub(super) async fn write_progress(
        &self,
        deployment: &mut Arc<Deployment>,
        progress: Progress,
    ) -> Result<(), ReconcileError> {
        if deadline(deployment).is_none() {
            return Ok(());
        }
        let status = deployment.status.as_ref();
        let mut conditions = status
            .and_then(|s| s.conditions.clone())
            .unwrap_or_default();
        let before = conditions.clone();
        set(&mut conditions, progress.condition(Timestamp::now()), false);
        if conditions == before {
            return Ok(());
        }
        let patch = json!({"status": {"conditions": conditions}});
        let patched = self
            .writer
            .patch_object(&**deployment, Some("status"), patch)
            .await?;
        *deployment = Arc::new(parse(&patched, "deployment")?);
        Ok(())
    }

    /// A pause stops the deadline's clock, and the resumption starts it anew.
    pub(super) async fn note_pausing(
        &self,
        deployment: &Arc<Deployment>,
    ) -> Result<Option<Arc<Deployment>>, ReconcileError> {
        let current = progressing(deployment);
        let reason = current.and_then(|current| current.reason.as_deref());
        if reason == Some(TIMED_OUT) {
            return Ok(None);
        }
        let paused = deployment.spec.as_ref().and_then(|spec| spec.paused) == Some(true);
        let was_paused = reason == Some(PAUSED);
        let (reason, message) = match (paused, was_paused) {
            (true, false) => (PAUSED, "Deployment is paused"),
            (false, true) => ("DeploymentResumed", "Deployment is resumed"),
            _ => return Ok(None),
        };
        let mut changed = deployment.clone();
        let progress = Progress {
            status: "Unknown",
            reason,
            message: message.into(),
        };
        self.write_progress(&mut changed, progress).await?;
        Ok(Some(changed))
    }
}
