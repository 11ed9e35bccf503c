//! The jobs that are there: which run, which ended, which are too many.

use std::sync::Arc;

use hull_client::events::{EventType, reference};
use k8s_openapi::{
    api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::api::DeleteParams;

use super::CronJobController;
use crate::{
    job::{end_of, finished_at},
    runtime::WriteError,
};

/// Kubernetes' defaults.
const SUCCESSFUL_KEPT: i32 = 3;
const FAILED_KEPT: i32 = 1;

fn name(job: &Job) -> &str {
    job.metadata.name.as_deref().unwrap_or_default()
}

impl CronJobController {
    /// Keeps the list of active jobs and the time of the last success.
    pub(super) async fn note_children(
        &self,
        cron: &CronJob,
        children: &[Arc<Job>],
        status: &mut CronJobStatus,
    ) -> Result<(), WriteError> {
        let mut active = status.active.take().unwrap_or_default();
        for job in children {
            let listed = active.iter().position(|own| own.uid == job.metadata.uid);
            match (listed, end_of(job)) {
                (None, None) => {
                    self.event(
                        cron,
                        EventType::Warning,
                        "UnexpectedJob",
                        format!(
                            "Saw a job that the controller did not create or forgot: {}",
                            name(job)
                        ),
                    );
                }
                (Some(position), Some(end)) => {
                    active.remove(position);
                    self.event(
                        cron,
                        EventType::Normal,
                        "SawCompletedJob",
                        format!("Saw completed job: {}, condition: {end}", name(job)),
                    );
                }
                _ => {}
            }
            if end_of(job) == Some("Complete")
                && let Some(ended) = finished_at(job)
                && status
                    .last_successful_time
                    .as_ref()
                    .is_none_or(|last| last.0 < ended)
            {
                status.last_successful_time = Some(Time(ended));
            }
        }
        let mut kept = Vec::new();
        for entry in active {
            if children.iter().any(|job| job.metadata.uid == entry.uid)
                || self.exists(&entry).await?
            {
                kept.push(entry);
                continue;
            }
            let job = entry.name.as_deref().unwrap_or_default();
            let message = format!("Active job went missing: {job}");
            self.event(cron, EventType::Normal, "MissingJob", message);
        }
        status.active = (!kept.is_empty()).then_some(kept);
        Ok(())
    }

    /// Asks the API server: the informer may not show a job yet that we have just created.
    async fn exists(
        &self,
        entry: &k8s_openapi::api::core::v1::ObjectReference,
    ) -> Result<bool, WriteError> {
        let namespace = entry.namespace.as_deref().unwrap_or_default();
        let name = entry.name.as_deref().unwrap_or_default();
        match self.writer.get_object::<Job>(namespace, name).await {
            Ok(job) => Ok(job.metadata.uid == entry.uid),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Deletes the oldest ended jobs beyond the limits.
    pub(super) async fn clean_up(
        &self,
        cron: &CronJob,
        spec: &CronJobSpec,
        children: &[Arc<Job>],
    ) -> Result<(), WriteError> {
        for (end, kept) in [
            (
                "Complete",
                spec.successful_jobs_history_limit
                    .unwrap_or(SUCCESSFUL_KEPT),
            ),
            (
                "Failed",
                spec.failed_jobs_history_limit.unwrap_or(FAILED_KEPT),
            ),
        ] {
            let mut ended: Vec<_> = children
                .iter()
                .filter(|job| end_of(job) == Some(end) && job.metadata.deletion_timestamp.is_none())
                .collect();
            let kept = usize::try_from(kept).unwrap_or(0);
            let excess = ended.len().saturating_sub(kept);
            let started = |job: &Job| job.status.as_ref()?.start_time.as_ref().map(|t| t.0);
            ended.sort_by_key(|job| (started(job), name(job).to_owned()));
            for job in ended.into_iter().take(excess) {
                self.delete_job(cron, job).await?;
            }
        }
        Ok(())
    }

    /// Deletes a job; its pods follow it.
    pub(super) async fn delete_job(&self, cron: &CronJob, job: &Job) -> Result<(), WriteError> {
        let deleted = self
            .writer
            .delete_object(job, DeleteParams::background())
            .await;
        match deleted {
            Ok(()) => {
                let message = format!("Deleted job {}", name(job));
                self.event(cron, EventType::Normal, "SuccessfulDelete", message);
                Ok(())
            }
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            Err(error) => {
                self.recorder.event(
                    reference(cron),
                    EventType::Warning,
                    "FailedDelete",
                    format!("Deleted job: {}", error.message()),
                );
                Err(error)
            }
        }
    }
}
