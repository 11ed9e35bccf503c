//! Deletes the victims of a preemption and notes for whom.

use std::sync::Arc;

use hull_client::events::{EventType, Recorder, reference};
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use serde_json::json;

use crate::{framework::Preemption, metrics::SchedulerMetrics, pod::PodInfo, runtime::pod_key};

/// See the module.
#[derive(Clone)]
pub(crate) struct Preemptor {
    pub client: Client,
    pub recorder: Recorder,
    pub metrics: SchedulerMetrics,
}

impl Preemptor {
    /// Deletes the victims; the pod is tried again when they are gone.
    pub async fn run(self, pod: Arc<PodInfo>, preemption: Preemption) {
        for victim in &preemption.victims {
            match self.delete(&pod, victim).await {
                Ok(()) => {
                    tracing::info!(
                        pod = %pod_key(&pod), victim = %pod_key(victim), node = %preemption.node,
                        "pod preempted"
                    );
                    self.metrics.preemption_victims.inc();
                    self.recorder.event(
                        reference(&victim.pod),
                        EventType::Normal,
                        "Preempted",
                        format!("Preempted by pod {} on node {}", pod.uid, preemption.node),
                    );
                }
                Err(error) => {
                    tracing::warn!(victim = %pod_key(victim), %error, "pod not preempted");
                }
            }
        }
        let patch = Patch::Merge(json!({
            "metadata": {"uid": &*pod.uid},
            "status": {"nominatedNodeName": &*preemption.node},
        }));
        let pods = Api::<Pod>::namespaced(self.client.clone(), pod.namespace());
        let params = PatchParams::default();
        let noted = pods.patch_status(pod.name(), &params, &patch);
        if let Err(error) = noted.await {
            tracing::debug!(pod = %pod_key(&pod), %error, "nominated node not written");
        }
    }

    async fn delete(&self, pod: &PodInfo, victim: &PodInfo) -> Result<(), kube::Error> {
        if victim.pod.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        let scheduler = pod.spec().scheduler_name.as_deref();
        let scheduler = scheduler.unwrap_or("default-scheduler");
        let mark = Patch::Strategic(json!({
            "metadata": {"uid": &*victim.uid},
            "status": {"conditions": [{
                "type": "DisruptionTarget",
                "status": "True",
                "reason": "PreemptionByScheduler",
                "message": format!("{scheduler}: preempting to accommodate a higher priority pod"),
                "lastTransitionTime": Time(Timestamp::now()),
            }]}
        }));
        let pods = Api::<Pod>::namespaced(self.client.clone(), victim.namespace());
        let params = PatchParams::default();
        let marked = pods.patch_status(victim.name(), &params, &mark);
        ignore_gone(marked.await.map(|_| ()))?;
        let options = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(victim.uid.to_string()),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        ignore_gone(pods.delete(victim.name(), &options).await.map(|_| ()))
    }
}

fn ignore_gone(outcome: Result<(), kube::Error>) -> Result<(), kube::Error> {
    match outcome {
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        other => other,
    }
}
