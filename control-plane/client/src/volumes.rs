//! Which PersistentVolume does for which claim. The binder and the scheduler must agree on it.

use hull_api::quantity::Quantity;
use k8s_openapi::{
    api::{
        core::v1::{Node, ObjectReference, PersistentVolume, PersistentVolumeClaim},
        storage::v1::StorageClass,
    },
    apimachinery::pkg::api::resource::Quantity as QuantityText,
};
use kube::core::{Selector, SelectorExt};
use std::collections::BTreeMap;

use crate::node_affinity;

/// On a claim and a volume: both sides of the binding are written.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// The binder chose the other side, not the user.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// On a claim that waits for its first consumer: the node that the scheduler chose.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// The provisioner of classes whose volumes are made by hand.
pub const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// Whose a volume is, from a claim's point of view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// Nobody's.
    Nobody,
    /// The claim's; `uid` is written in it already or not.
    Claim,
    /// Another claim's, also one of the same name that is gone.
    Other,
}

/// Whose the volume is.
pub fn holder(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Holder {
    let reference = volume
        .spec
        .as_ref()
        .and_then(|spec| spec.claim_ref.as_ref());
    let Some(reference) = reference else {
        return Holder::Nobody;
    };
    let meta = &claim.metadata;
    let same = reference.name == meta.name && reference.namespace == meta.namespace;
    let uid = reference.uid.as_deref().unwrap_or_default();
    if same && (uid.is_empty() || Some(uid) == meta.uid.as_deref()) {
        Holder::Claim
    } else {
        Holder::Other
    }
}

/// The reference by which a volume is the claim's.
pub fn reference_to(claim: &PersistentVolumeClaim) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("PersistentVolumeClaim".into()),
        namespace: claim.metadata.namespace.clone(),
        name: claim.metadata.name.clone(),
        uid: claim.metadata.uid.clone(),
        resource_version: claim.metadata.resource_version.clone(),
        field_path: None,
    }
}

fn storage(amounts: Option<&BTreeMap<String, QuantityText>>) -> Quantity {
    let text = amounts.and_then(|amounts| amounts.get("storage"));
    text.and_then(|text| text.0.parse().ok())
        .unwrap_or(Quantity::from_units(0))
}

/// The volume's size.
pub fn capacity(volume: &PersistentVolume) -> Quantity {
    storage(volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref()))
}

/// What the claim asks for.
pub fn requested(claim: &PersistentVolumeClaim) -> Quantity {
    let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    storage(resources.and_then(|resources| resources.requests.as_ref()))
}

/// The class; empty: none. A claim without an answer waits for the default class.
pub fn class_of(claim: &PersistentVolumeClaim) -> &str {
    let spec = claim.spec.as_ref();
    spec.and_then(|spec| spec.storage_class_name.as_deref())
        .unwrap_or_default()
}

/// Claims of the class are bound when their first pod is placed.
pub fn waits_for_consumer(class: &StorageClass) -> bool {
    class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")
}

/// Why the volume does not do for the claim, in Kubernetes' words.
pub fn mismatch(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<&'static str> {
    let (have, want) = (volume.spec.clone()?, claim.spec.clone()?);
    if capacity(volume) < requested(claim) {
        return Some("requested PV is too small");
    }
    if have.storage_class_name.as_deref().unwrap_or_default() != class_of(claim) {
        return Some("storageClassName does not match");
    }
    let mode = |mode: Option<String>| mode.unwrap_or_else(|| "Filesystem".into());
    if mode(have.volume_mode) != mode(want.volume_mode) {
        return Some("incompatible volumeMode");
    }
    if have.volume_attributes_class_name.unwrap_or_default()
        != want.volume_attributes_class_name.unwrap_or_default()
    {
        return Some("volumeAttributesClassName does not match");
    }
    let modes = have.access_modes.unwrap_or_default();
    if !want
        .access_modes
        .iter()
        .flatten()
        .all(|mode| modes.contains(mode))
    {
        return Some("incompatible accessMode");
    }
    None
}

/// The volume can be used on the node.
pub fn reaches(volume: &PersistentVolume, node: &Node) -> bool {
    let affinity = volume
        .spec
        .as_ref()
        .and_then(|spec| spec.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required.as_ref());
    required.is_none_or(|required| {
        let mut terms = required.node_selector_terms.iter();
        terms.any(|term| node_affinity::matches_term(term, node))
    })
}

fn is_free(volume: &PersistentVolume) -> bool {
    let phase = volume
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    phase == Some("Available")
}

fn is_selected(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let selector = claim.spec.as_ref().and_then(|spec| spec.selector.clone());
    let Some(selector) = selector else {
        return true;
    };
    let labels = volume.metadata.labels.clone().unwrap_or_default();
    Selector::try_from(selector).is_ok_and(|selector| selector.matches(&labels))
}

