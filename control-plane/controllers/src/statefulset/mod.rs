//! StatefulSets: pods with a number, a name and volumes of their own.
//!
//! ```text
//! reconcile: revisions ─► claim pods ─► slots: pod N or what is missing; condemned: beyond the last
//!   1. each slot, from 0: replace what ended, create what is missing, mend identity and claims
//!   2. condemned pods, from the last: delete
//!   3. rolling update, from the last down to the partition: delete what is of an old revision
//! ```
//!
//! With `OrderedReady` each step waits until the pod before is running and ready; with `Parallel`
//! the first two do not wait. Names are fixed, so no request can make a second pod of a number.

mod claims;
mod identity;
mod objects;
mod slots;
mod status;
#[cfg(test)]
mod tests;
mod update;

use std::sync::Arc;

use hull_client::events::Recorder;
use k8s_openapi::{
    api::{
        apps::v1::{ControllerRevision, StatefulSet, StatefulSetSpec},
        core::v1::{PersistentVolumeClaim, Pod, PodTemplateSpec},
    },
    jiff::Timestamp,
};

use crate::{
    adopt::{self, parse_selector, selects},
    history::{self, History, Subject},
    owner,
    runtime::{Action, Controller, Informer, Key, ReconcileError, WorkQueue, Writer},
};
use slots::Slots;

/// See the module.
pub struct StatefulSetController {
    writer: Arc<dyn Writer>,
    recorder: Recorder,
    sets: Arc<Informer<StatefulSet>>,
    pods: Arc<Informer<Pod>>,
    claims: Arc<Informer<PersistentVolumeClaim>>,
    revisions: Arc<Informer<ControllerRevision>>,
    queue: Arc<WorkQueue>,
}

impl StatefulSetController {
    /// Connects the controller to its informers.
    pub fn new(
        writer: Arc<dyn Writer>,
        recorder: Recorder,
        sets: Arc<Informer<StatefulSet>>,
        pods: Arc<Informer<Pod>>,
        claims: Arc<Informer<PersistentVolumeClaim>>,
        revisions: Arc<Informer<ControllerRevision>>,
    ) -> Arc<Self> {
        let queue = Arc::new(WorkQueue::default());
        owner::follow_owners(&sets, &queue, None);
        owner::follow(&sets, &pods, &queue, None);
        owner::follow(&sets, &revisions, &queue, None);
        Arc::new(StatefulSetController {
            writer,
            recorder,
            sets,
            pods,
            claims,
            revisions,
            queue,
        })
    }

    async fn sync(
        &self,
        set: &StatefulSet,
        spec: &StatefulSetSpec,
        now: Timestamp,
    ) -> Result<Action, ReconcileError> {
        let key = Key::of(set);
        let subject = Subject {
            owner: set,
            selector: &spec.selector,
            template: &spec.template,
            collisions: set
                .status
                .as_ref()
                .and_then(|status| status.collision_count),
        };
        let selector = parse_selector(&spec.selector, &format!("statefulset {key}"))?;
        let mine = |pod: &Pod| selects(&selector, pod) && identity::ordinal(set, pod).is_some();
        let pods = adopt::claim_if(&*self.writer, set, &self.pods, mine).await?;
        let history = subject.history(&*self.writer, &self.revisions).await?;
        let view = View::new(set, spec, &history, now);
        let slots = Slots::new(&view, pods);
        let worked = if set.metadata.deletion_timestamp.is_none() {
            self.work(&view, &slots).await
        } else {
            Ok(())
        };
        let next = self.write_status(&view, &slots).await?;
        worked?;
        let in_use = |revision: &ControllerRevision| {
            let name = history::name(revision);
            name == view.current_name || slots.all().any(|pod| identity::revision(pod) == name)
        };
        history
            .truncate(&*self.writer, spec.revision_history_limit, in_use)
            .await?;
        Ok(next.map_or(Action::Done, Action::After))
    }
}

/// One look at a set.
pub(crate) struct View<'a> {
    pub set: &'a StatefulSet,
    pub spec: &'a StatefulSetSpec,
    pub history: &'a History,
    /// The revision that pods below the partition keep.
    pub current_name: String,
    current_template: PodTemplateSpec,
    pub update_name: &'a str,
    pub now: Timestamp,
}

impl<'a> View<'a> {
    fn new(
        set: &'a StatefulSet,
        spec: &'a StatefulSetSpec,
        history: &'a History,
        now: Timestamp,
    ) -> Self {
        let wanted = set
            .status
            .as_ref()
            .and_then(|status| status.current_revision.as_deref());
        let current = history
            .revisions
            .iter()
            .find(|revision| Some(history::name(revision)) == wanted)
            .unwrap_or(&history.update);
        View {
            set,
            spec,
            history,
            current_name: history::name(current).to_owned(),
            current_template: history::template_of(current).unwrap_or(spec.template.clone()),
            update_name: history::name(&history.update),
            now,
        }
    }

    /// The first number.
    pub fn start(&self) -> i32 {
        self.spec
            .ordinals
            .as_ref()
            .and_then(|ordinals| ordinals.start)
            .unwrap_or(0)
    }

    pub fn replicas(&self) -> i32 {
        self.spec.replicas.unwrap_or(1).max(0)
    }

    /// Each step waits for the one before.
    pub fn is_ordered(&self) -> bool {
        self.spec.pod_management_policy.as_deref() != Some("Parallel")
    }

    pub fn min_ready_seconds(&self) -> i32 {
        self.spec.min_ready_seconds.unwrap_or(0)
    }

    pub fn is_rolling(&self) -> bool {
        let strategy = self.spec.update_strategy.as_ref();
        strategy.and_then(|strategy| strategy.type_.as_deref()) != Some("OnDelete")
    }

    /// Pods below this number (counted from 0) keep the current revision.
    pub fn partition(&self) -> Option<i32> {
        let strategy = self.spec.update_strategy.as_ref()?;
        let rolling = strategy.rolling_update.as_ref()?;
        Some(rolling.partition.unwrap_or(0))
    }

    /// What a new pod of this number is made from.
    pub fn revision_of(&self, ordinal: i32) -> (&str, &PodTemplateSpec) {
        let kept = match self.partition() {
            Some(partition) => partition,
            None => {
                let status = self.set.status.as_ref();
                status
                    .and_then(|status| status.current_replicas)
                    .unwrap_or(0)
            }
        };
        if self.is_rolling() && ordinal < self.start().saturating_add(kept) {
            (&self.current_name, &self.current_template)
        } else {
            (self.update_name, &self.spec.template)
        }
    }
}

#[async_trait::async_trait]
impl Controller for StatefulSetController {
    fn name(&self) -> &'static str {
        "statefulset"
    }

    fn queue(&self) -> &Arc<WorkQueue> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<Action, ReconcileError> {
        let Some(set) = self.sets.get(key) else {
            return Ok(Action::Done);
        };
        let Some(spec) = &set.spec else {
            return Ok(Action::Done);
        };
        self.sync(&set, spec, Timestamp::now()).await
    }
}
