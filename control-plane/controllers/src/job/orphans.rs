//! Lets go of pods that nobody will count any more: their job is gone, has ended, or no longer
//! owns them.

use std::sync::Arc;

use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};

use super::{conditions, is_tracked, pods::without_finalizer};
use crate::runtime::{
    Action, Controller, Delta, Informer, Key, ReconcileError, WorkQueue, Writer,
    informer::controller_of,
};

/// See the module.
pub struct JobOrphansController {
    writer: Arc<dyn Writer>,
    jobs: Arc<Informer<Job>>,
    pods: Arc<Informer<Pod>>,
    queue: Arc<WorkQueue>,
}

impl JobOrphansController {
    /// Connects the controller to its informers.
    pub fn new(
        writer: Arc<dyn Writer>,
        jobs: Arc<Informer<Job>>,
        pods: Arc<Informer<Pod>>,
    ) -> Arc<Self> {
        let queue = Arc::new(WorkQueue::default());
        pods.on_change({
            let queue = queue.clone();
            move |delta| {
                let pod = delta.newest();
                if !matches!(delta, Delta::Deleted(_)) && is_tracked(pod) {
                    queue.add(Key::of(&**pod));
                }
            }
        });
        jobs.on_change({
            let (pods, queue) = (pods.clone(), queue.clone());
            move |delta| {
                let job = delta.newest();
                if !matches!(delta, Delta::Deleted(_)) && !conditions::is_finished(job) {
                    return;
                }
                let uid = job.metadata.uid.as_deref().unwrap_or_default();
                for pod in pods.controlled_by(uid) {
                    if is_tracked(&pod) {
                        queue.add(Key::of(&*pod));
                    }
                }
            }
        });
        Arc::new(JobOrphansController {
            writer,
            jobs,
            pods,
            queue,
        })
    }

    /// Somebody will still count the pod.
    async fn is_awaited(&self, pod: &Pod) -> Result<bool, ReconcileError> {
        let Some(owner) = controller_of(pod).filter(|owner| owner.kind == "Job") else {
            return Ok(false);
        };
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let awaits = |job: &Job| {
            job.metadata.uid.as_ref() == Some(&owner.uid) && !conditions::is_finished(job)
        };
        let known = self.jobs.get(&Key::new(namespace.clone(), &*owner.name));
        if known.is_some_and(|job| awaits(&job)) {
            return Ok(true);
        }
        // The informer may be behind.
        match self.writer.get_object::<Job>(&namespace, &owner.name).await {
            Ok(job) => Ok(awaits(&job)),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

#[async_trait::async_trait]
impl Controller for JobOrphansController {
    fn name(&self) -> &'static str {
        "job-orphan-pods"
    }

    fn queue(&self) -> &Arc<WorkQueue> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<Action, ReconcileError> {
        let Some(pod) = self.pods.get(key) else {
            return Ok(Action::Done);
        };
        if is_tracked(&pod) && !self.is_awaited(&pod).await? {
            without_finalizer(&*self.writer, &pod).await?;
        }
        Ok(Action::Done)
    }
}
