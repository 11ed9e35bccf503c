//! What is said about the pods.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::{
        apps::v1::{ReplicaSetCondition, ReplicaSetStatus},
        core::v1::Pod,
    },
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use serde_json::json;

use super::{ReplicasController, Replicated};
use crate::{pod_control::Failure, pods, runtime::WriteError};

const REPLICA_FAILURE: &str = "ReplicaFailure";

fn count<'a>(pods: impl Iterator<Item = &'a Arc<Pod>>) -> i32 {
    i32::try_from(pods.count()).unwrap_or(i32::MAX)
}

fn conditions(
    old: Option<&Vec<ReplicaSetCondition>>,
    failure: Option<&Failure>,
    now: Timestamp,
) -> Option<Vec<ReplicaSetCondition>> {
    let mut conditions = old.cloned().unwrap_or_default();
    match failure {
        None => conditions.retain(|condition| condition.type_ != REPLICA_FAILURE),
        Some(failure) => {
            let known = conditions.iter().any(|condition| {
                condition.type_ == REPLICA_FAILURE
                    && condition.reason.as_deref() == Some(failure.reason)
            });
            if !known {
                conditions.retain(|condition| condition.type_ != REPLICA_FAILURE);
                conditions.push(ReplicaSetCondition {
                    type_: REPLICA_FAILURE.into(),
                    status: "True".into(),
                    reason: Some(failure.reason.into()),
                    message: Some(match &failure.error {
                        crate::runtime::ReconcileError::Write(error) => error.message(),
                        error => error.to_string(),
                    }),
                    last_transition_time: Some(Time(now)),
                });
            }
        }
    }
    (!conditions.is_empty()).then_some(conditions)
}

impl<S: Replicated> ReplicasController<S> {
    /// Writes the status if it differs. Gives when a ready pod becomes available.
    pub(super) async fn write_status(
        &self,
        set: &S,
        owned: &[Arc<Pod>],
        failure: Option<&Failure>,
        now: Timestamp,
    ) -> Result<Option<Duration>, WriteError> {
        let min_ready = set.min_ready_seconds();
        let template_labels = set
            .template()
            .and_then(|template| template.metadata.as_ref())
            .and_then(|meta| meta.labels.as_ref());
        let fully_labelled = owned.iter().filter(|pod| {
            template_labels.into_iter().flatten().all(|(key, value)| {
                pod.metadata
                    .labels
                    .as_ref()
                    .and_then(|labels| labels.get(key))
                    == Some(value)
            })
        });
        let waits: Vec<Duration> = owned
            .iter()
            .filter_map(|pod| pods::available_in(pod, min_ready, now))
            .collect();
        let available = waits.iter().filter(|wait| wait.is_zero()).count();
        let old = set.status();
        let status = ReplicaSetStatus {
            replicas: count(owned.iter()),
            fully_labeled_replicas: Some(count(fully_labelled)),
            ready_replicas: Some(count(owned.iter().filter(|pod| pods::is_ready(pod)))),
            available_replicas: Some(i32::try_from(available).unwrap_or(i32::MAX)),
            observed_generation: set.meta().generation,
            conditions: conditions(old.conditions.as_ref(), failure, now),
            terminating_replicas: old.terminating_replicas,
        };
        let same = |a: Option<i32>, b: Option<i32>| a.unwrap_or(0) == b.unwrap_or(0);
        let unchanged = old.replicas == status.replicas
            && same(old.fully_labeled_replicas, status.fully_labeled_replicas)
            && same(old.ready_replicas, status.ready_replicas)
            && same(old.available_replicas, status.available_replicas)
            && old.observed_generation == status.observed_generation
            && old.conditions.clone().unwrap_or_default()
                == status.conditions.clone().unwrap_or_default();
        if !unchanged {
            let patch = json!({
                "metadata": {"uid": set.meta().uid},
                "status": {
                    "replicas": status.replicas,
                    "fullyLabeledReplicas": status.fully_labeled_replicas,
                    "readyReplicas": status.ready_replicas,
                    "availableReplicas": status.available_replicas,
                    "observedGeneration": status.observed_generation,
                    "conditions": status.conditions,
                },
            });
            match self
                .control
                .writer
                .patch_object(set, Some("status"), patch)
                .await
            {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
        Ok(waits.into_iter().filter(|wait| !wait.is_zero()).min())
    }
}