/// Whether the claim may have the volume: it was made for the claim, or it is free and wanted by
/// the claim's selector. `None`: it does not do, is another's, or goes.
pub fn offered(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<Holder> {
    if mismatch(volume, claim).is_some() || volume.metadata.deletion_timestamp.is_some() {
        return None;
    }
    match holder(volume, claim) {
        Holder::Claim => Some(Holder::Claim),
        Holder::Nobody if is_free(volume) && is_selected(volume, claim) => Some(Holder::Nobody),
        Holder::Nobody | Holder::Other => None,
    }
}

/// The volume that was made for the claim, or the smallest that does. `prebound_only`: the
/// scheduler will choose among the free ones.
pub fn find<'v, V>(
    volumes: impl IntoIterator<Item = &'v V>,
    claim: &PersistentVolumeClaim,
    prebound_only: bool,
) -> Option<&'v V>
where
    V: std::ops::Deref<Target = PersistentVolume> + 'v,
{
    let mut best: Option<(&V, Quantity)> = None;
    for volume in volumes {
        match offered(volume, claim) {
            Some(Holder::Claim) => return Some(volume),
            Some(Holder::Nobody) if !prebound_only => {}
            _ => continue,
        }
        let size = capacity(volume);
        let better = best.is_none_or(|(best, least)| {
            size < least || (size == least && volume.metadata.name < best.metadata.name)
        });
        if better {
            best = Some((volume, size));
        }
    }
    best.map(|(volume, _)| volume)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn volume(name: &str, size: &str, spec: Value) -> Arc<PersistentVolume> {
        let mut full = json!({"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"],
            "storageClassName": "fast"});
        for (field, value) in spec.as_object().unwrap() {
            full[field] = value.clone();
        }
        let labels = json!({"size": size});
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": name, "labels": labels},
            "spec": full, "status": {"phase": "Available"}}))
            .unwrap(),
        )
    }

    fn claim(spec: Value) -> PersistentVolumeClaim {
        let mut full = json!({"resources": {"requests": {"storage": "5Gi"}},
            "accessModes": ["ReadWriteOnce"], "storageClassName": "fast"});
        for (field, value) in spec.as_object().unwrap() {
            full[field] = value.clone();
        }
        serde_json::from_value(json!({
            "metadata": {"name": "data", "namespace": "shop", "uid": "u"}, "spec": full}))
        .unwrap()
    }

    fn name(found: Option<&Arc<PersistentVolume>>) -> Option<&str> {
        found?.metadata.name.as_deref()
    }

    #[test]
    fn the_smallest_that_does_is_found() {
        let volumes = [
            volume("small", "1Gi", json!({})),
            volume("big", "50Gi", json!({})),
            volume("right", "6Gi", json!({})),
            volume("slow", "5Gi", json!({"storageClassName": "slow"})),
            volume("block", "5Gi", json!({"volumeMode": "Block"})),
            volume("read", "5Gi", json!({"accessModes": ["ReadOnlyMany"]})),
            volume(
                "taken",
                "5Gi",
                json!({"claimRef": {"namespace": "shop", "name": "other"}}),
            ),
        ];
        assert_eq!(
            name(find(&volumes, &claim(json!({})), false)),
            Some("right")
        );
        assert_eq!(name(find(&volumes, &claim(json!({})), true)), None);
        let chosen = claim(json!({"selector": {"matchLabels": {"size": "50Gi"}}}));
        assert_eq!(name(find(&volumes, &chosen, false)), Some("big"));
        let slow = claim(json!({"storageClassName": "slow"}));
        assert_eq!(name(find(&volumes, &slow, false)), Some("slow"));
    }

    #[test]
    fn a_volume_made_for_the_claim_goes_before_all() {
        let made = json!({"claimRef": {"namespace": "shop", "name": "data"}});
        let former = json!({"claimRef": {"namespace": "shop", "name": "data", "uid": "before"}});
        let mut going = (*volume("going", "5Gi", made.clone())).clone();
        going.metadata.deletion_timestamp =
            serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
        let volumes = [
            volume("free", "5Gi", json!({})),
            volume("former", "5Gi", former),
            Arc::new(going),
            volume("made", "90Gi", made),
        ];
        assert_eq!(name(find(&volumes, &claim(json!({})), true)), Some("made"));
    }

    #[test]
    fn a_volume_is_reached_by_the_nodes_of_any_of_its_terms() {
        let term = |host: &str| json!({"matchExpressions": [{"key": "host", "operator": "In", "values": [host]}]});
        let on = |terms: Value| json!({"nodeAffinity": {"required": {"nodeSelectorTerms": terms}}});
        let node = |host: &str| -> Node {
            serde_json::from_value(json!({"metadata": {"labels": {"host": host}}})).unwrap()
        };
        let local = volume("local", "5Gi", on(json!([term("a"), term("b")])));
        let hosts = ["a", "b", "c"];
        let reached = hosts.map(|host| reaches(&local, &node(host)));
        assert_eq!(reached, [true, true, false]);
        let anywhere = volume("anywhere", "5Gi", json!({}));
        assert!(reaches(&anywhere, &node("c")));
        let nowhere = volume("nowhere", "5Gi", on(json!([])));
        assert!(!reaches(&nowhere, &node("a")));
    }
}
