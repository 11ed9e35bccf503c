//! The class of a claim or an ingress that names none.

use hull_api::{
    Kind, ObjectExt,
    kinds::{self, storage_class::DEFAULT_CLASS_ANNOTATION},
};
use serde_json::Value;

use super::resources::cached_in_namespace;
use crate::handlers::Backend;

/// Where an object names its class, and which classes there are.
struct Classed {
    kind: &'static Kind,
    field: &'static str,
    /// Where objects named their class before there was a field for it.
    old_annotation: &'static str,
    classes: &'static Kind,
    /// What a class says that is to be the default.
    default_annotation: &'static str,
}

const CLASSED: [Classed; 2] = [
    Classed {
        kind: &kinds::PERSISTENT_VOLUME_CLAIMS,
        field: "storageClassName",
        old_annotation: "volume.beta.kubernetes.io/storage-class",
        classes: &kinds::STORAGE_CLASSES,
        default_annotation: DEFAULT_CLASS_ANNOTATION,
    },
    Classed {
        kind: &kinds::INGRESSES,
        field: "ingressClassName",
        old_annotation: "kubernetes.io/ingress.class",
        classes: &kinds::INGRESS_CLASSES,
        default_annotation: "ingressclass.kubernetes.io/is-default-class",
    },
];

/// Gives an object the default class: the newest, and of several of one second the first by
/// name. A claim that names "" wants none.
pub(super) fn set_default(backend: &Backend, kind: &Kind, object: &mut Value) {
    let Some(classed) = CLASSED.iter().find(|one| one.kind.schema == kind.schema) else {
        return;
    };
    let annotation = |object: &Value, name: &str| {
        let annotations = object.map_at("/metadata/annotations");
        annotations.and_then(|all| all.get(name)).cloned()
    };
    let field = ["spec", classed.field];
    let named = object.pointer(&format!("/{}", field.join("/"))).is_some()
        || annotation(object, classed.old_annotation).is_some();
    if named {
        return;
    }
    let classes = cached_in_namespace(backend, classed.classes, "");
    let newest = classes
        .iter()
        .map(|class| class.kept())
        .filter(|class| {
            let value = annotation(class, classed.default_annotation);
            value.is_some_and(|value| value == "true")
        })
        // Times are written so that their order is that of the texts.
        .max_by(|a, b| {
            let created = |class: &Value| class.str_at("/metadata/creationTimestamp").to_string();
            created(a).cmp(&created(b)).then(b.name().cmp(a.name()))
        });
    if let Some(class) = newest {
        object.set_at(&field, Value::from(class.name()));
    }
}
