//! Jobs: pods that run to their end, as many as wanted, until enough have succeeded.
//!
//! ```text
//! reconcile: claim pods ─► tally: what ended (each pod counted once, see below)
//!                       ─► verdict: failed? enough succeeded? else go on
//!                       ─► pods: create, delete      (only while the job goes on or ends)
//!                       ─► status, then finalizers
//! ```
//!
//! **Every pod is counted once**, whatever happens to it or to us: each pod carries the finalizer
//! [`TRACKING_FINALIZER`], so it cannot vanish before it was counted. An ended pod is first noted
//! in `status.uncountedTerminatedPods`; then its finalizer goes; when that has been written, the
//! note becomes part of `status.succeeded` or `status.failed`.
//!
//! A job that ends first says so in an interim condition (FailureTarget, SuccessCriteriaMet),
//! which lets its remaining pods go, and gets its final condition when they are gone.

mod backoff;
mod conditions;
mod failure_policy;
pub mod indexes;
mod orphans;
mod pods;
mod status;
mod success_policy;
mod tally;
#[cfg(test)]
mod tests;
mod verdict;

use std::{sync::Arc, time::Duration};

use hull_client::events::Recorder;
use k8s_openapi::{
    api::{
        batch::v1::{Job, JobSpec, JobStatus},
        core::v1::Pod,
    },
    jiff::Timestamp,
};

use crate::{
    adopt::{self, parse_selector},
    owner,
    pod_control::PodControl,
    pods::is_terminal,
    runtime::{
        Action, Controller, Delta, Informer, Key, ReconcileError, WorkQueue, Writer, Written,
        written::version,
    },
};
pub use orphans::JobOrphansController;
use tally::{RemovedFinalizers, Tally};
use verdict::Verdict;

/// Holds a pod until its job has counted it.
pub const TRACKING_FINALIZER: &str = "batch.kubernetes.io/job-tracking";
/// `spec.managedBy` of jobs that are ours.
const MANAGED_BY_US: &str = "kubernetes.io/job-controller";

/// See the module.
pub struct JobController {
    control: PodControl,
    jobs: Arc<Informer<Job>>,
    pods: Arc<Informer<Pod>>,
    queue: Arc<WorkQueue>,
    removed: Arc<RemovedFinalizers>,
    written: Written,
}

impl JobController {
    /// Connects the controller to its informers.
    pub fn new(
        writer: Arc<dyn Writer>,
        recorder: Recorder,
        jobs: Arc<Informer<Job>>,
        pods: Arc<Informer<Pod>>,
    ) -> Arc<Self> {
        let queue = Arc::new(WorkQueue::default());
        let control = PodControl::new(writer, recorder);
        owner::follow_owners(&jobs, &queue, Some(&control.expectations));
        owner::follow(&jobs, &pods, &queue, Some(&control.expectations));
        let removed = Arc::new(RemovedFinalizers::default());
        pods.on_change({
            let removed = removed.clone();
            move |delta| {
                let pod = delta.newest();
                if matches!(delta, Delta::Deleted(_)) || !is_tracked(pod) {
                    removed.seen(pod.metadata.uid.as_deref().unwrap_or_default());
                }
            }
        });
        Arc::new(JobController {
            control,
            jobs,
            pods,
            queue,
            removed,
            written: Written::default(),
        })
    }
}

/// When the job ended; `None` while it goes on.
pub(crate) fn finished_at(job: &Job) -> Option<Timestamp> {
    let end = conditions::end(job)?;
    Some(end.last_transition_time.as_ref()?.0)
}

/// `Complete` or `Failed`; `None` while the job goes on.
pub(crate) fn end_of(job: &Job) -> Option<&str> {
    conditions::end(job).map(|end| end.type_.as_str())
}

/// The pod carries our finalizer.
pub(crate) fn is_tracked(pod: &Pod) -> bool {
    let finalizers = pod.metadata.finalizers.as_ref();
    finalizers.is_some_and(|list| list.iter().any(|own| own == TRACKING_FINALIZER))
}

