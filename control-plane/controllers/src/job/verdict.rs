//! Whether a job goes on.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::{batch::v1::JobCondition, core::v1::Pod};

use super::{
    Sync,
    conditions::{self, FAILURE_TARGET, SUCCESS_CRITERIA_MET},
    success_policy,
    tally::count,
};

/// What becomes of the job.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    /// It may need more pods.
    GoesOn,
    /// It ends for this reason, once its pods are gone.
    Ends(JobCondition),
}

fn fails(reason: &str, message: &str) -> Verdict {
    Verdict::Ends(conditions::new(FAILURE_TARGET, true, reason, message))
}

fn succeeds(reason: &str, message: &str) -> Verdict {
    Verdict::Ends(conditions::new(SUCCESS_CRITERIA_MET, true, reason, message))
}

pub(super) fn judge(sync: &Sync) -> Verdict {
    for kind in [FAILURE_TARGET, SUCCESS_CRITERIA_MET] {
        if let Some(known) = conditions::find(&sync.status, kind) {
            return Verdict::Ends(known.clone());
        }
    }
    let (spec, tally) = (&sync.spec, &sync.tally);
    if let Some(message) = &tally.fail_job {
        return fails("PodFailurePolicy", message);
    }
    let limit = backoff_limit(sync);
    if tally.all_failed() > limit || restarts_exceed(sync, limit) {
        return fails(
            "BackoffLimitExceeded",
            "Job has reached the specified backoff limit",
        );
    }
    if deadline_in(sync).is_some_and(|left| left.is_zero()) {
        return fails(
            "DeadlineExceeded",
            "Job was active longer than specified deadline",
        );
    }
    let completions = spec.completions.unwrap_or(0);
    if sync.is_indexed() {
        let failed = count(tally.failed_indexes.len());
        if spec.max_failed_indexes.is_some_and(|most| failed > most) {
            return fails(
                "MaxFailedIndexesExceeded",
                "Job has exceeded the specified maximal number of failed indexes",
            );
        }
        if failed > 0 && failed + count(tally.succeeded_indexes.len()) >= completions {
            return fails("FailedIndexes", "Job has failed indexes");
        }
        if let Some(message) = success_policy::met(spec, &tally.succeeded_indexes) {
            return succeeds("SuccessPolicy", &message);
        }
    }
    let succeeded = tally.all_succeeded(spec);
    let enough = match spec.completions {
        // Any success will do, but its siblings may still work.
        None => succeeded > 0,
        Some(wanted) => succeeded >= wanted,
    };
    if enough && sync.active.is_empty() {
        return succeeds(
            "CompletionsReached",
            "Reached expected number of succeeded pods",
        );
    }
    Verdict::GoesOn
}

/// `spec.backoffLimit` with Kubernetes' default.
fn backoff_limit(sync: &Sync) -> i32 {
    let default = if sync.spec.backoff_limit_per_index.is_some() {
        i32::MAX
    } else {
        6
    };
    sync.spec.backoff_limit.unwrap_or(default)
}

/// Pods that restart their containers themselves count by their restarts.
fn restarts_exceed(sync: &Sync, limit: i32) -> bool {
    let template = sync.spec.template.spec.as_ref();
    if template.and_then(|spec| spec.restart_policy.as_deref()) != Some("OnFailure") {
        return false;
    }
    let restarts = |pod: &Arc<Pod>| -> i32 {
        let Some(status) = &pod.status else { return 0 };
        let containers = status.container_statuses.iter().flatten();
        containers
            .chain(status.init_container_statuses.iter().flatten())
            .map(|container| container.restart_count)
            .sum()
    };
    let total: i32 = sync.active.iter().map(restarts).sum();
    if limit == 0 {
        total > 0
    } else {
        total >= limit
    }
}

/// What is left of `spec.activeDeadlineSeconds`; `None` if there is no deadline now.
pub(super) fn deadline_in(sync: &Sync) -> Option<Duration> {
    if sync.is_suspended() {
        return None;
    }
    let seconds = u64::try_from(sync.spec.active_deadline_seconds?).ok()?;
    let started = sync.status.start_time.as_ref()?.0;
    let passed = Duration::try_from(sync.now.duration_since(started)).unwrap_or(Duration::ZERO);
    Some(Duration::from_secs(seconds).saturating_sub(passed))
}
