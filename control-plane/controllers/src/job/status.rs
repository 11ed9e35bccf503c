//! What is said about a job, and letting counted pods go.

use futures::future::join_all;
use hull_client::events::{EventType, reference};
use k8s_openapi::{
    api::batch::v1::{Job, JobStatus, UncountedTerminatedPods},
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::{
    JobController, Sync,
    conditions::{self, COMPLETE, FAILED, FAILURE_TARGET, SUCCESS_CRITERIA_MET, SUSPENDED},
    indexes,
    tally::count,
};
use crate::{
    pods::is_ready,
    runtime::{Key, ReconcileError, WriteError, writer::object},
};

impl JobController {
    /// Keeps the condition Suspended and the start time in line with `spec.suspend`.
    pub(super) fn note_suspension(&self, sync: &mut Sync) {
        let was = conditions::find(&sync.status, SUSPENDED).is_some();
        let is = sync.is_suspended();
        if is == was {
            return;
        }
        let (reason, event, message) = if is {
            ("JobSuspended", "Suspended", "Job suspended")
        } else {
            ("JobResumed", "Resumed", "Job resumed")
        };
        sync.status.start_time = (!is).then_some(Time(sync.now));
        let condition = conditions::new(SUSPENDED, is, reason, message);
        conditions::set(&mut sync.status, condition);
        self.control
            .recorder
            .event(reference(&*sync.job), EventType::Normal, event, message);
    }

    /// Writes the status if it differs, then takes the finalizers of what it counts. `may_end`:
    /// nothing that had to be written before the end failed.
    pub(super) async fn write_status(
        &self,
        sync: Sync,
        may_end: bool,
    ) -> Result<(), ReconcileError> {
        let mut status = counts(&sync);
        if may_end && sync.active.is_empty() && sync.terminating == 0 && sync.tally.is_settled() {
            finish(&mut status, &sync);
        }
        let old = sync.job.status.clone().unwrap_or_default();
        if status != old {
            let job = Job {
                status: Some(status.clone()),
                ..(*sync.job).clone()
            };
            match self.control.writer.replace_status(&job).await {
                Err(error) if error.is_not_found() => return Ok(()),
                Err(error) => return Err(error.into()),
                Ok(written) => {
                    let written: Job = object(written)?;
                    self.written.record(&Key::of(&written), &written);
                    self.announce_end(&sync, &status);
                }
            }
        }
        // Only now: what is not written yet must not vanish.
        let released = join_all(sync.tally.release.iter().map(|pod| self.release(pod))).await;
        let failed: Option<WriteError> = released.into_iter().find_map(Result::err);
        failed.map_or(Ok(()), |error| Err(error.into()))
    }

    fn announce_end(&self, sync: &Sync, status: &JobStatus) {
        let job = reference(&*sync.job);
        if conditions::find(status, COMPLETE).is_some() {
            let recorder = &self.control.recorder;
            recorder.event(job, EventType::Normal, "Completed", "Job completed");
        } else if let Some(failed) = conditions::find(status, FAILED) {
            let message = failed.message.clone().unwrap_or_default();
            let reason = known_reason(failed.reason.as_deref().unwrap_or_default());
            self.control
                .recorder
                .event(job, EventType::Warning, reason, message);
        }
    }
}

/// Event reasons are fixed words.
fn known_reason(reason: &str) -> &'static str {
    const REASONS: [&str; 5] = [
        "BackoffLimitExceeded",
        "DeadlineExceeded",
        "PodFailurePolicy",
        "MaxFailedIndexesExceeded",
        "FailedIndexes",
    ];
    REASONS
        .into_iter()
        .find(|known| *known == reason)
        .unwrap_or("JobFailed")
}

/// The final condition, if the interim one is there.
fn finish(status: &mut JobStatus, sync: &Sync) {
    for (interim, end) in [(FAILURE_TARGET, FAILED), (SUCCESS_CRITERIA_MET, COMPLETE)] {
        let Some(known) = conditions::find(status, interim).cloned() else {
            continue;
        };
        let reason = known.reason.unwrap_or_default();
        let message = known.message.unwrap_or_default();
        conditions::set(status, conditions::new(end, true, &reason, &message));
        if end == COMPLETE {
            status.completion_time = Some(Time(sync.now));
        }
        return;
    }
}

fn some_text(indexes: &std::collections::BTreeSet<i32>) -> Option<String> {
    (!indexes.is_empty()).then(|| indexes::format(indexes))
}

fn counts(sync: &Sync) -> JobStatus {
    let (tally, spec) = (&sync.tally, &sync.spec);
    let list = |uids: &std::collections::BTreeSet<String>| {
        (!uids.is_empty()).then(|| uids.iter().cloned().collect::<Vec<_>>())
    };
    let ready = sync.active.iter().filter(|pod| is_ready(pod)).count();
    let succeeded = if sync.is_indexed() {
        count(tally.succeeded_indexes.len())
    } else {
        tally.succeeded
    };
    let nonzero = |number: i32| (number != 0).then_some(number);
    let mut status = JobStatus {
        active: nonzero(count(sync.active.len())),
        ready: Some(count(ready)),
        terminating: Some(count(sync.terminating)),
        succeeded: nonzero(succeeded),
        failed: nonzero(tally.failed),
        uncounted_terminated_pods: Some(UncountedTerminatedPods {
            succeeded: list(&tally.uncounted_succeeded),
            failed: list(&tally.uncounted_failed),
        }),
        ..sync.status.clone()
    };
    if sync.is_indexed() {
        status.completed_indexes = some_text(&tally.succeeded_indexes);
        if spec.backoff_limit_per_index.is_some() {
            status.failed_indexes = Some(some_text(&tally.failed_indexes).unwrap_or_default());
        }
    }
    if status.start_time.is_none() && !sync.is_suspended() {
        status.start_time = Some(Time(sync.now));
    }
    status
}
