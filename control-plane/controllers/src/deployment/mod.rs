//! Deployments: a template rolled out over ReplicaSets, one per version of the template.
//!
//! ```text
//! reconcile: claim sets ─► paused or scaled? ─► scale            (keeps proportions)
//!                       └► strategy: rolling  ─► new up, old down within maxSurge/maxUnavailable
//!                                    recreate ─► old to 0, wait for their pods, new up
//!                       └► clean up old revisions ─► status and conditions
//! ```
//!
//! The set whose template equals the deployment's is the *new* one; all others are *old*. A
//! rollback is nothing special: the deployment gets an old template again, whose set becomes the
//! new one with the next revision number.

mod annotations;
mod new_set;
mod proportions;
mod rollout;
mod scale;
mod status;
pub(crate) mod template_hash;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use hull_client::events::{EventType, Recorder, reference};
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet},
        core::v1::Pod,
    },
    apimachinery::pkg::util::intstr::IntOrString,
};

use crate::{
    adopt::{self, parse_selector},
    int_or_percent::resolve,
    owner,
    runtime::{Action, Controller, Delta, Informer, Key, ReconcileError, WorkQueue, Writer},
};

/// Kubernetes' default of maxSurge and maxUnavailable.
const DEFAULT_BOUND: &str = "25%";

/// See the module.
pub struct DeploymentController {
    writer: Arc<dyn Writer>,
    recorder: Recorder,
    deployments: Arc<Informer<Deployment>>,
    sets: Arc<Informer<ReplicaSet>>,
    pods: Arc<Informer<Pod>>,
    queue: Arc<WorkQueue>,
}

/// A deployment's sets.
#[derive(Debug, Clone)]
pub(crate) struct Sets {
    /// That of the current template.
    pub new: Option<Arc<ReplicaSet>>,
    /// All others, oldest first.
    pub old: Vec<Arc<ReplicaSet>>,
}

impl Sets {
    /// All, the new one last.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<ReplicaSet>> {
        self.old.iter().chain(&self.new)
    }
}

impl DeploymentController {
    /// Connects the controller to its informers.
    pub fn new(
        writer: Arc<dyn Writer>,
        recorder: Recorder,
        deployments: Arc<Informer<Deployment>>,
        sets: Arc<Informer<ReplicaSet>>,
        pods: Arc<Informer<Pod>>,
    ) -> Arc<Self> {
        let queue = Arc::new(WorkQueue::default());
        owner::follow_owners(&deployments, &queue, None);
        owner::follow(&deployments, &sets, &queue, None);
        pods.on_change({
            let (deployments, sets, queue) = (deployments.clone(), sets.clone(), queue.clone());
            // A Recreate rollout waits for the last old pod to go.
            move |delta| {
                let Delta::Deleted(pod) = delta else { return };
                let set = owner::owner_of(&sets, &***pod);
                if let Some(deployment) = set.and_then(|set| owner::owner_of(&deployments, &*set))
                    && is_recreate(&deployment)
                {
                    queue.add(Key::of(&*deployment));
                }
            }
        });
        Arc::new(DeploymentController {
            writer,
            recorder,
            deployments,
            sets,
            pods,
            queue,
        })
    }

    /// Whether pods of old sets still run, also while they terminate.
    fn old_pods_run(&self, sets: &Sets) -> bool {
        sets.old.iter().any(|set| {
            let uid = set.metadata.uid.as_deref().unwrap_or_default();
            self.pods
                .controlled_by(uid)
                .iter()
                .any(|pod| !crate::pods::is_terminal(pod))
        })
    }
}

/// `spec.replicas`.
pub(crate) fn wanted(deployment: &Deployment) -> i32 {
    deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(1)
}

/// `spec.replicas` of a set.
pub(crate) fn size(set: &ReplicaSet) -> i32 {
    set.spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(1)
}

fn is_recreate(deployment: &Deployment) -> bool {
    let strategy = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.strategy.as_ref());
    strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate")
}

/// How far a rolling update may go above and below the wanted size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Pods above.
    pub surge: i32,
    /// Pods below.
    pub unavailable: i32,
}

/// The strategy's bounds. Both 0 would make no progress: then one pod may be unavailable.
pub(crate) fn bounds(deployment: &Deployment) -> Bounds {
    if is_recreate(deployment) {
        return Bounds {
            surge: 0,
            unavailable: 0,
        };
    }
    let strategy = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.strategy.as_ref());
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let total = wanted(deployment);
    let default = IntOrString::String(DEFAULT_BOUND.into());
    let surge = rolling.and_then(|rolling| rolling.max_surge.as_ref());
    let surge = resolve(surge.unwrap_or(&default), total, true);
    let unavailable = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
    let unavailable = resolve(unavailable.unwrap_or(&default), total, false);
    if surge == 0 && unavailable == 0 {
        return Bounds {
            surge,
            unavailable: 1,
        };
    }
    Bounds {
        surge,
        unavailable: unavailable.min(total),
    }
}

#[async_trait::async_trait]
impl Controller for DeploymentController {
    fn name(&self) -> &'static str {
        "deployment"
    }

    fn queue(&self) -> &Arc<WorkQueue> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<Action, ReconcileError> {
        let Some(mut deployment) = self.deployments.get(key) else {
            return Ok(Action::Done);
        };
        let Some(spec) = deployment.spec.clone() else {
            return Ok(Action::Done);
        };
        if spec.selector == Default::default() {
            self.recorder.event(
                reference(&*deployment),
                EventType::Warning,
                "SelectingAll",
                "This deployment is selecting all pods. A non-empty selector is required.",
            );
            return Ok(Action::Done);
        }
        let selector = parse_selector(&spec.selector, &format!("deployment {key}"))?;
        let claimed = adopt::claim(&*self.writer, &*deployment, &selector, &self.sets).await?;
        let mut sets = new_set::sort(&deployment, claimed);
        if deployment.metadata.deletion_timestamp.is_some() {
            return self.write_status(&deployment, &sets).await;
        }
        if let Some(changed) = self.note_pausing(&deployment).await? {
            deployment = changed;
        }
        if spec.paused == Some(true) || scale::was_scaled(&deployment, &sets) {
            self.scale(&deployment, &mut sets).await?;
            if spec.paused == Some(true) {
                self.clean_up(&deployment, &sets).await?;
            }
            return self.write_status(&deployment, &sets).await;
        }
        if is_recreate(&deployment) {
            self.recreate(&mut deployment, sets).await
        } else {
            self.roll(&mut deployment, sets).await
        }
    }
}

/// The newest of each of a deployment's sets, after some were written.
pub(crate) fn replace_set(sets: &mut Sets, changed: Arc<ReplicaSet>) {
    let uid = changed.metadata.uid.clone();
    for set in sets.old.iter_mut().chain(&mut sets.new) {
        if set.metadata.uid == uid {
            *set = changed.clone();
        }
    }
}

/// The sum over sets.
pub(crate) fn sum<'a>(
    sets: impl Iterator<Item = &'a Arc<ReplicaSet>>,
    of: impl Fn(&ReplicaSet) -> i32,
) -> i32 {
    sets.map(|set| of(set)).sum()
}

/// A count of the set's status.
pub(crate) fn available(set: &ReplicaSet) -> i32 {
    set.status
        .as_ref()
        .and_then(|status| status.available_replicas)
        .unwrap_or(0)
}
