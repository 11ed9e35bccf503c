//! VolumeBinding: nodes that reach the pod's volumes; claims that wait for their first consumer
//! get a volume that the chosen node reaches.

use std::{sync::Arc, time::Duration};

use hull_client::{
    timeouts::scaled,
    volumes::{
        BIND_COMPLETED, BOUND_BY_CONTROLLER, SELECTED_NODE, reaches, reference_to,
        waits_for_consumer,
    },
};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
    runtime::wait::await_condition,
};
use serde_json::json;

use crate::{
    cache::{Cache, NodeInfo},
    framework::{
        BindError, CycleState, Event, Filter, Plugin, PreBind, PreFilter, Rejection, Reserve, Sees,
    },
    plugins::volume_events,
    pod::PodInfo,
    volumes::{Choice, Choices, Waiting, choose},
};

/// Longest wait for the other side of the bindings, times the factor for slow machines.
const BIND_TIMEOUT: Duration = Duration::from_secs(600);

/// See the module.
pub struct VolumeBinding;

/// The pod's claims, sorted.
pub(crate) struct PodVolumes {
    /// Volumes of bound claims; `None`: it is gone.
    pub bound: Vec<Option<Arc<PersistentVolume>>>,
    pub waiting: Vec<Waiting>,
}

impl Plugin for VolumeBinding {
    fn name(&self) -> &'static str {
        "VolumeBinding"
    }
}

fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    let annotations = claim.metadata.annotations.as_ref();
    annotations.is_some_and(|annotations| annotations.contains_key(BIND_COMPLETED))
}

fn volume_name(claim: &PersistentVolumeClaim) -> &str {
    let spec = claim.spec.as_ref();
    spec.and_then(|spec| spec.volume_name.as_deref())
        .unwrap_or_default()
}

fn sort_out(pod: &PodInfo, cache: &Cache) -> Result<PodVolumes, Rejection> {
    let mut sorted = PodVolumes {
        bound: Vec::new(),
        waiting: Vec::new(),
    };
    let volumes = cache.volumes();
    for wanted in &pod.claims {
        let name = &wanted.name;
        let Some(claim) = volumes.claim(pod.namespace(), name) else {
            return Err(Rejection::for_good(match wanted.is_ephemeral {
                true => format!(
                    "waiting for ephemeral volume controller to create the persistentvolumeclaim \"{name}\""
                ),
                false => format!("persistentvolumeclaim \"{name}\" not found"),
            }));
        };
        if claim.metadata.deletion_timestamp.is_some() {
            let reason = format!("persistentvolumeclaim \"{name}\" is being deleted");
            return Err(Rejection::for_good(reason));
        }
        let phase = claim
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        if phase == Some("Lost") {
            let volume = volume_name(claim);
            let reason = format!(
                "persistentvolumeclaim \"{name}\" bound to non-existent persistentvolume \"{volume}\""
            );
            return Err(Rejection::for_good(reason));
        }
        if is_bound(claim) {
            sorted
                .bound
                .push(volumes.volume(volume_name(claim)).cloned());
            continue;
        }
        let class = volumes.class(claim);
        if !volume_name(claim).is_empty() || !class.is_some_and(|class| waits_for_consumer(class)) {
            return Err(Rejection::for_good(
                "pod has unbound immediate PersistentVolumeClaims",
            ));
        }
        sorted.waiting.push(Waiting {
            candidates: volumes.candidates(claim),
            node: volumes.node_of(claim),
            claim: claim.clone(),
            class: class.cloned(),
        });
    }
    Ok(sorted)
}

impl PreFilter for VolumeBinding {
    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        cache: &Cache,
    ) -> Result<Option<Vec<String>>, Rejection> {
        if !pod.claims.is_empty() {
            state.put(sort_out(pod, cache)?);
        }
        Ok(None)
    }
}

impl Filter for VolumeBinding {
    fn filter(&self, state: &CycleState, _: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        let (Some(volumes), Some(node)) = (state.get::<PodVolumes>(), &node.node) else {
            return Ok(());
        };
        for volume in &volumes.bound {
            match volume {
                None => {
                    return Err(Rejection::for_good(
                        "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)",
                    ));
                }
                Some(volume) if !reaches(volume, node) => {
                    return Err(Rejection::for_good(
                        "node(s) didn't match PersistentVolume's node affinity",
                    ));
                }
                Some(_) => {}
            }
        }
        match choose(&volumes.waiting, node) {
            Some(_) => Ok(()),
            None => Err(Rejection::for_good(
                "node(s) didn't find available persistent volumes to bind",
            )),
        }
    }

