//! `spec.storageClassName` of a claim that names none.

use hull_api::{
    Kind, ObjectExt,
    kinds::{self, storage_class::is_default_class},
};
use serde_json::Value;

use super::resources::cached_in_namespace;
use crate::handlers::Backend;

/// Where claims named their class before there was a field for it.
const BETA_CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// Gives a claim the default class: the newest, and of several of one second the first by name.
/// A claim that names "" wants none.
pub(super) fn set_default(backend: &Backend, kind: &Kind, object: &mut Value) {
    if kind.schema != kinds::PERSISTENT_VOLUME_CLAIMS.schema {
        return;
    }
    let annotations = object.map_at("/metadata/annotations");
    let named = object.pointer("/spec/storageClassName").is_some()
        || annotations.is_some_and(|all| all.contains_key(BETA_CLASS_ANNOTATION));
    if named {
        return;
    }
    let classes = cached_in_namespace(backend, &kinds::STORAGE_CLASSES, "");
    let newest = classes
        .iter()
        .map(|class| &class.value)
        .filter(|class| is_default_class(class))
        // Times are written so that their order is that of the texts.
        .max_by(|a, b| {
            let created = |class: &Value| class.str_at("/metadata/creationTimestamp").to_string();
            created(a).cmp(&created(b)).then(b.name().cmp(a.name()))
        });
    if let Some(class) = newest {
        object.set_at(&["spec", "storageClassName"], Value::from(class.name()));
    }
}