/// One look at a job.
pub(crate) struct Sync {
    pub job: Arc<Job>,
    pub spec: JobSpec,
    /// As it will be written.
    pub status: JobStatus,
    pub now: Timestamp,
    /// All pods that the job owns.
    pub owned: Vec<Arc<Pod>>,
    /// Neither ended nor being deleted.
    pub active: Vec<Arc<Pod>>,
    /// Being deleted and not ended.
    pub terminating: usize,
    pub tally: Tally,
}

impl Sync {
    fn new(job: Arc<Job>, owned: Vec<Arc<Pod>>, removed: &RemovedFinalizers) -> Self {
        let spec = job.spec.clone().unwrap_or_default();
        let status = job.status.clone().unwrap_or_default();
        let leaving = |pod: &Pod| pod.metadata.deletion_timestamp.is_some();
        let running = owned.iter().filter(|pod| !is_terminal(pod));
        let active = running.clone().filter(|pod| !leaving(pod)).cloned();
        let active = active.collect();
        let terminating = running.filter(|pod| leaving(pod)).count();
        let tally = Tally::of(&spec, &status, &owned, removed);
        Sync {
            job,
            spec,
            status,
            now: Timestamp::now(),
            owned,
            active,
            terminating,
            tally,
        }
    }

    pub(crate) fn is_suspended(&self) -> bool {
        self.spec.suspend == Some(true)
    }

    pub(crate) fn is_indexed(&self) -> bool {
        is_indexed(&self.spec)
    }
}

pub(crate) fn is_indexed(spec: &JobSpec) -> bool {
    spec.completion_mode.as_deref() == Some("Indexed")
}

/// Only pods that have failed for good are replaced, not those that are on their way.
pub(crate) fn replaces_only_failed(spec: &JobSpec) -> bool {
    match spec.pod_replacement_policy.as_deref() {
        Some(policy) => policy == "Failed",
        None => spec.pod_failure_policy.is_some(),
    }
}

#[async_trait::async_trait]
impl Controller for JobController {
    fn name(&self) -> &'static str {
        "job"
    }

    fn queue(&self) -> &Arc<WorkQueue> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<Action, ReconcileError> {
        let Some(job) = self.jobs.get(key) else {
            self.control.expectations.forget(key);
            return Ok(Action::Done);
        };
        let Some(spec) = job.spec.clone() else {
            return Ok(Action::Done);
        };
        let foreign = spec
            .managed_by
            .as_deref()
            .is_some_and(|by| by != MANAGED_BY_US);
        if foreign || conditions::is_finished(&job) {
            return Ok(Action::Done);
        }
        let Some(selector) = &spec.selector else {
            return Ok(Action::Done);
        };
        // Pods that were let go count by what we wrote: with an older status they would be missing,
        // and an index that has succeeded would run again.
        if !self.written.caught_up(key, |_| Some(version(&*job))) {
            return Err(ReconcileError::Waiting(format!(
                "the status of job {key} is not up to date yet"
            )));
        }
        self.control.settle_doubts(key).await?;
        // Before the pods are read: what is seen after this may be newer, never older.
        let unseen = self.control.expectations.remaining(key);
        let may_act = unseen.is_none();
        let selector = parse_selector(selector, &format!("job {key}"))?;
        let writer = &*self.control.writer;
        let owned = adopt::claim(writer, &*job, &selector, &self.pods).await?;
        let mut sync = Sync::new(job, owned, &self.removed);
        let mut retry: Option<Duration> = None;
        let mut managed = Ok(());
        let verdict = verdict::judge(&sync);
        match &verdict {
            Verdict::Ends(condition) => {
                conditions::set(&mut sync.status, condition.clone());
                managed = self.end(&sync, may_act).await;
            }
            Verdict::GoesOn => {
                self.note_suspension(&mut sync);
                if may_act && sync.job.metadata.deletion_timestamp.is_none() {
                    (managed, retry) = self.manage(&sync).await;
                }
            }
        }
        let waits = [retry, verdict::deadline_in(&sync), unseen];
        // A pod that is not seen yet may run: the job cannot have ended.
        self.write_status(sync, managed.is_ok() && may_act).await?;
        managed.map_err(|failure| failure.error)?;
        let next = waits.into_iter().flatten().min();
        Ok(next.map_or(Action::Done, Action::After))
    }
}
