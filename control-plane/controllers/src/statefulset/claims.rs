//! The pods' claims: made before the pod, and kept or deleted as the retention policy says.
//!
//! What deletes a claim is an owner: the set for `whenDeleted`, a pod that is scaled away for
//! `whenScaled`. The garbage collector does the rest.

use k8s_openapi::{
    api::core::v1::{PersistentVolumeClaim, Pod},
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{Resource, api::ObjectMeta};
use serde_json::json;

use super::{StatefulSetController, View, identity};
use crate::runtime::{Key, ReconcileError};

fn deletes(view: &View<'_>, scaled: bool) -> bool {
    let policy = view.spec.persistent_volume_claim_retention_policy.as_ref();
    let when = policy.and_then(|policy| {
        if scaled {
            policy.when_scaled.as_deref()
        } else {
            policy.when_deleted.as_deref()
        }
    });
    when == Some("Delete")
}

fn owner<O: Resource<DynamicType = ()>>(object: &O) -> OwnerReference {
    OwnerReference {
        api_version: O::api_version(&()).into_owned(),
        kind: O::kind(&()).into_owned(),
        name: object.meta().name.clone().unwrap_or_default(),
        uid: object.meta().uid.clone().unwrap_or_default(),
        controller: None,
        block_owner_deletion: None,
    }
}

/// The claim's owners under the policy, others' references kept. `condemned`: the pod is being
/// scaled away.
fn owners(
    view: &View<'_>,
    old: &[OwnerReference],
    pod: Option<&Pod>,
    condemned: bool,
) -> Vec<OwnerReference> {
    let is_set =
        |reference: &OwnerReference| Some(&reference.uid) == view.set.metadata.uid.as_ref();
    let is_pod = |reference: &OwnerReference| {
        reference.kind == "Pod"
            && pod.is_some_and(|pod| pod.metadata.uid.as_ref() == Some(&reference.uid))
    };
    let mut owners: Vec<_> = old
        .iter()
        .filter(|reference| !is_set(reference) && !is_pod(reference))
        .cloned()
        .collect();
    let by_scaling = condemned && deletes(view, true);
    if by_scaling && let Some(pod) = pod {
        owners.push(owner(pod));
    } else if deletes(view, false) {
        owners.push(owner(view.set));
    }
    owners
}

impl StatefulSetController {
    fn claim_of(
        &self,
        view: &View<'_>,
        name: &str,
    ) -> Option<std::sync::Arc<PersistentVolumeClaim>> {
        let namespace = view.set.metadata.namespace.clone().unwrap_or_default();
        self.claims.get(&Key::new(namespace, name))
    }

    /// A claim of the pod that is missing still belongs to its predecessor and is going.
    pub(super) fn claims_are_leaving(&self, view: &View<'_>, ordinal: i32) -> bool {
        identity::templates(view).any(|template| {
            let name = identity::claim_name(view, template, ordinal);
            let Some(claim) = self.claim_of(view, &name) else {
                return false;
            };
            let pod = identity::pod_name(view.set, ordinal);
            let references = claim
                .metadata
                .owner_references
                .as_deref()
                .unwrap_or_default();
            claim.metadata.deletion_timestamp.is_some()
                || references
                    .iter()
                    .any(|own| own.kind == "Pod" && own.name == pod)
        })
    }

    /// Creates the claims of a pod that are missing.
    pub(super) async fn ensure_claims(
        &self,
        view: &View<'_>,
        ordinal: i32,
    ) -> Result<(), ReconcileError> {
        for template in identity::templates(view) {
            let name = identity::claim_name(view, template, ordinal);
            if self.claim_of(view, &name).is_some() {
                continue;
            }
            let claim = new_claim(view, template, name);
            let pod = identity::pod_name(view.set, ordinal);
            self.create_claim(view.set, &pod, &claim).await?;
        }
        Ok(())
    }

    /// Brings the owners of a pod's claims to what the policy says. False if something was
    /// written.
    pub(super) async fn mend_owners(
        &self,
        view: &View<'_>,
        ordinal: i32,
        pod: &Pod,
        condemned: bool,
    ) -> Result<bool, ReconcileError> {
        let mut settled = true;
        for template in identity::templates(view) {
            let name = identity::claim_name(view, template, ordinal);
            let Some(claim) = self.claim_of(view, &name) else {
                continue;
            };
            let old = claim.metadata.owner_references.clone().unwrap_or_default();
            let wanted = owners(view, &old, Some(pod), condemned);
            if wanted == old {
                continue;
            }
            let patch = json!({"metadata": {
                "uid": claim.metadata.uid,
                "resourceVersion": claim.metadata.resource_version,
                "ownerReferences": wanted,
            }});
            self.writer.patch_object(&*claim, None, patch).await?;
            settled = false;
        }
        Ok(settled)
    }
}

fn new_claim(
    view: &View<'_>,
    template: &PersistentVolumeClaim,
    name: String,
) -> PersistentVolumeClaim {
    let mut labels = template.metadata.labels.clone().unwrap_or_default();
    labels.extend(view.spec.selector.match_labels.clone().unwrap_or_default());
    let owners = owners(view, &[], None, false);
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: view.set.metadata.namespace.clone(),
            labels: (!labels.is_empty()).then_some(labels),
            annotations: template.metadata.annotations.clone(),
            finalizers: template.metadata.finalizers.clone(),
            owner_references: (!owners.is_empty()).then_some(owners),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}