    fn sees(&self, _: &CycleState) -> Sees {
        Sees::NoPods
    }

    fn ignores(&self, event: &Event<'_>) -> bool {
        volume_events::ignores(event)
    }

    fn is_cured_by(&self, pod: &PodInfo, event: &Event<'_>) -> bool {
        volume_events::cures(pod, event)
    }
}

impl Reserve for VolumeBinding {
    fn reserve(&self, pod: &PodInfo, node: &str, cache: &Cache) -> Result<(), Rejection> {
        if pod.claims.is_empty() {
            return Ok(());
        }
        let volumes = sort_out(pod, cache)?;
        let node = cache.node(node).and_then(|node| node.node.as_deref());
        let chosen = node.and_then(|node| choose(&volumes.waiting, node));
        let chosen = chosen.ok_or_else(|| {
            Rejection::because("node(s) didn't find available persistent volumes to bind")
        })?;
        cache.volumes().choose(&pod.uid, chosen);
        Ok(())
    }

    fn unreserve(&self, pod: &PodInfo, _: &str, cache: &Cache) {
        cache.volumes().forget(&pod.uid);
    }
}

/// Writes what was chosen and waits until the claims are bound.
pub struct VolumeBinder {
    client: Client,
    choices: Choices,
}

impl VolumeBinder {
    /// Through this client.
    pub fn new(client: Client, choices: Choices) -> Self {
        VolumeBinder { client, choices }
    }

    fn claims(&self, claim: &PersistentVolumeClaim) -> Api<PersistentVolumeClaim> {
        let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
        Api::namespaced(self.client.clone(), namespace)
    }

    async fn write(&self, choice: &Choice) -> Result<(), kube::Error> {
        let params = PatchParams::default();
        match choice {
            Choice::Bind(volume, claim) => {
                let held = volume
                    .spec
                    .as_ref()
                    .is_some_and(|spec| spec.claim_ref.is_some());
                let mut patch = json!({
                    "metadata": {"resourceVersion": volume.metadata.resource_version},
                    "spec": {"claimRef": reference_to(claim)},
                });
                if !held {
                    patch["metadata"]["annotations"] = json!({BOUND_BY_CONTROLLER: "yes"});
                }
                let name = volume.metadata.name.as_deref().unwrap_or_default();
                let volumes = Api::<PersistentVolume>::all(self.client.clone());
                volumes.patch(name, &params, &Patch::Merge(patch)).await?;
            }
            Choice::Provision(claim, node) => {
                let patch = json!({"metadata": {"uid": claim.metadata.uid,
                    "annotations": {SELECTED_NODE: node}}});
                let name = claim.metadata.name.as_deref().unwrap_or_default();
                self.claims(claim)
                    .patch(name, &params, &Patch::Merge(patch))
                    .await?;
            }
        }
        Ok(())
    }
}

impl Plugin for VolumeBinder {
    fn name(&self) -> &'static str {
        "VolumeBinding"
    }
}

#[async_trait::async_trait]
impl PreBind for VolumeBinder {
    async fn pre_bind(&self, pod: &PodInfo, _: &str) -> Result<(), BindError> {
        let chosen = self
            .choices
            .lock()
            .get(&pod.uid)
            .cloned()
            .unwrap_or_default();
        let failed = |problem: String| BindError::Volumes(format!("binding volumes: {problem}"));
        for choice in &chosen {
            self.write(choice)
                .await
                .map_err(|error| failed(error.to_string()))?;
        }
        for choice in &chosen {
            let (Choice::Bind(_, claim) | Choice::Provision(claim, _)) = choice;
            let name = claim.metadata.name.as_deref().unwrap_or_default();
            let bound = |claim: Option<&PersistentVolumeClaim>| claim.is_none_or(is_bound);
            let wait = await_condition(self.claims(claim), name, bound);
            match tokio::time::timeout(scaled(BIND_TIMEOUT), wait).await {
                Ok(Ok(Some(_))) => {}
                Ok(Ok(None)) => {
                    return Err(failed(format!(
                        "persistentvolumeclaim \"{name}\" not found"
                    )));
                }
                Ok(Err(error)) => return Err(failed(error.to_string())),
                Err(_) => return Err(failed("context deadline exceeded".into())),
            }
        }
        Ok(())
    }
}
