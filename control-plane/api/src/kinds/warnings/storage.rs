//! Claims, volumes and their classes.

use serde_json::Value;

use super::{
    Warnings, annotation, annotations, fraction_of_bytes,
    node::{self, Values},
};
use crate::{ObjectExt, field::Path};

const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// Kinds of volumes that do nothing any more. The words are the same in a pod.
const GONE_PLUGINS: [(&str, &str); 8] = [
    (
        "photonPersistentDisk",
        "deprecated in v1.11, non-functional in v1.16+",
    ),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

/// Tells of volume plugins that are gone, in a pod's volume or in a volume's spec.
pub(super) fn gone_plugins(volume: &Value, path: &Path, out: &mut Warnings) {
    for (plugin, words) in GONE_PLUGINS {
        if volume.get(plugin).is_some_and(Value::is_object) {
            // Kubernetes' words name the field of its own program here.
            let shown = if plugin == "storageos" {
                "storageOS"
            } else {
                plugin
            };
            out.at(&path.child(shown), words);
        }
    }
}

fn class_annotation(object: &Value, out: &mut Warnings) {
    if annotation(object, CLASS_ANNOTATION).is_some() {
        out.at(
            &annotations("").key(CLASS_ANNOTATION),
            "deprecated since v1.8; use \"storageClassName\" attribute instead",
        );
    }
}

pub(super) fn of_claim(claim: &Value, out: &mut Warnings) {
    class_annotation(claim, out);
    of_claim_spec(claim.get("spec"), &Path::new("spec"), out);
}

pub(super) fn of_claim_spec(spec: Option<&Value>, path: &Path, out: &mut Warnings) {
    for part in ["requests", "limits"] {
        let amounts = spec.and_then(|spec| spec.pointer(&format!("/resources/{part}")));
        let path = path.child("resources").child(part);
        fraction_of_bytes(amounts, "storage", &path, out);
    }
}

pub(super) fn of_volume(volume: &Value, out: &mut Warnings) {
    class_annotation(volume, out);
    if volume.str_at("/spec/persistentVolumeReclaimPolicy") == "Recycle" {
        out.tell(
            "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.",
        );
    }
    let terms = Path::new("spec.nodeAffinity.required.nodeSelectorTerms");
    let given = volume.list_at("/spec/nodeAffinity/required/nodeSelectorTerms");
    for (index, term) in given.iter().enumerate() {
        node::of_term(term, Values::Checked, &terms.index(index), out);
    }
    if let Some(spec) = volume.get("spec") {
        gone_plugins(spec, &Path::new("spec"), out);
    }
}

pub(super) fn of_class(class: &Value, out: &mut Warnings) {
    for (index, topology) in class.list_at("/allowedTopologies").iter().enumerate() {
        let path = Path::new("allowedTopologies").index(index);
        let expressions = topology.list_at("/matchLabelExpressions");
        for (index, expression) in expressions.iter().enumerate() {
            if let Some(words) = node::deprecated_label(expression.str_at("/key")) {
                let path = path.child("matchLabelExpressions").index(index);
                out.at(&path.child("key"), words);
            }
        }
    }
}

pub(super) fn of_capacity(capacity: &Value, out: &mut Warnings) {
    if let Some(selector) = capacity.get("nodeTopology") {
        node::of_selector(selector, &Path::new("nodeTopology"), out);
    }
}
