//! CustomResourceDefinition. What the definitions bring about is in [`crate::custom`].

mod validate;

use serde_json::{Value, json};

use super::PLAIN;
use crate::{
    ObjectExt,
    custom::Definition,
    field::Errors,
    meta,
    object::{default_text, default_to},
    registry::{self, Kind, Subresource},
    table::{self, Column},
    time,
};

/// Holds a definition until all its objects are gone.
pub const CLEANUP_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";
/// Port of a webhook's service when it names none.
const WEBHOOK_PORT: i64 = 443;

/// `apiextensions.k8s.io/v1` CustomResourceDefinition.
pub static CUSTOM_RESOURCE_DEFINITIONS: Kind = Kind {
    group: "apiextensions.k8s.io",
    kind: "CustomResourceDefinition",
    plural: "customresourcedefinitions",
    singular: "customresourcedefinition",
    short_names: &["crd", "crds"],
    categories: &["api-extensions"],
    namespaced: false,
    subresources: &[Subresource::Status],
    schema: "apiextensions.CustomResourceDefinition",
    storage: "apiextensions.k8s.io/customresourcedefinitions",
    strategy: &Strategy,
    ..PLAIN
};

struct Strategy;

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("Created At", "When the definition was created."),
];

/// Sets a condition of a definition; its time changes with its status.
pub fn condition(object: &mut Value, kind: &str, status: bool, reason: &str, message: &str) {
    let status = if status { "True" } else { "False" };
    let mut conditions = object.list_at("/status/conditions").to_vec();
    let since = conditions
        .iter()
        .find(|old| old.str_at("/type") == kind && old.str_at("/status") == status)
        .map(|old| old.str_at("/lastTransitionTime").to_string())
        .filter(|since| !since.is_empty())
        .unwrap_or_else(|| time::to_seconds(jiff::Timestamp::now()));
    let new = json!({
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": since,
    });
    match conditions
        .iter_mut()
        .find(|old| old.str_at("/type") == kind)
    {
        Some(old) => *old = new,
        None => conditions.push(new),
    }
    object.set_at(&["status", "conditions"], Value::Array(conditions));
}

/// The storage version belongs to the stored ones.
fn note_storage_version(object: &mut Value) {
    let storage = Value::from(Definition(object).storage_version());
    let mut stored = object.list_at("/status/storedVersions").to_vec();
    if !stored.contains(&storage) {
        stored.push(storage);
    }
    object.set_at(&["status", "storedVersions"], Value::Array(stored));
}

impl registry::Strategy for Strategy {
    fn apply_defaults(&self, object: &mut Value) {
        let kind = Definition(object).kind().to_string();
        if !kind.is_empty() {
            let names = object.map_mut(&["spec", "names"]);
            default_text(names, "singular", &kind.to_lowercase());
            default_text(names, "listKind", &format!("{kind}List"));
        }
        let spec = object.map_mut(&["spec"]);
        default_to(spec, "conversion", json!({"strategy": "None"}));
        if let Some(Value::Object(service)) =
            object.pointer_mut("/spec/conversion/webhook/clientConfig/service")
        {
            default_to(service, "port", WEBHOOK_PORT);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        let status = json!({"acceptedNames": {"kind": "", "plural": ""}, "conditions": []});
        object.set_at(&["status"], status);
        object.set_at(&["metadata", "generation"], Value::from(1));
        note_storage_version(object);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        let status = old.get("status").cloned();
        new.set_at(&["status"], status.unwrap_or_default());
        note_storage_version(new);
        meta::bump_generation(new, old);
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        validate::definition(object, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Errors) {
        validate::change(new, old, errors);
    }

    /// What was accepted once by less strict rules may stay.
    fn validate_change(&self, new: &Value, old: &Value, errors: &mut Errors) {
        if new.get("spec") != old.get("spec") {
            self.validate(new, errors);
        }
        self.validate_update(new, old, errors);
    }

    fn has_status(&self) -> bool {
        true
    }

    fn on_deletion_asked(&self, object: &mut Value) {
        if object.is_deleting() {
            return;
        }
        let mut finalizers = object.finalizers().to_vec();
        if !finalizers.iter().any(|one| one == CLEANUP_FINALIZER) {
            finalizers.push(Value::from(CLEANUP_FINALIZER));
            object.set_at(&["metadata", "finalizers"], Value::Array(finalizers));
        }
        condition(
            object,
            "Terminating",
            true,
            "InstanceDeletionPending",
            "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
        );
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, _now: jiff::Timestamp) -> Vec<Value> {
        vec![
            Value::from(object.name()),
            Value::from(object.str_at("/metadata/creationTimestamp")),
        ]
    }
}
