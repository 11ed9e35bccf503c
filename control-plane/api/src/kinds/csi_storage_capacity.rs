//! CSIStorageCapacity: how much a driver has left somewhere.

use serde_json::Value;

use super::PLAIN;
use crate::{
    ObjectExt,
    field::{Errors, Path},
    names,
    quantity::Quantity,
    registry::{self, Kind},
    selector::label,
    table::{self, Column},
};

/// `storage.k8s.io/v1` CSIStorageCapacity.
pub static CSI_STORAGE_CAPACITIES: Kind = Kind {
    group: "storage.k8s.io",
    kind: "CSIStorageCapacity",
    plural: "csistoragecapacities",
    singular: "csistoragecapacity",
    schema: "storage.CSIStorageCapacity",
    storage: "csistoragecapacities",
    strategy: &Strategy,
    ..PLAIN
};

struct Strategy;

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("StorageClassName", "The class it is about."),
    table::column("Capacity", "How much is free."),
];

impl registry::Strategy for Strategy {
    fn validate(&self, object: &Value, errors: &mut Errors) {
        let path = Path::new("storageClassName");
        let class = object.str_at("/storageClassName");
        for why in names::subdomain(class) {
            errors.invalid(&path, class, why);
        }
        label::validate_object(
            object.get("nodeTopology"),
            &Path::new("nodeTopology"),
            errors,
        );
        for field in ["capacity", "maximumVolumeSize"] {
            let text = object.str_at(&format!("/{field}"));
            if text.parse::<Quantity>().is_ok_and(|q| q.is_negative()) {
                errors.invalid(
                    &Path::new(field),
                    text,
                    "must be greater than or equal to 0",
                );
            }
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Errors) {
        for field in ["nodeTopology", "storageClassName"] {
            errors.check_immutable(&Path::new(field), new.get(field), old.get(field));
        }
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, _now: jiff::Timestamp) -> Vec<Value> {
        vec![
            Value::from(object.name()),
            Value::from(object.str_at("/storageClassName")),
            Value::from(object.str_at("/capacity")),
        ]
    }
}
