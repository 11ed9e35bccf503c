//! Setting the sizes of sets.

use std::sync::Arc;

use hull_client::events::{EventType, reference};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use kube::api::{DeleteParams, PropagationPolicy};
use serde_json::json;

use super::{
    DeploymentController, Sets, annotations, available, is_recreate, proportions, replace_set,
    size, wanted,
};
use crate::runtime::ReconcileError;

/// Sets kept for rollbacks when the deployment does not say.
const DEFAULT_HISTORY_LIMIT: i32 = 10;

/// Whether the deployment's size changed since its active sets were last scaled.
pub(super) fn was_scaled(deployment: &Deployment, sets: &Sets) -> bool {
    sets.all()
        .filter(|set| size(set) > 0)
        .any(|set| annotations::desired(set).is_some_and(|noted| noted != wanted(deployment)))
}

/// The new set is all that is wanted, and available.
fn is_saturated(deployment: &Deployment, set: &ReplicaSet) -> bool {
    let wanted = wanted(deployment);
    size(set) == wanted && annotations::desired(set) == Some(wanted) && available(set) == wanted
}

impl DeploymentController {
    /// Follows a change of `spec.replicas` without touching the template.
    pub(super) async fn scale(
        &self,
        deployment: &Arc<Deployment>,
        sets: &mut Sets,
    ) -> Result<(), ReconcileError> {
        let active: Vec<_> = sets.all().filter(|set| size(set) > 0).cloned().collect();
        if active.len() <= 1 {
            let newest = sets
                .old
                .iter()
                .max_by_key(|set| annotations::revision(set))
                .cloned();
            let single = active
                .into_iter()
                .next()
                .or_else(|| sets.new.clone())
                .or(newest);
            if let Some(set) = single {
                self.resize(deployment, sets, &set, wanted(deployment))
                    .await?;
            }
            return Ok(());
        }
        if sets
            .new
            .as_ref()
            .is_some_and(|new| is_saturated(deployment, new))
        {
            for old in sets.old.clone() {
                if size(&old) > 0 {
                    self.resize(deployment, sets, &old, 0).await?;
                }
            }
            return Ok(());
        }
        if is_recreate(deployment) {
            return Ok(());
        }
        for (set, new_size) in proportions::proportional(deployment, &active) {
            self.resize(deployment, sets, &set, new_size).await?;
        }
        Ok(())
    }

    /// Sets a size, and notes the deployment's own. True when the size changed.
    pub(super) async fn resize(
        &self,
        deployment: &Deployment,
        sets: &mut Sets,
        set: &Arc<ReplicaSet>,
        new_size: i32,
    ) -> Result<bool, ReconcileError> {
        let old_size = size(set);
        let notes = annotations::sizes(deployment);
        let noted = notes.iter().all(|(name, value)| {
            set.metadata
                .annotations
                .as_ref()
                .and_then(|own| own.get(*name))
                == Some(value)
        });
        if old_size == new_size && noted {
            return Ok(false);
        }
        let [(desired, wanted), (max, limit)] = notes;
        let patch = json!({
            "metadata": {"annotations": {desired: wanted, max: limit}},
            "spec": {"replicas": new_size},
        });
        let patched = self.patch_set(set, patch).await?;
        let name = set.metadata.name.clone().unwrap_or_default();
        replace_set(sets, patched);
        if old_size != new_size {
            self.note_scaling(deployment, &name, old_size, new_size);
        }
        Ok(old_size != new_size)
    }

    pub(super) fn note_scaling(&self, deployment: &Deployment, set: &str, from: i32, to: i32) {
        let direction = if to > from { "up" } else { "down" };
        self.recorder.event(
            reference(deployment),
            EventType::Normal,
            "ScalingReplicaSet",
            format!("Scaled {direction} replica set {set} from {from} to {to}"),
        );
    }

    /// Deletes the oldest empty sets beyond the history limit.
    pub(super) async fn clean_up(
        &self,
        deployment: &Deployment,
        sets: &Sets,
    ) -> Result<(), ReconcileError> {
        let limit = deployment
            .spec
            .as_ref()
            .and_then(|spec| spec.revision_history_limit);
        let limit = usize::try_from(limit.unwrap_or(DEFAULT_HISTORY_LIMIT)).unwrap_or(0);
        let mut candidates: Vec<_> = sets
            .old
            .iter()
            .filter(|set| set.metadata.deletion_timestamp.is_none())
            .collect();
        let excess = candidates.len().saturating_sub(limit);
        candidates.sort_by_key(|set| annotations::revision(set));
        for set in candidates.into_iter().take(excess) {
            let status = set.status.as_ref();
            let observed = status
                .and_then(|status| status.observed_generation)
                .unwrap_or(0);
            let empty = size(set) == 0
                && status.is_none_or(|status| status.replicas == 0)
                && observed >= set.metadata.generation.unwrap_or(0);
            if !empty {
                continue;
            }
            let options = DeleteParams {
                propagation_policy: Some(PropagationPolicy::Background),
                ..DeleteParams::default()
            };
            match self.writer.delete_object(&**set, options).await {
                Err(error) if !error.is_not_found() && !error.is_conflict() => {
                    return Err(error.into());
                }
                _ => {}
            }
        }
        Ok(())
    }
}
