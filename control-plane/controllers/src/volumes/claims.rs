//! Claims: the default class, and the volume that does.

use std::sync::Arc;

use hull_client::{
    events::{EventType, Recorder, reference},
    volumes::{
        BIND_COMPLETED, BOUND_BY_CONTROLLER, Holder, NO_PROVISIONER, SELECTED_NODE, class_of, find,
        holder, mismatch, reference_to, waits_for_consumer,
    },
};
use k8s_openapi::api::{
    core::v1::{PersistentVolume, PersistentVolumeClaim},
    storage::v1::StorageClass,
};
use serde_json::{Value, json};

use super::{annotation, volume_name};
use crate::runtime::{
    Action, Controller, Delta, Informer, Key, ReconcileError, WorkQueue, WriteError, Writer,
};

/// On the class of claims that name none.
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
/// On a claim: who is to make its volume.
const PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
/// The same, as older provisioners read it.
const BETA_PROVISIONER: &str = "volume.beta.kubernetes.io/storage-provisioner";

/// See the module.
pub struct ClaimBinderController {
    writer: Arc<dyn Writer>,
    recorder: Recorder,
    pub(super) claims: Arc<Informer<PersistentVolumeClaim>>,
    pub(super) volumes: Arc<Informer<PersistentVolume>>,
    pub(super) classes: Arc<Informer<StorageClass>>,
    pub(super) queue: Arc<WorkQueue>,
}

/// The claim wants a volume and has none for certain.
fn is_unbound(claim: &PersistentVolumeClaim) -> bool {
    annotation(claim, BIND_COMPLETED).is_none()
}

impl ClaimBinderController {
    /// Connects the controller to its informers.
    pub fn new(
        writer: Arc<dyn Writer>,
        recorder: Recorder,
        claims: Arc<Informer<PersistentVolumeClaim>>,
        volumes: Arc<Informer<PersistentVolume>>,
        classes: Arc<Informer<StorageClass>>,
    ) -> Arc<Self> {
        let queue = Arc::new(WorkQueue::default());
        claims.on_change({
            let queue = queue.clone();
            move |delta| queue.add(Key::of(&**delta.newest()))
        });
        volumes.on_change({
            let (claims, queue) = (claims.clone(), queue.clone());
            move |delta| {
                let volume = delta.newest();
                let spec = volume.spec.as_ref();
                if let Some(holder) = spec.and_then(|spec| spec.claim_ref.as_ref()) {
                    let namespace = holder.namespace.clone().unwrap_or_default();
                    queue.add(Key::new(namespace, holder.name.clone().unwrap_or_default()));
                    return;
                }
                // A free volume may be what some claim has been waiting for.
                let class = spec.and_then(|spec| spec.storage_class_name.as_deref());
                for claim in claims.all() {
                    if is_unbound(&claim) && class_of(&claim) == class.unwrap_or_default() {
                        queue.add(Key::of(&*claim));
                    }
                }
            }
        });
        classes.on_change({
            let (claims, queue) = (claims.clone(), queue.clone());
            move |delta| {
                if matches!(delta, Delta::Deleted(_)) {
                    return;
                }
                let unbound = claims.all().into_iter().filter(|claim| is_unbound(claim));
                unbound.for_each(|claim| queue.add(Key::of(&*claim)));
            }
        });
        Arc::new(ClaimBinderController {
            writer,
            recorder,
            claims,
            volumes,
            classes,
            queue,
        })
    }

    fn say(
        &self,
        claim: &PersistentVolumeClaim,
        kind: EventType,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        self.recorder.event(reference(claim), kind, reason, message);
    }

    /// The newest default class.
    fn default_class(&self) -> Option<Arc<StorageClass>> {
        let mut classes = self.classes.all();
        classes.retain(|class| annotation(&**class, DEFAULT_CLASS) == Some("true"));
        classes.into_iter().max_by(|a, b| {
            let age = |class: &StorageClass| {
                class
                    .metadata
                    .creation_timestamp
                    .as_ref()
                    .map(|time| time.0)
            };
            age(a)
                .cmp(&age(b))
                .then(b.metadata.name.cmp(&a.metadata.name))
        })
    }

