//! Deletes jobs `ttlSecondsAfterFinished` after their end, with their pods.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{api::batch::v1::Job, jiff::Timestamp};
use kube::api::{DeleteParams, Preconditions, PropagationPolicy};

use crate::{
    job::finished_at,
    pod_gc::ignore_gone,
    runtime::{
        Action, Controller, Delta, Informer, Key, ReconcileError, Target, WorkQueue, Writer,
        writer::resource_of,
    },
};

/// See the module.
pub struct TtlAfterFinishedController {
    writer: Arc<dyn Writer>,
    jobs: Arc<Informer<Job>>,
    queue: Arc<WorkQueue>,
}

impl TtlAfterFinishedController {
    /// Connects the controller to its informer.
    pub fn new(writer: Arc<dyn Writer>, jobs: Arc<Informer<Job>>) -> Arc<Self> {
        let queue = Arc::new(WorkQueue::default());
        jobs.on_change({
            let queue = queue.clone();
            move |delta| {
                if !matches!(delta, Delta::Deleted(_)) && left(delta.newest()).is_some() {
                    queue.add(Key::of(&**delta.newest()));
                }
            }
        });
        Arc::new(TtlAfterFinishedController {
            writer,
            jobs,
            queue,
        })
    }
}

/// How long the job stays; `None`: until somebody deletes it, or it is going already.
fn left(job: &Job) -> Option<Duration> {
    let ttl = job.spec.as_ref()?.ttl_seconds_after_finished?;
    if job.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let passed = Timestamp::now().duration_since(finished_at(job)?);
    let ttl = Duration::from_secs(u64::try_from(ttl).unwrap_or(0));
    Some(ttl.saturating_sub(Duration::try_from(passed).unwrap_or(Duration::ZERO)))
}

#[async_trait::async_trait]
impl Controller for TtlAfterFinishedController {
    fn name(&self) -> &'static str {
        "ttl-after-finished"
    }

    fn queue(&self) -> &Arc<WorkQueue> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<Action, ReconcileError> {
        match self.jobs.get(key).and_then(|job| left(&job)) {
            None => return Ok(Action::Done),
            Some(left) if !left.is_zero() => return Ok(Action::After(left)),
            Some(_) => {}
        }
        // The time to live may have been raised meanwhile.
        let fresh = self.writer.get_object::<Job>(&key.namespace, &key.name);
        let job = match fresh.await {
            Ok(job) => job,
            Err(error) if error.is_not_found() => return Ok(Action::Done),
            Err(error) => return Err(error.into()),
        };
        match left(&job) {
            None => return Ok(Action::Done),
            Some(left) if !left.is_zero() => return Ok(Action::After(left)),
            Some(_) => {}
        }
        let options = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Foreground),
            preconditions: Some(Preconditions {
                uid: job.metadata.uid.clone(),
                resource_version: job.metadata.resource_version.clone(),
            }),
            ..DeleteParams::default()
        };
        let resource = resource_of::<Job>();
        let target = Target {
            resource: &resource,
            namespace: &key.namespace,
            name: &key.name,
        };
        tracing::info!(job = %key, "finished job deleted: its time to live is over");
        ignore_gone(self.writer.delete(target, options).await)?;
        Ok(Action::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::fake::FakeApi;
    use serde_json::json;

    #[tokio::test]
    async fn a_finished_job_goes_when_its_time_is_over() {
        let api = FakeApi::new();
        let controller = TtlAfterFinishedController::new(api.clone(), Arc::default());
        let job = |name: &str, ttl: serde_json::Value, ended: serde_json::Value| {
            api.seed::<Job>(json!({
                "metadata": {"name": name, "namespace": "shop"},
                "spec": {"ttlSecondsAfterFinished": ttl, "template": {}},
                "status": {"conditions": ended}
            }));
        };
        let ended =
            |at: String| json!([{"type": "Complete", "status": "True", "lastTransitionTime": at}]);
        job("old", json!(60), ended("2020-01-01T00:00:00Z".into()));
        job("new", json!(3600), ended(Timestamp::now().to_string()));
        job("running", json!(0), json!([]));
        job("kept", json!(null), ended("2020-01-01T00:00:00Z".into()));
        api.pump(&controller.jobs);
        let mut waits = Vec::new();
        for key in controller.queue.take_all() {
            if let Action::After(wait) = controller.reconcile(&key).await.unwrap() {
                waits.push((key.name, wait > Duration::from_secs(3000)));
            }
        }
        assert_eq!(waits, [("new".to_owned(), true)]);
        assert_eq!(api.take_requests(), ["delete jobs shop/old"]);
    }
}
