//! Finalizers: a claim stays while a pod uses it, a volume while it is bound.

use std::{fmt::Debug, sync::Arc};

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::Resource;
use serde_json::json;

use super::{ephemeral::claim_name, volume_phase};
use crate::{
    pods,
    runtime::{
        Action, Controller, Informer, Key, ReconcileError, Target, WorkQueue, WriteError, Writer,
        writer::resource_of,
    },
};

const CLAIM_FINALIZER: &str = "kubernetes.io/pvc-protection";
const VOLUME_FINALIZER: &str = "kubernetes.io/pv-protection";

/// Adds the finalizer to objects that live; takes it from those that go and are not in use.
async fn protect<K>(
    writer: &dyn Writer,
    object: &K,
    finalizer: &str,
    in_use: impl AsyncFnOnce() -> Result<bool, WriteError>,
) -> Result<(), WriteError>
where
    K: Resource<DynamicType = ()>,
{
    let meta = object.meta();
    let mut finalizers = meta.finalizers.clone().unwrap_or_default();
    let has = finalizers.iter().any(|own| own == finalizer);
    match meta.deletion_timestamp.is_some() {
        false if !has => finalizers.push(finalizer.into()),
        true if has && !in_use().await? => finalizers.retain(|own| own != finalizer),
        _ => return Ok(()),
    }
    let patch = json!({"metadata": {
        "resourceVersion": meta.resource_version, "finalizers": finalizers}});
    match writer.patch_object(object, None, patch).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

/// Names of the claims that a pod mounts.
fn claims_of(pod: &Pod) -> Vec<String> {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
    let volumes = volumes.into_iter().flatten();
    volumes
        .filter_map(|volume| match &volume.persistent_volume_claim {
            Some(source) => Some(source.claim_name.clone()),
            None => volume
                .ephemeral
                .as_ref()
                .map(|_| claim_name(pod, &volume.name)),
        })
        .collect()
}

/// The pod has the claim's volume: it is on a node and has not ended.
fn uses(pod: &Pod, claim: &str) -> bool {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    node.is_some_and(|node| !node.is_empty())
        && !pods::is_terminal(pod)
        && claims_of(pod).iter().any(|name| name == claim)
}

/// Claims.
pub struct ClaimProtectionController {
    writer: Arc<dyn Writer>,
    pub(super) claims: Arc<Informer<PersistentVolumeClaim>>,
    pub(super) pods: Arc<Informer<Pod>>,
    queue: Arc<WorkQueue>,
}

fn enqueue<K: Resource + Debug + Send + Sync + 'static>(
    objects: &Informer<K>,
    queue: &Arc<WorkQueue>,
) {
    let queue = queue.clone();
    objects.on_change(move |delta| queue.add(Key::of(&**delta.newest())));
}

impl ClaimProtectionController {
    /// Connects the controller to its informers.
    pub fn new(
        writer: Arc<dyn Writer>,
        claims: Arc<Informer<PersistentVolumeClaim>>,
        pods: Arc<Informer<Pod>>,
    ) -> Arc<Self> {
        let queue = Arc::new(WorkQueue::default());
        enqueue(&claims, &queue);
        pods.on_change({
            let (claims, queue) = (claims.clone(), queue.clone());
            move |delta| {
                let pod = delta.newest();
                let namespace = pod.metadata.namespace.clone().unwrap_or_default();
                for name in claims_of(pod) {
                    let key = Key::new(&*namespace, name);
                    let claim = claims.get(&key);
                    if claim.is_some_and(|claim| claim.metadata.deletion_timestamp.is_some()) {
                        queue.add(key);
                    }
                }
            }
        });
        Arc::new(ClaimProtectionController {
            writer,
            claims,
            pods,
            queue,
        })
    }

    /// Asks past the informer before it says no.
    async fn is_used(&self, claim: &PersistentVolumeClaim) -> Result<bool, WriteError> {
        let meta = &claim.metadata;
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let name = meta.name.as_deref().unwrap_or_default();
        if self
            .pods
            .in_namespace(namespace)
            .iter()
            .any(|pod| uses(pod, name))
        {
            return Ok(true);
        }
        let resource = resource_of::<Pod>();
        let target = Target {
            resource: &resource,
            namespace,
            name: "",
        };
        let listed = self.writer.list(target).await?;
        Ok(listed
            .into_iter()
            .any(|pod| pod.try_parse::<Pod>().is_ok_and(|pod| uses(&pod, name))))
    }
}

#[async_trait::async_trait]
impl Controller for ClaimProtectionController {
    fn name(&self) -> &'static str {
        "persistentvolumeclaim-protection"
    }

    fn queue(&self) -> &Arc<WorkQueue> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<Action, ReconcileError> {
        if let Some(claim) = self.claims.get(key) {
            let in_use = async || self.is_used(&claim).await;
            protect(&*self.writer, &*claim, CLAIM_FINALIZER, in_use).await?;
        }
        Ok(Action::Done)
    }
}

/// A claim has the volume, also one whose phase is not written yet.
fn is_held(volume: &PersistentVolume) -> bool {
    let spec = volume.spec.as_ref();
    let claim = spec.and_then(|spec| spec.claim_ref.as_ref());
    let by_uid = claim.is_some_and(|claim| claim.uid.as_ref().is_some_and(|uid| !uid.is_empty()));
    match volume_phase(volume) {
        "Bound" => true,
        "Released" | "Failed" => false,
        _ => by_uid,
    }
}

/// Volumes.
pub struct VolumeProtectionController {
    writer: Arc<dyn Writer>,
    pub(super) volumes: Arc<Informer<PersistentVolume>>,
    queue: Arc<WorkQueue>,
}

impl VolumeProtectionController {
    /// Connects the controller to its informer.
    pub fn new(writer: Arc<dyn Writer>, volumes: Arc<Informer<PersistentVolume>>) -> Arc<Self> {
        let queue = Arc::new(WorkQueue::default());
        enqueue(&volumes, &queue);
        Arc::new(VolumeProtectionController {
            writer,
            volumes,
            queue,
        })
    }
}

#[async_trait::async_trait]
impl Controller for VolumeProtectionController {
    fn name(&self) -> &'static str {
        "persistentvolume-protection"
    }

    fn queue(&self) -> &Arc<WorkQueue> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<Action, ReconcileError> {
        if let Some(volume) = self.volumes.get(key) {
            let in_use = async || Ok(is_held(&volume));
            protect(&*self.writer, &*volume, VOLUME_FINALIZER, in_use).await?;
        }
        Ok(Action::Done)
    }
}
