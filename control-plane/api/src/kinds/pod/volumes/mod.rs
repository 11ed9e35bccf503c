//! Rules of a pod's volumes.

mod files;
mod projected;

use std::collections::HashSet;

use serde_json::Value;

pub(super) use files::validate_descending;

use self::files::{check_mode, validate_downward_items, validate_key_items};
use crate::{
    ObjectExt,
    field::{Errors, Path},
    kinds::persistent_volume_claim,
    meta, names,
    selector::label,
};

/// Texts that a source cannot do without.
const REQUIRED: [(&str, &[&str]); 16] = [
    ("secret", &["secretName"]),
    ("configMap", &["name"]),
    ("hostPath", &["path"]),
    ("persistentVolumeClaim", &["claimName"]),
    ("csi", &["driver"]),
    ("nfs", &["server", "path"]),
    ("iscsi", &["targetPortal", "iqn"]),
    ("rbd", &["image"]),
    ("cinder", &["volumeID"]),
    ("glusterfs", &["endpoints", "path"]),
    ("azureFile", &["secretName", "shareName"]),
    ("azureDisk", &["diskName", "diskURI"]),
    ("gcePersistentDisk", &["pdName"]),
    ("awsElasticBlockStore", &["volumeID"]),
    ("vsphereVolume", &["volumePath"]),
    ("flexVolume", &["driver"]),
];

const HOST_PATH_TYPES: [&str; 8] = [
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
];

/// Checks the volumes.
pub(super) fn validate(spec: &Value, path: &Path, errors: &mut Errors) {
    let mut names: HashSet<&str> = HashSet::new();
    for (index, volume) in spec.list_at("/volumes").iter().enumerate() {
        let path = path.index(index);
        let name = volume.str_at("/name");
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        } else {
            for why in names::label(name) {
                errors.invalid(&path.child("name"), name, why);
            }
        }
        if !names.insert(name) {
            errors.duplicate(&path.child("name"), name);
        }
        validate_source(volume, &path, errors);
    }
}

fn validate_source(volume: &Value, path: &Path, errors: &mut Errors) {
    let sources: Vec<&String> = volume
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, _)| key)
        .filter(|key| *key != "name")
        .collect();
    match sources.as_slice() {
        [] => return errors.required(path, "must specify a volume type"),
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
    for (source, fields) in REQUIRED {
        for field in fields.iter().filter(|_| volume.get(source).is_some()) {
            if volume.str_at(&format!("/{source}/{field}")).is_empty() {
                errors.required(&path.child(source).child(field), "");
            }
        }
    }
    for source in ["secret", "configMap", "projected", "downwardAPI"] {
        let mode = volume.int_at(&format!("/{source}/defaultMode"));
        check_mode(mode, &path.child(source).child("defaultMode"), errors);
    }
    for source in ["secret", "configMap"] {
        let items = volume.list_at(&format!("/{source}/items"));
        validate_key_items(items, &path.child(source).child("items"), errors);
    }
    validate_downward_items(
        volume.list_at("/downwardAPI/items"),
        &path.child("downwardAPI").child("items"),
        errors,
    );
    projected::validate(volume, &path.child("projected"), errors);
    validate_host_path(volume, path, errors);
    validate_empty_dir(volume, path, errors);
    validate_remote(volume, path, errors);
}

fn validate_host_path(volume: &Value, path: &Path, errors: &mut Errors) {
    if volume.get("hostPath").is_none() {
        return;
    }
    let path = path.child("hostPath");
    let host_path = volume.str_at("/hostPath/path");
    if host_path.split('/').any(|part| part == "..") {
        errors.invalid(&path.child("path"), host_path, "must not contain '..'");
    }
    let kind = volume.str_at("/hostPath/type");
    errors.check_supported(&path.child("type"), kind, &HOST_PATH_TYPES);
}

/// What is said of sources elsewhere, beyond that their texts are there.
fn validate_remote(volume: &Value, path: &Path, errors: &mut Errors) {
    let share = volume.str_at("/nfs/path");
    if volume.get("nfs").is_some() && !share.starts_with('/') {
        let path = path.child("nfs").child("path");
        errors.invalid(&path, share, "must be an absolute path");
    }
    for source in ["rbd", "cephfs"] {
        let monitors = volume.list_at(&format!("/{source}/monitors"));
        if volume.get(source).is_some() && monitors.is_empty() {
            errors.required(&path.child(source).child("monitors"), "");
        }
    }
    if volume.pointer("/csi/nodePublishSecretRef").is_some()
        && volume.str_at("/csi/nodePublishSecretRef/name").is_empty()
    {
        let path = path.child("csi").child("nodePublishSecretRef");
        errors.required(&path.child("name"), "");
    }
    validate_claim_template(volume, path, errors);
    if let Some(policy) = volume.pointer("/image/pullPolicy").and_then(Value::as_str) {
        errors.check_supported(
            &path.child("image").child("pullPolicy"),
            policy,
            &["Always", "IfNotPresent", "Never"],
        );
    }
}

/// The claim that a pod makes for itself.
fn validate_claim_template(volume: &Value, path: &Path, errors: &mut Errors) {
    let Some(ephemeral) = volume.get("ephemeral") else {
        return;
    };
    let path = path.child("ephemeral").child("volumeClaimTemplate");
    let Some(template) = ephemeral.get("volumeClaimTemplate") else {
        return errors.required(&path, "");
    };
    let metadata = path.child("metadata");
    meta::validate_annotations(template, &metadata.child("annotations"), errors);
    let labels = template.map_at("/metadata/labels");
    label::validate_labels(labels, &metadata.child("labels"), errors);
    let spec = template.get("spec").unwrap_or(&Value::Null);
    persistent_volume_claim::validate_spec(spec, &path.child("spec"), errors);
}

fn validate_empty_dir(volume: &Value, path: &Path, errors: &mut Errors) {
    let Some(empty_dir) = volume.get("emptyDir") else {
        return;
    };
    let path = path.child("emptyDir");
    let medium = empty_dir.str_at("/medium");
    if !matches!(medium, "" | "Memory") && !medium.starts_with("HugePages") {
        errors.not_supported(&path.child("medium"), medium, &["HugePages", "Memory"]);
    }
    let limit = empty_dir.str_at("/sizeLimit");
    if limit.starts_with('-') {
        errors.forbidden(
            &path.child("sizeLimit"),
            "SizeLimit field must be a valid resource quantity",
        );
    }
}
