//! Generic ephemeral volumes: a claim of the pod's own for each volume with a template.

use std::sync::Arc;

use hull_client::events::{EventType, Recorder, reference};
use k8s_openapi::{
    api::core::v1::{PersistentVolumeClaim, Pod, Volume},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use crate::{
    adopt::{controller_reference, is_controlled_by},
    pods,
    runtime::{
        Action, Controller, Delta, Informer, Key, ReconcileError, WorkQueue, WriteError, Writer,
    },
};

/// The claim's name.
pub(super) fn claim_name(pod: &Pod, volume: &str) -> String {
    format!(
        "{}-{volume}",
        pod.metadata.name.as_deref().unwrap_or_default()
    )
}

fn ephemeral_volumes(pod: &Pod) -> impl Iterator<Item = &Volume> {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
    let volumes = volumes.into_iter().flatten();
    volumes.filter(|volume| volume.ephemeral.is_some())
}

/// See the module.
pub struct EphemeralVolumeController {
    writer: Arc<dyn Writer>,
    recorder: Recorder,
    pub(super) pods: Arc<Informer<Pod>>,
    pub(super) claims: Arc<Informer<PersistentVolumeClaim>>,
    pub(super) queue: Arc<WorkQueue>,
}

impl EphemeralVolumeController {
    /// Connects the controller to its informers.
    pub fn new(
        writer: Arc<dyn Writer>,
        recorder: Recorder,
        pods: Arc<Informer<Pod>>,
        claims: Arc<Informer<PersistentVolumeClaim>>,
    ) -> Arc<Self> {
        let queue = Arc::new(WorkQueue::default());
        pods.on_change({
            let queue = queue.clone();
            move |delta| {
                let pod = delta.newest();
                if pods::is_active(pod) && ephemeral_volumes(pod).next().is_some() {
                    queue.add(Key::of(&**pod));
                }
            }
        });
        claims.on_change({
            let (pods, queue) = (pods.clone(), queue.clone());
            move |delta| {
                // A claim that went is made again while its pod is there.
                if let Delta::Deleted(claim) = delta
                    && let Some(owner) = crate::runtime::informer::controller_of(&***claim)
                    && owner.kind == "Pod"
                {
                    let namespace = claim.metadata.namespace.clone().unwrap_or_default();
                    let key = Key::new(namespace, &*owner.name);
                    if pods.get(&key).is_some() {
                        queue.add(key);
                    }
                }
            }
        });
        Arc::new(EphemeralVolumeController {
            writer,
            recorder,
            pods,
            claims,
            queue,
        })
    }

    async fn make(&self, pod: &Pod, volume: &Volume) -> Result<(), ReconcileError> {
        let Some(template) = volume
            .ephemeral
            .as_ref()
            .and_then(|source| source.volume_claim_template.as_ref())
        else {
            return Ok(());
        };
        let name = claim_name(pod, &volume.name);
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        if let Some(claim) = self.claims.get(&Key::new(&*namespace, &*name)) {
            if is_controlled_by(&*claim, pod) {
                return Ok(());
            }
            let problem = format!(
                "PVC \"{namespace}/{name}\" was not created for pod \"{namespace}/{}\" (pod is not owner)",
                pod.metadata.name.as_deref().unwrap_or_default()
            );
            let object = reference(pod);
            self.recorder.event(
                object,
                EventType::Warning,
                "FailedBinding",
                problem.as_str(),
            );
            return Err(ReconcileError::Waiting(problem));
        }
        let meta = template.metadata.clone().unwrap_or_default();
        let claim = PersistentVolumeClaim {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(namespace),
                labels: meta.labels,
                annotations: meta.annotations,
                owner_references: Some(vec![controller_reference(pod)]),
                ..ObjectMeta::default()
            },
            spec: Some(template.spec.clone()),
            status: None,
        };
        let created: Result<PersistentVolumeClaim, WriteError> =
            self.writer.create_object(&claim).await;
        match created {
            Err(error) if error.is_namespace_terminating() => Ok(()),
            Err(error) => {
                let object = reference(pod);
                let message = format!(
                    "ephemeral volume {}: create PVC: {}",
                    volume.name,
                    error.message()
                );
                self.recorder
                    .event(object, EventType::Warning, "FailedCreate", message);
                Err(error.into())
            }
            Ok(_) => Ok(()),
        }
    }
}

#[async_trait::async_trait]
impl Controller for EphemeralVolumeController {
    fn name(&self) -> &'static str {
        "ephemeral-volume"
    }

    fn queue(&self) -> &Arc<WorkQueue> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<Action, ReconcileError> {
        let Some(pod) = self.pods.get(key).filter(|pod| pods::is_active(pod)) else {
            return Ok(Action::Done);
        };
        for volume in ephemeral_volumes(&pod) {
            self.make(&pod, volume).await?;
        }
        Ok(Action::Done)
    }
}
