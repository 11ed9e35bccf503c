//! The two strategies.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};

use super::{
    DeploymentController, Sets, available, bounds, proportions::new_set_size, size, status, sum,
    wanted,
};
use crate::runtime::{Action, ReconcileError};

/// The set's status is about its present spec.
fn is_observed(set: &ReplicaSet) -> bool {
    let status = set.status.as_ref();
    let observed = status.and_then(|status| status.observed_generation);
    observed.unwrap_or(0) >= set.metadata.generation.unwrap_or(0)
}

/// Available pods that stay: a set that was told to shrink has not deleted its surplus yet.
fn lasting(set: &ReplicaSet) -> i32 {
    available(set).min(size(set))
}

impl DeploymentController {
    /// Old sets to 0; when their pods are gone, the new one to the full size.
    pub(super) async fn recreate(
        &self,
        deployment: &mut Arc<Deployment>,
        mut sets: Sets,
    ) -> Result<Action, ReconcileError> {
        let mut scaled = false;
        for old in sets.old.clone() {
            if size(&old) > 0 {
                scaled |= self.resize(deployment, &mut sets, &old, 0).await?;
            }
        }
        if scaled || self.old_pods_run(&sets) {
            return self.write_status(deployment, &sets).await;
        }
        self.ensure_new_set(deployment, &mut sets).await?;
        if let Some(new) = sets.new.clone() {
            self.resize(deployment, &mut sets, &new, wanted(deployment))
                .await?;
        }
        self.finish(deployment, &sets).await
    }

    /// One step up or down at a time, within the bounds.
    pub(super) async fn roll(
        &self,
        deployment: &mut Arc<Deployment>,
        mut sets: Sets,
    ) -> Result<Action, ReconcileError> {
        self.ensure_new_set(deployment, &mut sets).await?;
        if self.grow_new(deployment, &mut sets).await? {
            return self.write_status(deployment, &sets).await;
        }
        if self.shrink_old(deployment, &mut sets).await? {
            return self.write_status(deployment, &sets).await;
        }
        self.finish(deployment, &sets).await
    }

    async fn finish(
        &self,
        deployment: &Arc<Deployment>,
        sets: &Sets,
    ) -> Result<Action, ReconcileError> {
        if status::is_complete(deployment, &status::calculate(deployment, sets)) {
            self.clean_up(deployment, sets).await?;
        }
        self.write_status(deployment, sets).await
    }

    async fn grow_new(
        &self,
        deployment: &Deployment,
        sets: &mut Sets,
    ) -> Result<bool, ReconcileError> {
        let Some(new) = sets.new.clone() else {
            return Ok(false);
        };
        let own = size(&new);
        let target = if own > wanted(deployment) {
            wanted(deployment)
        } else {
            new_set_size(deployment, own, sum(sets.all(), size))
        };
        self.resize(deployment, sets, &new, target).await
    }

    async fn shrink_old(
        &self,
        deployment: &Deployment,
        sets: &mut Sets,
    ) -> Result<bool, ReconcileError> {
        // A status from before the last resize counts pods that are about to go.
        if sum(sets.old.iter(), size) == 0 || !sets.all().all(|set| is_observed(set)) {
            return Ok(false);
        }
        let min_available = wanted(deployment) - bounds(deployment).unavailable;
        let new_unavailable = sets
            .new
            .as_ref()
            .map_or(0, |new| size(new) - available(new));
        let most = sum(sets.all(), size) - min_available - new_unavailable;
        if most <= 0 {
            return Ok(false);
        }
        let mut changed = false;
        // Pods that serve nobody go first, whatever is available elsewhere.
        let mut left = most;
        for old in sets.old.clone() {
            let unhealthy = (size(&old) - available(&old)).min(left).max(0);
            if unhealthy > 0 {
                left -= unhealthy;
                changed |= self
                    .resize(deployment, sets, &old, size(&old) - unhealthy)
                    .await?;
            }
        }
        let mut left = sum(sets.all(), lasting) - min_available;
        for old in sets.old.clone() {
            let step = size(&old).min(left);
            if step > 0 {
                left -= step;
                changed |= self
                    .resize(deployment, sets, &old, size(&old) - step)
                    .await?;
            }
        }
        Ok(changed)
    }
}
