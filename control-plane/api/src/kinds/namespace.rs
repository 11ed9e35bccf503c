//! Namespace. It stays until `spec.finalizers` is empty: the namespace controller removes
//! its content first, then the finalizer through the `finalize` subresource.

use serde_json::{Value, json};

use crate::{
    ObjectExt,
    field::{Errors, Path},
    names::{self, NameRule},
    registry,
    table::{self, Column},
};

pub(super) struct Strategy;

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("Status", "Active or Terminating."),
    table::AGE,
];

const FINALIZER: &str = "kubernetes";
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

impl registry::Strategy for Strategy {
    fn name_rule(&self) -> NameRule {
        NameRule::Label
    }

    fn apply_defaults(&self, object: &mut Value) {
        let name = object.name().to_string();
        if !name.is_empty() {
            object.set_at(&["metadata", "labels", NAME_LABEL], Value::from(name));
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        object.set_at(&["status"], json!({"phase": "Active"}));
        let kept = object.list_at("/spec/finalizers");
        if !kept.iter().any(|finalizer| finalizer == FINALIZER) {
            let mut finalizers = kept.to_vec();
            finalizers.push(Value::from(FINALIZER));
            object.set_at(&["spec", "finalizers"], Value::Array(finalizers));
        }
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        for part in ["spec", "status"] {
            new.set_at(&[part], old.get(part).cloned().unwrap_or(json!({})));
        }
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        for (index, finalizer) in object.list_at("/spec/finalizers").iter().enumerate() {
            let finalizer = finalizer.as_str().unwrap_or("");
            if finalizer != FINALIZER && !finalizer.contains('/') {
                errors.invalid(
                    &Path::new("spec.finalizers").index(index),
                    finalizer,
                    "name is neither a standard finalizer name nor is it fully qualified",
                );
            }
            for why in names::qualified_name(finalizer) {
                errors.invalid(&Path::new("spec.finalizers").index(index), finalizer, why);
            }
        }
    }

    fn validate_status_update(&self, new: &Value, _old: &Value, errors: &mut Errors) {
        let phase = new.str_at("/status/phase");
        let path = Path::new("status.phase");
        if new.is_deleting() {
            if phase != "Terminating" {
                errors.invalid(
                    &path,
                    phase,
                    "may only be 'Terminating' if `deletionTimestamp` is not empty",
                );
            }
        } else if phase != "Active" {
            errors.invalid(
                &path,
                phase,
                "may only be 'Active' if `deletionTimestamp` is empty",
            );
        }
    }

    fn returns_deleted(&self) -> bool {
        true
    }

    fn held_by_spec(&self, object: &Value) -> bool {
        !object.list_at("/spec/finalizers").is_empty()
    }

    fn on_deletion_marked(&self, object: &mut Value) {
        object.set_at(&["status", "phase"], Value::from("Terminating"));
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["status.phase"]
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        vec![
            Value::from(object.name()),
            Value::from(object.str_at("/status/phase")),
            table::age_cell(object, now),
        ]
    }
}
