//! PersistentVolume.

use serde_json::{Value, json};

use super::{
    PLAIN,
    persistent_volume_claim::{access_modes, check_positive, validate_access_modes},
    pod::validate_node_selector,
};
use crate::{
    ObjectExt,
    field::{Errors, Path},
    names,
    object::default_text,
    registry::{self, Kind, Subresource},
    table::{self, Column},
};

/// `v1` PersistentVolume.
pub static PERSISTENT_VOLUMES: Kind = Kind {
    kind: "PersistentVolume",
    plural: "persistentvolumes",
    singular: "persistentvolume",
    short_names: &["pv"],
    namespaced: false,
    subresources: &[Subresource::Status],
    schema: "core.PersistentVolume",
    storage: "persistentvolumes",
    strategy: &Strategy,
    ..PLAIN
};

struct Strategy;

/// Fields of the spec that say where the storage is.
const SOURCES: [&str; 22] = [
    "awsElasticBlockStore",
    "azureDisk",
    "azureFile",
    "cephfs",
    "cinder",
    "csi",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "glusterfs",
    "hostPath",
    "iscsi",
    "local",
    "nfs",
    "photonPersistentDisk",
    "portworxVolume",
    "quobyte",
    "rbd",
    "scaleIO",
    "storageos",
    "vsphereVolume",
];

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("Capacity", "Its size."),
    table::column("Access Modes", "How it can be mounted."),
    table::column("Reclaim Policy", "What becomes of it after its claim."),
    table::column("Status", "Available, Bound, Released or Failed."),
    table::column("Claim", "Who it is bound to."),
    table::column("StorageClass", "What kind of storage it is."),
    table::column("VolumeAttributesClass", "Its attributes."),
    table::column("Reason", "Why it failed."),
    table::AGE,
    table::wide("VolumeMode", "Filesystem or Block."),
];

impl registry::Strategy for Strategy {
    fn apply_defaults(&self, object: &mut Value) {
        let spec = object.map_mut(&["spec"]);
        default_text(spec, "persistentVolumeReclaimPolicy", "Retain");
        default_text(spec, "volumeMode", "Filesystem");
        if let Some(Value::Object(path)) = spec.get_mut("hostPath") {
            path.entry("type").or_insert(json!(""));
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        object.set_at(&["status"], json!({"phase": "Pending"}));
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let path = Path::new("spec");
        let spec = object.get("spec").unwrap_or(&Value::Null);
        validate_access_modes(
            spec.list_at("/accessModes"),
            &path.child("accessModes"),
            errors,
        );
        let capacity = path.child("capacity");
        match spec.pointer("/capacity/storage") {
            None => errors.required(&capacity, ""),
            Some(amount) => check_positive(amount, &capacity.key("storage"), errors),
        }
        errors.check_supported(
            &path.child("persistentVolumeReclaimPolicy"),
            spec.str_at("/persistentVolumeReclaimPolicy"),
            &["Delete", "Recycle", "Retain"],
        );
        errors.check_supported(
            &path.child("volumeMode"),
            spec.str_at("/volumeMode"),
            &["Block", "Filesystem"],
        );
        validate_source(spec, &path, errors);
        let class = spec.str_at("/storageClassName");
        if !class.is_empty() {
            for why in names::subdomain(class) {
                errors.invalid(&path.child("storageClassName"), class, why);
            }
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Errors) {
        let source = |object: &Value| {
            SOURCES.map(|source| object.pointer(&format!("/spec/{source}")).cloned())
        };
        if source(new) != source(old) {
            errors.forbidden(
                &Path::new("spec.persistentvolumesource"),
                "spec.persistentvolumesource is immutable after creation",
            );
        }
        errors.check_immutable(
            &Path::new("spec.volumeMode"),
            new.pointer("/spec/volumeMode"),
            old.pointer("/spec/volumeMode"),
        );
        if old.pointer("/spec/nodeAffinity").is_some() {
            errors.check_immutable(
                &Path::new("spec.nodeAffinity"),
                new.pointer("/spec/nodeAffinity"),
                old.pointer("/spec/nodeAffinity"),
            );
        }
    }

    fn has_status(&self) -> bool {
        true
    }

    fn returns_deleted(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let claim = match object.pointer("/spec/claimRef") {
            Some(claim) => format!("{}/{}", claim.str_at("/namespace"), claim.str_at("/name")),
            None => String::new(),
        };
        let phase = if object.is_deleting() {
            "Terminating"
        } else {
            object.str_at("/status/phase")
        };
        vec![
            Value::from(object.name()),
            Value::from(object.str_at("/spec/capacity/storage")),
            Value::from(access_modes(object.list_at("/spec/accessModes"))),
            Value::from(object.str_at("/spec/persistentVolumeReclaimPolicy")),
            Value::from(phase),
            Value::from(claim),
            Value::from(object.str_at("/spec/storageClassName")),
            table::text_or(object.str_at("/spec/volumeAttributesClassName"), "<unset>"),
            Value::from(object.str_at("/status/reason")),
            table::age_cell(object, now),
            table::text_or(object.str_at("/spec/volumeMode"), "<unset>"),
        ]
    }
}

fn validate_source(spec: &Value, path: &Path, errors: &mut Errors) {
    let given: Vec<&str> = SOURCES
        .into_iter()
        .filter(|source| spec.get(*source).is_some())
        .collect();
    match given.as_slice() {
        [] => errors.required(path, "must specify a volume type"),
        [_] => {}
        [_, more @ ..] => {
            for source in more {
                errors.forbidden(
                    &path.child(source),
                    "may not specify more than 1 volume type",
                );
            }
        }
    }
    for (source, field) in [
        ("hostPath", "path"),
        ("local", "path"),
        ("nfs", "server"),
        ("nfs", "path"),
        ("csi", "driver"),
        ("csi", "volumeHandle"),
    ] {
        if let Some(value) = spec.get(source)
            && value.str_at(&format!("/{field}")).is_empty()
        {
            errors.required(&path.child(source).child(field), "");
        }
    }
    let host_path = spec.str_at("/hostPath/path");
    if host_path == "/" && spec.str_at("/persistentVolumeReclaimPolicy") == "Recycle" {
        errors.forbidden(
            &path.child("persistentVolumeReclaimPolicy"),
            "may not be 'recycle' for a hostPath mount of '/'",
        );
    }
    if spec.get("local").is_some() && spec.get("nodeAffinity").is_none() {
        errors.required(
            &path.child("nodeAffinity"),
            "Local volume requires node affinity",
        );
    }
    if let Some(affinity) = spec.get("nodeAffinity") {
        let path = path.child("nodeAffinity").child("required");
        match affinity.get("required") {
            Some(required) => validate_node_selector(required, &path, errors),
            None => errors.required(&path, "must specify required node constraints"),
        }
    }
}
