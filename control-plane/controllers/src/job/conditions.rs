//! A job's conditions.

use k8s_openapi::{
    api::batch::v1::{Job, JobCondition, JobStatus},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};

pub(crate) const COMPLETE: &str = "Complete";
pub(crate) const FAILED: &str = "Failed";
pub(crate) const FAILURE_TARGET: &str = "FailureTarget";
pub(crate) const SUCCESS_CRITERIA_MET: &str = "SuccessCriteriaMet";
pub(crate) const SUSPENDED: &str = "Suspended";

pub(crate) fn new(kind: &str, status: bool, reason: &str, message: &str) -> JobCondition {
    let now = Some(Time(Timestamp::now()));
    JobCondition {
        type_: kind.into(),
        status: if status { "True" } else { "False" }.into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_probe_time: now.clone(),
        last_transition_time: now,
    }
}

/// The condition, if it is true.
pub(crate) fn find<'a>(status: &'a JobStatus, kind: &str) -> Option<&'a JobCondition> {
    status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == kind && condition.status == "True")
}

/// Puts the condition in the place of one of its type, unless that says the same.
pub(crate) fn set(status: &mut JobStatus, condition: JobCondition) {
    let conditions = status.conditions.get_or_insert_default();
    let old = conditions
        .iter_mut()
        .find(|old| old.type_ == condition.type_);
    match old {
        None => conditions.push(condition),
        Some(old)
            if old.status == condition.status
                && old.reason == condition.reason
                && old.message == condition.message => {}
        Some(old) => *old = condition,
    }
}

/// The job's end: `Complete` or `Failed`.
pub(crate) fn end(job: &Job) -> Option<&JobCondition> {
    let status = job.status.as_ref()?;
    find(status, COMPLETE).or_else(|| find(status, FAILED))
}

/// It has ended for good.
pub(crate) fn is_finished(job: &Job) -> bool {
    end(job).is_some()
}
