//! Whether a job is due, and starting it.

use hull_client::events::{EventType, reference};
use k8s_openapi::{
    api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp, tz::TimeZone},
};
use kube::api::ObjectMeta;

use super::{CronJobController, job_name, schedule::Schedule};
use crate::{
    adopt::{controller_reference, is_controlled_by},
    job::end_of,
    runtime::ReconcileError,
};

/// When the job was due, in its time zone.
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// A time that has come.
pub(super) struct Due {
    pub at: Timestamp,
    /// Further ones were missed before it.
    missed: bool,
}

/// The last time that has come and was not dealt with.
pub(super) fn due(
    cron: &CronJob,
    spec: &CronJobSpec,
    status: &CronJobStatus,
    schedule: &Schedule,
    zone: &TimeZone,
    now: Timestamp,
) -> Option<Due> {
    let created = cron
        .metadata
        .creation_timestamp
        .as_ref()
        .map_or(now, |time| time.0);
    let mut earliest = status
        .last_schedule_time
        .as_ref()
        .map_or(created, |time| time.0);
    if let Some(seconds) = spec.starting_deadline_seconds
        && let Ok(deadline) = now.checked_sub(SignedDuration::from_secs(seconds))
    {
        earliest = earliest.max(deadline);
    }
    let (at, missed) = schedule.latest(earliest, now, zone)?;
    Some(Due { at, missed })
}

impl CronJobController {
    pub(super) async fn start(
        &self,
        cron: &CronJob,
        spec: &CronJobSpec,
        status: &mut CronJobStatus,
        due: Option<Due>,
        zone: &TimeZone,
        now: Timestamp,
    ) -> Result<(), ReconcileError> {
        let Some(due) = due else { return Ok(()) };
        if status
            .last_schedule_time
            .as_ref()
            .is_some_and(|last| last.0 == due.at)
        {
            return Ok(());
        }
        let deadline = spec
            .starting_deadline_seconds
            .map(SignedDuration::from_secs);
        if deadline.is_some_and(|deadline| now.duration_since(due.at) > deadline) {
            let message = format!("Missed scheduled time to start a job: {}", due.at);
            self.event(cron, EventType::Warning, "MissSchedule", message);
            return Ok(());
        }
        let active = status.active.clone().unwrap_or_default();
        match spec.concurrency_policy.as_deref() {
            Some("Forbid") if !active.is_empty() => {
                self.event(
                    cron,
                    EventType::Normal,
                    "JobAlreadyActive",
                    "Not starting job because prior execution is running and concurrency \
                     policy is Forbid"
                        .into(),
                );
                return Ok(());
            }
            Some("Replace") => {
                let uid = cron.metadata.uid.as_deref().unwrap_or_default();
                for job in self.jobs.controlled_by(uid) {
                    if active.iter().any(|own| own.uid == job.metadata.uid) {
                        self.delete_job(cron, &job).await?;
                    }
                }
                status.active = None;
            }
            _ => {}
        }
        if due.missed {
            tracing::info!(cronjob = cron.metadata.name, "scheduled times were missed");
        }
        self.create(cron, spec, status, due.at, zone).await
    }

    async fn create(
        &self,
        cron: &CronJob,
        spec: &CronJobSpec,
        status: &mut CronJobStatus,
        due: Timestamp,
        zone: &TimeZone,
    ) -> Result<(), ReconcileError> {
        let job = job(cron, spec, due, zone);
        let job = match self.writer.create_object(&job).await {
            Ok(created) => {
                let name = created.metadata.name.as_deref().unwrap_or_default();
                let message = format!("Created job {name}");
                self.event(cron, EventType::Normal, "SuccessfulCreate", message);
                created
            }
            Err(error) if error.is_namespace_terminating() => return Ok(()),
            // We created it and could not write so.
            Err(error) if error.is_already_exists() => {
                let namespace = job.metadata.namespace.as_deref().unwrap_or_default();
                let name = job.metadata.name.as_deref().unwrap_or_default();
                let found: Job = self.writer.get_object(namespace, name).await?;
                if !is_controlled_by(&found, cron) {
                    return Err(error.into());
                }
                found
            }
            Err(error) => {
                let message = format!("Error creating job: {}", error.message());
                self.event(cron, EventType::Warning, "FailedCreate", message);
                return Err(error.into());
            }
        };
        let entry = reference(&job);
        let list = status.active.get_or_insert_default();
        if end_of(&job).is_none() && list.iter().all(|own| own.uid != entry.uid) {
            list.push(entry);
        }
        status.last_schedule_time = Some(Time(due));
        Ok(())
    }
}

fn job(cron: &CronJob, spec: &CronJobSpec, due: Timestamp, zone: &TimeZone) -> Job {
    let template = spec.job_template.clone();
    let meta = template.metadata.unwrap_or_default();
    let mut annotations = meta.annotations.unwrap_or_default();
    let local = due.to_zoned(zone.clone());
    let text = if *zone == TimeZone::UTC {
        due.to_string()
    } else {
        local.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
    };
    annotations.insert(SCHEDULED.into(), text);
    Job {
        metadata: ObjectMeta {
            name: Some(job_name(cron, due)),
            namespace: cron.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: Some(annotations),
            creation_timestamp: None,
            owner_references: Some(vec![controller_reference(cron)]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}