    async fn set_phase(
        &self,
        claim: &PersistentVolumeClaim,
        phase: &str,
        more: Value,
    ) -> Result<(), WriteError> {
        let mut status = json!({"phase": phase});
        if let (Value::Object(status), Value::Object(more)) = (&mut status, more) {
            status.extend(more);
        }
        let now = serde_json::to_value(&claim.status).unwrap_or_default();
        let differs = status.as_object().is_some_and(|wanted| {
            wanted
                .iter()
                .any(|(field, value)| now.get(field) != Some(value))
        });
        if !differs {
            return Ok(());
        }
        let patch = json!({"metadata": {"uid": claim.metadata.uid}, "status": status});
        self.writer
            .patch_object(claim, Some("status"), patch)
            .await?;
        Ok(())
    }

    /// Writes both sides; each step is left out that is done already.
    async fn bind(
        &self,
        claim: &PersistentVolumeClaim,
        volume: &PersistentVolume,
    ) -> Result<(), WriteError> {
        let name = volume.metadata.name.clone().unwrap_or_default();
        let spec = volume.spec.clone().unwrap_or_default();
        let held = spec.claim_ref.as_ref();
        let reference = reference_to(claim);
        if held.is_none_or(|held| held.uid != reference.uid) {
            let mut patch = json!({
                "metadata": {"resourceVersion": volume.metadata.resource_version},
                "spec": {"claimRef": reference},
            });
            if held.is_none() {
                patch["metadata"]["annotations"] = json!({BOUND_BY_CONTROLLER: "yes"});
            }
            self.writer.patch_object(volume, None, patch).await?;
        }
        let mut annotations = json!({});
        if volume_name(claim).is_empty() {
            annotations[BOUND_BY_CONTROLLER] = "yes".into();
        }
        if is_unbound(claim) {
            annotations[BIND_COMPLETED] = "yes".into();
        }
        if annotations != json!({}) {
            let patch = json!({
                "metadata": {"resourceVersion": claim.metadata.resource_version,
                    "annotations": annotations},
                "spec": {"volumeName": name},
            });
            self.writer.patch_object(claim, None, patch).await?;
        }
        let mut more = json!({"accessModes": spec.access_modes, "capacity": spec.capacity});
        // What an expansion under way has reached is not taken back.
        let known = claim
            .status
            .as_ref()
            .and_then(|status| status.capacity.as_ref());
        if let (Value::Object(more), Some(_)) = (&mut more, known) {
            more.remove("capacity");
        }
        self.set_phase(claim, "Bound", more).await
    }

    /// A claim that was bound once.
    async fn check_bound(&self, claim: &PersistentVolumeClaim) -> Result<(), WriteError> {
        let lost = if volume_name(claim).is_empty() {
            Some((
                "ClaimLost",
                "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!",
            ))
        } else {
            match self.volumes.get(&Key::new("", volume_name(claim))) {
                None => Some((
                    "ClaimLost",
                    "Bound claim has lost its PersistentVolume. Data on the volume is lost!",
                )),
                Some(volume) => match holder(&volume, claim) {
                    Holder::Other => Some((
                        "ClaimMisbound",
                        "Two claims are bound to the same volume, this one is bound incorrectly",
                    )),
                    _ => return self.bind(claim, &volume).await,
                },
            }
        };
        let phase = claim
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        if let Some((reason, message)) = lost
            && phase != Some("Lost")
        {
            self.say(claim, EventType::Warning, reason, message);
            self.set_phase(
                claim,
                "Lost",
                json!({"accessModes": null, "capacity": null}),
            )
            .await?;
        }
        Ok(())
    }

