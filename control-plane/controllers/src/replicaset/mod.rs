//! ReplicaSets: as many pods of a template as wanted.
//!
//! * Pods belong by owner reference; matching orphans are adopted, pods whose labels no longer
//!   match are released ([`crate::adopt`]).
//! * Creation starts slowly (1, 2, 4 ... at a time), so a template that the API server refuses
//!   costs one request a round. Deletion takes the least useful pods first ([`rank`]).
//! * Expectations hold the next round back until the informer shows what this one wrote.

mod rank;
mod replicas;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use hull_client::events::Recorder;
use k8s_openapi::{
    api::{apps::v1::ReplicaSet, core::v1::Pod},
    jiff::Timestamp,
};

use crate::{
    adopt::{self, parse_selector, selects},
    pods,
    runtime::{
        Action, Controller, Delta, Expectations, Informer, Key, ReconcileError, WorkQueue, Writer,
        informer::controller_of,
    },
};

/// See the module.
pub struct ReplicaSetController {
    writer: Arc<dyn Writer>,
    recorder: Recorder,
    sets: Arc<Informer<ReplicaSet>>,
    pods: Arc<Informer<Pod>>,
    queue: Arc<WorkQueue>,
    expectations: Arc<Expectations>,
}

impl ReplicaSetController {
    /// Connects the controller to its informers.
    pub fn new(
        writer: Arc<dyn Writer>,
        recorder: Recorder,
        sets: Arc<Informer<ReplicaSet>>,
        pods: Arc<Informer<Pod>>,
    ) -> Arc<Self> {
        let queue = Arc::new(WorkQueue::default());
        let expectations = Arc::new(Expectations::default());
        sets.on_change({
            let (queue, expectations) = (queue.clone(), expectations.clone());
            move |delta| {
                let key = Key::of(&**delta.newest());
                if matches!(delta, Delta::Deleted(_)) {
                    expectations.forget(&key);
                }
                queue.add(key);
            }
        });
        pods.on_change({
            let watcher = PodWatcher {
                sets: sets.clone(),
                queue: queue.clone(),
                expectations: expectations.clone(),
            };
            move |delta| watcher.observe(delta)
        });
        Arc::new(ReplicaSetController {
            writer,
            recorder,
            sets,
            pods,
            queue,
            expectations,
        })
    }
}

/// Finds the sets that a pod's change concerns.
struct PodWatcher {
    sets: Arc<Informer<ReplicaSet>>,
    queue: Arc<WorkQueue>,
    expectations: Arc<Expectations>,
}

impl PodWatcher {
    fn observe(&self, delta: &Delta<'_, Pod>) {
        match delta {
            Delta::Added(pod) if pod.metadata.deletion_timestamp.is_none() => {
                match self.owner(pod) {
                    Some(key) => {
                        self.expectations.creations_over(&key, 1);
                        self.queue.add(key);
                    }
                    None => self.wake_matching(pod),
                }
            }
            Delta::Added(pod) | Delta::Deleted(pod) => self.deleted(pod),
            Delta::Updated { old, new } => {
                if new.metadata.deletion_timestamp.is_some() {
                    self.deleted(new);
                }
                if let Some(key) = self.owner(old) {
                    self.queue.add(key);
                }
                match self.owner(new) {
                    Some(key) => self.queue.add(key),
                    None if old.metadata.labels != new.metadata.labels
                        || controller_of(&***old).is_some() =>
                    {
                        self.wake_matching(new);
                    }
                    None => {}
                }
            }
        }
    }

    fn deleted(&self, pod: &Pod) {
        if let Some(key) = self.owner(pod) {
            let uid = pod.metadata.uid.as_deref().unwrap_or_default();
            self.expectations.deletion_over(&key, uid);
            self.queue.add(key);
        }
    }

    fn owner(&self, pod: &Pod) -> Option<Key> {
        let reference = controller_of(pod).filter(|reference| reference.kind == "ReplicaSet")?;
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let key = Key::new(namespace, reference.name.clone());
        let set = self.sets.get(&key)?;
        (set.metadata.uid.as_ref() == Some(&reference.uid)).then_some(key)
    }

    /// An orphan may be adopted by any set that selects it.
    fn wake_matching(&self, pod: &Pod) {
        if controller_of(pod).is_some() {
            return;
        }
        for set in self
            .sets
            .in_namespace(pod.metadata.namespace.as_deref().unwrap_or_default())
        {
            let Some(spec) = &set.spec else { continue };
            if parse_selector(&spec.selector, "").is_ok_and(|selector| selects(&selector, pod)) {
                self.queue.add(Key::of(&*set));
            }
        }
    }
}

#[async_trait::async_trait]
impl Controller for ReplicaSetController {
    fn name(&self) -> &'static str {
        "replicaset"
    }

    fn queue(&self) -> &Arc<WorkQueue> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<Action, ReconcileError> {
        let Some(set) = self.sets.get(key) else {
            self.expectations.forget(key);
            return Ok(Action::Done);
        };
        let Some(spec) = &set.spec else {
            return Ok(Action::Done);
        };
        // Before the pods are read: what is seen after this may be newer, never older.
        let may_act = self.expectations.satisfied(key);
        let selector = parse_selector(&spec.selector, &format!("replicaset {key}"))?;
        let mut owned = adopt::claim(&*self.writer, &*set, &selector, &self.pods).await?;
        owned.retain(|pod| pods::is_active(pod));
        let managed = if may_act && set.metadata.deletion_timestamp.is_none() {
            self.manage_replicas(key, &set, &owned).await
        } else {
            Ok(())
        };
        let now = Timestamp::now();
        let next = self
            .write_status(&set, &owned, managed.as_ref().err(), now)
            .await?;
        managed.map_err(|failure| failure.error)?;
        Ok(next.map_or(Action::Done, Action::After))
    }
}
