//! ReplicaSets and ReplicationControllers: as many pods of a template as wanted.
//!
//! * Pods belong by owner reference; matching orphans are adopted, pods whose labels no longer
//!   match are released ([`crate::adopt`]).
//! * Creation starts slowly (1, 2, 4 ... at a time), so a template that the API server refuses
//!   costs one request a round ([`crate::pod_control`]). Deletion takes the least useful pods
//!   first ([`rank`]).
//! * Expectations hold the next round back until the informer shows what this one wrote.

mod rank;
mod replicated;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use hull_client::events::Recorder;
use k8s_openapi::{
    api::{
        apps::v1::ReplicaSet,
        core::v1::{Pod, ReplicationController},
    },
    jiff::Timestamp,
};

pub use replicated::Replicated;

use crate::{
    adopt::{self, parse_selector},
    owner,
    pod_control::{BURST, Failure, PodControl, pod_from_template},
    pods,
    runtime::{Action, Controller, Informer, Key, ReconcileError, WorkQueue, Writer},
};

/// See the module.
pub struct ReplicasController<S> {
    control: PodControl,
    sets: Arc<Informer<S>>,
    pods: Arc<Informer<Pod>>,
    queue: Arc<WorkQueue>,
}

/// For ReplicaSets.
pub type ReplicaSetController = ReplicasController<ReplicaSet>;
/// For ReplicationControllers.
pub type ReplicationControllerController = ReplicasController<ReplicationController>;

impl<S: Replicated> ReplicasController<S> {
    /// Connects the controller to its informers.
    pub fn new(
        writer: Arc<dyn Writer>,
        recorder: Recorder,
        sets: Arc<Informer<S>>,
        pods: Arc<Informer<Pod>>,
    ) -> Arc<Self> {
        let queue = Arc::new(WorkQueue::default());
        let control = PodControl::new(writer, recorder);
        let expectations = Some(&control.expectations);
        owner::follow_owners(&sets, &queue, expectations);
        owner::follow(&sets, &pods, &queue, expectations);
        Arc::new(ReplicasController {
            control,
            sets,
            pods,
            queue,
        })
    }

    async fn manage_replicas(&self, set: &S, owned: &[Arc<Pod>]) -> Result<(), Failure> {
        let wanted = usize::try_from(set.replicas()).unwrap_or(0);
        if owned.len() < wanted {
            let count = (wanted - owned.len()).min(BURST);
            let pod = pod_from_template(set, set.template());
            self.control.change(set, vec![pod; count], &[]).await
        } else {
            let doomed = rank::least_useful(owned, owned.len() - wanted, Timestamp::now());
            self.control.change(set, Vec::new(), &doomed).await
        }
    }
}

#[async_trait::async_trait]
impl<S: Replicated> Controller for ReplicasController<S> {
    fn name(&self) -> &'static str {
        S::CONTROLLER
    }

    fn queue(&self) -> &Arc<WorkQueue> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<Action, ReconcileError> {
        let Some(set) = self.sets.get(key) else {
            self.control.expectations.forget(key);
            return Ok(Action::Done);
        };
        let Some(selector) = set.selector() else {
            return Ok(Action::Done);
        };
        self.control.settle_doubts(key).await?;
        // Before the pods are read: what is seen after this may be newer, never older.
        let waits = self.control.expectations.remaining(key);
        let selector = parse_selector(&selector, &format!("{} {key}", S::CONTROLLER))?;
        let writer = &*self.control.writer;
        let mut owned = adopt::claim(writer, &*set, &selector, &self.pods).await?;
        owned.retain(|pod| pods::is_active(pod));
        let managed = if waits.is_none() && set.meta().deletion_timestamp.is_none() {
            self.manage_replicas(&set, &owned).await
        } else {
            Ok(())
        };
        // Those that are on their way out although it does not show yet are not counted.
        let expectations = &self.control.expectations;
        owned.retain(|pod| !expectations.expects_deletion(key, pod.metadata.uid.as_deref()));
        let now = Timestamp::now();
        let next = self
            .write_status(&*set, &owned, managed.as_ref().err(), now)
            .await?;
        managed.map_err(|failure| failure.error)?;
        let next = [next, waits].into_iter().flatten().min();
        Ok(next.map_or(Action::Done, Action::After))
    }
}
