//! CronJobs: a job at each time of a schedule.
//!
//! ```text
//! reconcile: jobs ─► active list, last success ─► history limits
//!            schedule, time zone ─► due? ─► too late, already running (Allow, Forbid, Replace) ─► create
//! ```
//!
//! A job's name comes from the time it was due ([`job_name`]), so one time never starts two jobs,
//! whoever writes or forgets what in between.

mod children;
pub mod schedule;
mod start;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use hull_client::events::{EventType, Recorder, reference};
use k8s_openapi::{
    api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job},
    jiff::{Timestamp, tz::TimeZone},
};

use crate::{
    owner,
    runtime::{Action, Controller, Informer, Key, ReconcileError, WorkQueue, Writer},
};
use schedule::Schedule;

/// The next look comes this much after the scheduled time, so that it is not too early.
const NEXT_LOOK_MARGIN: Duration = Duration::from_millis(100);

/// See the module.
pub struct CronJobController {
    writer: Arc<dyn Writer>,
    recorder: Recorder,
    cron_jobs: Arc<Informer<CronJob>>,
    jobs: Arc<Informer<Job>>,
    queue: Arc<WorkQueue>,
}

impl CronJobController {
    /// Connects the controller to its informers.
    pub fn new(
        writer: Arc<dyn Writer>,
        recorder: Recorder,
        cron_jobs: Arc<Informer<CronJob>>,
        jobs: Arc<Informer<Job>>,
    ) -> Arc<Self> {
        let queue = Arc::new(WorkQueue::default());
        owner::follow_owners(&cron_jobs, &queue, None);
        owner::follow(&cron_jobs, &jobs, &queue, None);
        Arc::new(CronJobController {
            writer,
            recorder,
            cron_jobs,
            jobs,
            queue,
        })
    }

    fn event(&self, cron: &CronJob, kind: EventType, reason: &'static str, message: String) {
        self.recorder.event(reference(cron), kind, reason, message);
    }

    /// The schedule in its time zone; says why not.
    fn schedule(&self, cron: &CronJob, spec: &CronJobSpec) -> Option<(Schedule, TimeZone)> {
        let zone = match spec.time_zone.as_deref().filter(|name| !name.is_empty()) {
            None => TimeZone::UTC,
            Some(name) => match TimeZone::get(name) {
                Ok(zone) => zone,
                Err(error) => {
                    let message = format!("invalid timeZone: {name:?}: {error}");
                    self.event(cron, EventType::Warning, "UnknownTimeZone", message);
                    return None;
                }
            },
        };
        match spec.schedule.parse() {
            Ok(schedule) => Some((schedule, zone)),
            Err(error) => {
                let message = format!("unparseable schedule: {:?} : {error}", spec.schedule);
                self.event(
                    cron,
                    EventType::Warning,
                    "UnParseableCronJobSchedule",
                    message,
                );
                None
            }
        }
    }

    pub(super) async fn sync(
        &self,
        key: &Key,
        cron: &CronJob,
        now: Timestamp,
    ) -> Result<Action, ReconcileError> {
        let spec = cron.spec.clone();
        let mut status: CronJobStatus = cron.status.clone().unwrap_or_default();
        let uid = cron.metadata.uid.as_deref().unwrap_or_default();
        let children = self.jobs.controlled_by(uid);
        self.note_children(cron, &children, &mut status).await?;
        self.clean_up(cron, &spec, &children).await?;
        let stays = cron.metadata.deletion_timestamp.is_none() && spec.suspend != Some(true);
        let mut action = Action::Done;
        let mut started = Ok(());
        if stays && let Some((schedule, zone)) = self.schedule(cron, &spec) {
            let due = start::due(cron, &spec, &status, &schedule, &zone, now);
            started = self.start(cron, &spec, &mut status, due, &zone, now).await;
            if let Some(next) = schedule.after(now, &zone) {
                let wait = Duration::try_from(next.duration_since(now)).unwrap_or_default();
                action = Action::After(wait + NEXT_LOOK_MARGIN);
            }
        }
        if Some(&status) != cron.status.as_ref() && status_differs(cron, &status) {
            let changed = CronJob {
                status: Some(status),
                ..cron.clone()
            };
            match self.writer.replace_status(&changed).await {
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error.into()),
                Ok(_) => tracing::debug!(cronjob = %key, "status written"),
            }
        }
        started?;
        Ok(action)
    }
}

fn status_differs(cron: &CronJob, status: &CronJobStatus) -> bool {
    let old = cron.status.clone().unwrap_or_default();
    old.active.unwrap_or_default() != status.active.clone().unwrap_or_default()
        || old.last_schedule_time != status.last_schedule_time
        || old.last_successful_time != status.last_successful_time
}

/// The name of the job due at this time: the time in minutes.
pub(crate) fn job_name(cron: &CronJob, due: Timestamp) -> String {
    let name = cron.metadata.name.as_deref().unwrap_or_default();
    format!("{name}-{}", due.as_second() / 60)
}

#[async_trait::async_trait]
impl Controller for CronJobController {
    fn name(&self) -> &'static str {
        "cronjob"
    }

    fn queue(&self) -> &Arc<WorkQueue> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<Action, ReconcileError> {
        let Some(cron) = self.cron_jobs.get(key) else {
            return Ok(Action::Done);
        };
        self.sync(key, &cron, Timestamp::now()).await
    }
}
