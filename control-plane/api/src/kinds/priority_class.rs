//! PriorityClass.

use serde_json::Value;

use crate::{
    ObjectExt,
    field::{Errors, Path},
    object::default_text,
    registry,
    table::{self, Column},
};

pub(super) struct Strategy;

/// Values above it are for the system's own classes.
const HIGHEST_USER_PRIORITY: i64 = 1_000_000_000;
const SYSTEM_PREFIX: &str = "system-";
/// The classes that every cluster has, with their values.
pub const SYSTEM_CLASSES: [(&str, i64); 2] = [
    ("system-cluster-critical", 2_000_000_000),
    ("system-node-critical", 2_000_001_000),
];

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("Value", "The priority of pods of this class."),
    table::column("Global-Default", "Pods without a class are of this one."),
    table::AGE,
    table::wide("PreemptionPolicy", "Whether such pods may displace others."),
];

impl registry::Strategy for Strategy {
    fn apply_defaults(&self, object: &mut Value) {
        default_text(
            object.map_mut(&[]),
            "preemptionPolicy",
            "PreemptLowerPriority",
        );
    }

    fn prepare_create(&self, object: &mut Value) {
        object.set_at(&["metadata", "generation"], Value::from(1));
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let name = object.name();
        let value = object.int_at("/value").unwrap_or(0);
        let known = SYSTEM_CLASSES
            .iter()
            .any(|(n, v)| *n == name && *v == value);
        if name.starts_with(SYSTEM_PREFIX) && !known {
            errors.forbidden(
                &Path::new("metadata.name"),
                format!("priority class names with '{SYSTEM_PREFIX}' prefix are reserved for system use only"),
            );
        }
        if value > HIGHEST_USER_PRIORITY && !known {
            errors.forbidden(
                &Path::new("value"),
                format!(
                    "maximum allowed value of a user defined priority is {HIGHEST_USER_PRIORITY}"
                ),
            );
        }
        errors.check_supported(
            &Path::new("preemptionPolicy"),
            object.str_at("/preemptionPolicy"),
            &["Never", "PreemptLowerPriority"],
        );
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Errors) {
        if new.int_at("/value").unwrap_or(0) != old.int_at("/value").unwrap_or(0) {
            errors.forbidden(&Path::new("value"), "may not be changed in an update.");
        }
        errors.check_immutable(
            &Path::new("preemptionPolicy"),
            new.get("preemptionPolicy"),
            old.get("preemptionPolicy"),
        );
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        vec![
            Value::from(object.name()),
            Value::from(object.int_at("/value").unwrap_or(0)),
            Value::from(object.bool_at("/globalDefault")),
            table::age_cell(object, now),
            Value::from(object.str_at("/preemptionPolicy")),
        ]
    }
}
