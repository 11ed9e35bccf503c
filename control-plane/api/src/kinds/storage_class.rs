//! StorageClass.

use serde_json::Value;

use super::PLAIN;
use crate::{
    ObjectExt,
    field::{Errors, Path},
    names,
    object::default_text,
    registry::{self, Kind},
    table::{self, Column},
};

/// `storage.k8s.io/v1` StorageClass.
pub static STORAGE_CLASSES: Kind = Kind {
    group: "storage.k8s.io",
    kind: "StorageClass",
    plural: "storageclasses",
    singular: "storageclass",
    short_names: &["sc"],
    namespaced: false,
    schema: "storage.StorageClass",
    storage: "storageclasses",
    strategy: &Strategy,
    ..PLAIN
};

/// Marks the class of claims that name none.
pub const DEFAULT_CLASS_ANNOTATION: &str = "storageclass.kubernetes.io/is-default-class";
const MAX_PARAMETERS: usize = 512;
const MAX_PARAMETER_BYTES: usize = 256 * 1024;

struct Strategy;

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("Provisioner", "Who makes the volumes."),
    table::column("ReclaimPolicy", "What becomes of them after their claim."),
    table::column("VolumeBindingMode", "When they are made."),
    table::column("AllowVolumeExpansion", "They can grow."),
    table::AGE,
];

/// The annotation that marks the default class is set.
pub fn is_default_class(class: &Value) -> bool {
    class
        .map_at("/metadata/annotations")
        .and_then(|annotations| annotations.get(DEFAULT_CLASS_ANNOTATION))
        .is_some_and(|value| value == "true")
}

impl registry::Strategy for Strategy {
    fn apply_defaults(&self, object: &mut Value) {
        let map = object.map_mut(&[]);
        default_text(map, "reclaimPolicy", "Delete");
        default_text(map, "volumeBindingMode", "Immediate");
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let provisioner = object.str_at("/provisioner");
        let path = Path::new("provisioner");
        if provisioner.is_empty() {
            errors.required(&path, "");
        } else {
            for why in names::qualified_name(&provisioner.to_lowercase()) {
                errors.invalid(&path, provisioner, why);
            }
        }
        let parameters = object.map_at("/parameters");
        let path = Path::new("parameters");
        let count = parameters.map_or(0, serde_json::Map::len);
        if count > MAX_PARAMETERS {
            errors.too_long(&path, MAX_PARAMETERS);
        }
        let mut total = 0;
        for (key, value) in parameters.into_iter().flatten() {
            if key.is_empty() {
                errors.invalid(&path, key.as_str(), "field can not be empty.");
            }
            total += key.len() + value.as_str().map_or(0, str::len);
        }
        if total > MAX_PARAMETER_BYTES {
            errors.too_long(&path, MAX_PARAMETER_BYTES);
        }
        errors.check_supported(
            &Path::new("reclaimPolicy"),
            object.str_at("/reclaimPolicy"),
            &["Delete", "Retain"],
        );
        errors.check_supported(
            &Path::new("volumeBindingMode"),
            object.str_at("/volumeBindingMode"),
            &["Immediate", "WaitForFirstConsumer"],
        );
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Errors) {
        for field in ["parameters", "provisioner", "reclaimPolicy"] {
            if new.get(field) != old.get(field) {
                errors.forbidden(
                    &Path::new(field),
                    format!("updates to {field} are forbidden."),
                );
            }
        }
        errors.check_immutable(
            &Path::new("volumeBindingMode"),
            new.get("volumeBindingMode"),
            old.get("volumeBindingMode"),
        );
    }

    fn returns_deleted(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let name = if is_default_class(object) {
            format!("{} (default)", object.name())
        } else {
            object.name().to_string()
        };
        vec![
            Value::from(name),
            Value::from(object.str_at("/provisioner")),
            Value::from(object.str_at("/reclaimPolicy")),
            Value::from(object.str_at("/volumeBindingMode")),
            Value::from(object.bool_at("/allowVolumeExpansion")),
            table::age_cell(object, now),
        ]
    }
}
