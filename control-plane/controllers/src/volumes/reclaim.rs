//! Volumes: their phase, and what becomes of them when their claim is gone.

use std::sync::Arc;

use hull_client::{
    events::{EventType, Recorder, reference},
    volumes::BOUND_BY_CONTROLLER,
};
use k8s_openapi::{
    api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use serde_json::json;

use super::{annotation, volume_name, volume_phase};
use crate::runtime::{
    Action, Controller, Informer, Key, ReconcileError, WorkQueue, WriteError, Writer,
};

/// On a volume that a provisioner made: that one deletes it, too.
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";

/// See the module.
pub struct VolumeReclaimController {
    writer: Arc<dyn Writer>,
    recorder: Recorder,
    pub(super) claims: Arc<Informer<PersistentVolumeClaim>>,
    pub(super) volumes: Arc<Informer<PersistentVolume>>,
    pub(super) queue: Arc<WorkQueue>,
}

impl VolumeReclaimController {
    /// Connects the controller to its informers.
    pub fn new(
        writer: Arc<dyn Writer>,
        recorder: Recorder,
        claims: Arc<Informer<PersistentVolumeClaim>>,
        volumes: Arc<Informer<PersistentVolume>>,
    ) -> Arc<Self> {
        let queue = Arc::new(WorkQueue::default());
        volumes.on_change({
            let queue = queue.clone();
            move |delta| queue.add(Key::of(&**delta.newest()))
        });
        claims.on_change({
            let queue = queue.clone();
            move |delta| {
                let name = volume_name(delta.newest());
                if !name.is_empty() {
                    queue.add(Key::new("", name));
                }
            }
        });
        Arc::new(VolumeReclaimController {
            writer,
            recorder,
            claims,
            volumes,
            queue,
        })
    }

    async fn set_phase(
        &self,
        volume: &PersistentVolume,
        phase: &str,
        problem: Option<(&'static str, String)>,
    ) -> Result<(), WriteError> {
        let status = volume.status.clone().unwrap_or_default();
        let (reason, message) = match &problem {
            Some((reason, message)) => (Some(*reason), Some(message.as_str())),
            None => (None, None),
        };
        if status.phase.as_deref() == Some(phase)
            && status.reason.as_deref() == reason
            && status.message.as_deref() == message
        {
            return Ok(());
        }
        let patch = json!({"metadata": {"uid": volume.metadata.uid}, "status": {
            "phase": phase, "reason": reason, "message": message,
            "lastPhaseTransitionTime": Time(Timestamp::now())}});
        self.writer
            .patch_object(volume, Some("status"), patch)
            .await?;
        if let Some((reason, message)) = problem {
            self.recorder
                .event(reference(volume), EventType::Warning, reason, message);
        }
        Ok(())
    }

    /// The claim that holds the volume, if it is that one and there; asks past the informer
    /// before it says no.
    async fn claim_of(
        &self,
        held: &ObjectReference,
    ) -> Result<Option<PersistentVolumeClaim>, WriteError> {
        let namespace = held.namespace.clone().unwrap_or_default();
        let name = held.name.clone().unwrap_or_default();
        let is_it = |claim: &PersistentVolumeClaim| claim.metadata.uid == held.uid;
        if let Some(claim) = self.claims.get(&Key::new(&*namespace, &*name))
            && is_it(&claim)
        {
            return Ok(Some((*claim).clone()));
        }
        match self
            .writer
            .get_object::<PersistentVolumeClaim>(&namespace, &name)
            .await
        {
            Ok(claim) => Ok(Some(claim).filter(is_it)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The claim took another volume: this one is free again, or still meant for it.
    async fn let_go(&self, volume: &PersistentVolume) -> Result<(), WriteError> {
        let by_us = annotation(volume, BOUND_BY_CONTROLLER).is_some();
        let claim_ref = if by_us {
            json!(null)
        } else {
            json!({"uid": null, "resourceVersion": null})
        };
        let patch = json!({
            "metadata": {"resourceVersion": volume.metadata.resource_version,
                "annotations": {BOUND_BY_CONTROLLER: null}},
            "spec": {"claimRef": claim_ref},
        });
        self.writer.patch_object(volume, None, patch).await?;
        Ok(())
    }

    async fn reclaim(&self, volume: &PersistentVolume) -> Result<(), WriteError> {
        if !matches!(volume_phase(volume), "Released" | "Failed") {
            self.set_phase(volume, "Released", None).await?;
            return Ok(());
        }
        let policy = volume.spec.as_ref();
        let policy = policy.and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
        let name = volume.metadata.name.as_deref().unwrap_or_default();
        match policy {
            Some("Delete") if annotation(volume, PROVISIONED_BY).is_none() => {
                let problem = format!(
                    "error getting deleter volume plugin for volume \"{name}\": no deletable volume plugin matched"
                );
                self.set_phase(volume, "Failed", Some(("VolumeFailedDelete", problem)))
                    .await
            }
            Some("Recycle") => {
                let problem = "No recycler plugin found for the volume!".to_owned();
                self.set_phase(volume, "Failed", Some(("VolumeFailedRecycle", problem)))
                    .await
            }
            // Retain: it is the administrator's. Delete: its provisioner sees the phase.
            _ => Ok(()),
        }
    }

    async fn sync(&self, volume: &PersistentVolume) -> Result<(), WriteError> {
        let held = volume.spec.as_ref().and_then(|spec| spec.claim_ref.clone());
        let Some(held) = held.filter(|held| held.uid.as_deref().is_some_and(|uid| !uid.is_empty()))
        else {
            return self.set_phase(volume, "Available", None).await;
        };
        let Some(claim) = self.claim_of(&held).await? else {
            return self.reclaim(volume).await;
        };
        match volume_name(&claim) {
            // The binder is about to write it.
            "" => Ok(()),
            name if Some(name) == volume.metadata.name.as_deref() => {
                self.set_phase(volume, "Bound", None).await
            }
            _ => self.let_go(volume).await,
        }
    }
}

#[async_trait::async_trait]
impl Controller for VolumeReclaimController {
    fn name(&self) -> &'static str {
        "persistentvolume-reclaim"
    }

    fn queue(&self) -> &Arc<WorkQueue> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<Action, ReconcileError> {
        let Some(volume) = self.volumes.get(key) else {
            return Ok(Action::Done);
        };
        match self.sync(&volume).await {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(Action::Done),
        }
    }
}
