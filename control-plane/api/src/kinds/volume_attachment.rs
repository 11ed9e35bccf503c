//! VolumeAttachment.

use serde_json::{Value, json};

use super::PLAIN;
use crate::{
    ObjectExt,
    field::{Errors, Path},
    registry::{self, Kind, Subresource},
    table::{self, Column},
};

/// `storage.k8s.io/v1` VolumeAttachment.
pub static VOLUME_ATTACHMENTS: Kind = Kind {
    group: "storage.k8s.io",
    kind: "VolumeAttachment",
    plural: "volumeattachments",
    singular: "volumeattachment",
    namespaced: false,
    subresources: &[Subresource::Status],
    schema: "storage.VolumeAttachment",
    storage: "volumeattachments",
    strategy: &Strategy,
    ..PLAIN
};

struct Strategy;

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("Attacher", "The driver that attaches."),
    table::column("PV", "The volume."),
    table::column("Node", "The node."),
    table::column("Attached", "It is attached."),
    table::AGE,
];

impl registry::Strategy for Strategy {
    fn prepare_create(&self, object: &mut Value) {
        object.set_at(&["status"], json!({"attached": false}));
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let spec = Path::new("spec");
        for field in ["attacher", "nodeName"] {
            if object.str_at(&format!("/spec/{field}")).is_empty() {
                errors.required(&spec.child(field), "");
            }
        }
        let source = spec.child("source");
        let volume = !object
            .str_at("/spec/source/persistentVolumeName")
            .is_empty();
        let inline = object
            .pointer("/spec/source/inlineVolumeSpec")
            .is_some_and(Value::is_object);
        if !volume && !inline {
            errors.required(
                &source,
                "must specify exactly one of inlineVolumeSpec and persistentVolumeName",
            );
        } else if volume && inline {
            errors.forbidden(
                &source,
                "must specify exactly one of inlineVolumeSpec and persistentVolumeName",
            );
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Errors) {
        if new.get("spec") != old.get("spec") {
            errors.invalid(
                &Path::new("spec"),
                new.get("spec").cloned().unwrap_or(Value::Null),
                "field is immutable",
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
        vec![
            Value::from(object.name()),
            Value::from(object.str_at("/spec/attacher")),
            Value::from(object.str_at("/spec/source/persistentVolumeName")),
            Value::from(object.str_at("/spec/nodeName")),
            Value::from(object.bool_at("/status/attached")),
            table::age_cell(object, now),
        ]
    }
}