    /// A claim whose user named the volume.
    async fn bind_named(&self, claim: &PersistentVolumeClaim) -> Result<(), WriteError> {
        let name = volume_name(claim);
        let Some(volume) = self.volumes.get(&Key::new("", name)) else {
            return self.set_phase(claim, "Pending", json!({})).await;
        };
        let problem = match holder(&volume, claim) {
            Holder::Claim => return self.bind(claim, &volume).await,
            Holder::Other => {
                let message = format!("volume \"{name}\" already bound to a different claim.");
                self.say(claim, EventType::Warning, "FailedBinding", message);
                return self.set_phase(claim, "Pending", json!({})).await;
            }
            Holder::Nobody => mismatch(&volume, claim),
        };
        match problem {
            None => self.bind(claim, &volume).await,
            Some(problem) => {
                let message = format!("Cannot bind to requested volume \"{name}\": {problem}");
                self.say(claim, EventType::Warning, "VolumeMismatch", message);
                self.set_phase(claim, "Pending", json!({})).await
            }
        }
    }

    /// A claim that takes any volume.
    async fn bind_any(&self, claim: &PersistentVolumeClaim) -> Result<(), WriteError> {
        let class_name = class_of(claim);
        let class = self.classes.get(&Key::new("", class_name));
        let waits = class
            .as_ref()
            .is_some_and(|class| waits_for_consumer(class))
            && annotation(claim, SELECTED_NODE).is_none();
        let volumes = self.volumes.all();
        if let Some(volume) = find(&volumes, claim, waits) {
            return self.bind(claim, volume).await;
        }
        match class {
            _ if waits => self.say(
                claim,
                EventType::Normal,
                "WaitForFirstConsumer",
                "waiting for first consumer to be created before binding",
            ),
            Some(class) if class.provisioner != NO_PROVISIONER => {
                self.await_provisioner(claim, &class.provisioner).await?;
            }
            None if !class_name.is_empty() => self.say(
                claim,
                EventType::Warning,
                "ProvisioningFailed",
                format!("storageclass.storage.k8s.io \"{class_name}\" not found"),
            ),
            _ => self.say(
                claim,
                EventType::Normal,
                "FailedBinding",
                "no persistent volumes available for this claim and no storage class is set",
            ),
        }
        self.set_phase(claim, "Pending", json!({})).await
    }

    async fn await_provisioner(
        &self,
        claim: &PersistentVolumeClaim,
        provisioner: &str,
    ) -> Result<(), WriteError> {
        let message = format!(
            "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered."
        );
        self.say(claim, EventType::Normal, "ExternalProvisioning", message);
        if annotation(claim, PROVISIONER) == Some(provisioner) {
            return Ok(());
        }
        let patch = json!({"metadata": {"uid": claim.metadata.uid, "annotations": {
            PROVISIONER: provisioner, BETA_PROVISIONER: provisioner}}});
        self.writer.patch_object(claim, None, patch).await?;
        Ok(())
    }

    async fn sync(&self, claim: &PersistentVolumeClaim) -> Result<(), WriteError> {
        if !is_unbound(claim) {
            return self.check_bound(claim).await;
        }
        if !volume_name(claim).is_empty() {
            return self.bind_named(claim).await;
        }
        let spec = claim.spec.as_ref();
        if spec.is_some_and(|spec| spec.storage_class_name.is_none())
            && let Some(class) = self.default_class()
        {
            let patch = json!({
                "metadata": {"resourceVersion": claim.metadata.resource_version},
                "spec": {"storageClassName": class.metadata.name},
            });
            // Its change brings the claim here again.
            self.writer.patch_object(claim, None, patch).await?;
            return Ok(());
        }
        self.bind_any(claim).await
    }
}

#[async_trait::async_trait]
impl Controller for ClaimBinderController {
    fn name(&self) -> &'static str {
        "persistentvolume-binder"
    }

    fn queue(&self) -> &Arc<WorkQueue> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<Action, ReconcileError> {
        let Some(claim) = self.claims.get(key) else {
            return Ok(Action::Done);
        };
        if claim.metadata.deletion_timestamp.is_some() {
            return Ok(Action::Done);
        }
        match self.sync(&claim).await {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(Action::Done),
        }
    }
}
