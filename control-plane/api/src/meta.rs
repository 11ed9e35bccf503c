//! `ObjectMeta`: its rules, and the parts that the server sets.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    ObjectExt,
    field::{Errors, Path},
    names,
    registry::Kind,
    selector::label::validate_labels,
    time,
};

/// All annotations of an object together, keys and values.
pub const MAX_ANNOTATION_BYTES: usize = 256 * 1024;

/// What the server fills in on create.
pub fn fill_on_create(object: &mut Value, now: Timestamp, uid: String) {
    object.set_at(&["metadata", "uid"], Value::from(uid));
    object.set_at(
        &["metadata", "creationTimestamp"],
        Value::from(time::to_seconds(now)),
    );
    for field in [
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
        "resourceVersion",
        "generation",
    ] {
        object.remove_at(&["metadata", field]);
    }
}

/// What an update cannot change: taken from the old object.
pub fn keep_on_update(new: &mut Value, old: &Value) {
    for field in [
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generateName",
        "generation",
    ] {
        match old.pointer(&format!("/metadata/{field}")) {
            Some(value) => {
                let value = value.clone();
                new.set_at(&["metadata", field], value);
            }
            None => {
                new.remove_at(&["metadata", field]);
            }
        }
    }
    if new.uid().is_empty() {
        let uid = Value::from(old.uid());
        new.set_at(&["metadata", "uid"], uid);
    }
    new.remove_at(&["metadata", "selfLink"]);
}

/// Counts a change of the spec.
pub fn bump_generation(new: &mut Value, old: &Value) {
    let generation = old.int_at("/metadata/generation").unwrap_or(0);
    let next = if new.get("spec") == old.get("spec") {
        generation
    } else {
        generation + 1
    };
    new.set_at(&["metadata", "generation"], Value::from(next));
}

/// Rules of the metadata of any object.
pub fn validate(kind: &Kind, object: &Value, errors: &mut Errors) {
    let path = Path::new("metadata");
    let name = object.name();
    let prefix = object.str_at("/metadata/generateName");
    if !prefix.is_empty() {
        for why in kind.strategy.name_rule().check(prefix, true) {
            errors.invalid(&path.child("generateName"), prefix, why);
        }
    }
    if name.is_empty() {
        errors.required(&path.child("name"), "name or generateName is required");
    } else {
        for why in kind.strategy.name_rule().check(name, false) {
            errors.invalid(&path.child("name"), name, why);
        }
    }
    if kind.namespaced {
        let namespace = object.namespace();
        if namespace.is_empty() {
            errors.required(&path.child("namespace"), "");
        } else {
            for why in names::label(namespace) {
                errors.invalid(&path.child("namespace"), namespace, why);
            }
        }
    } else if !object.namespace().is_empty() {
        errors.forbidden(&path.child("namespace"), "not allowed on this type");
    }
    validate_labels(object.labels(), &path.child("labels"), errors);
    validate_annotations(object, &path.child("annotations"), errors);
    validate_owners(object, &path.child("ownerReferences"), errors);
    for (index, finalizer) in object.finalizers().iter().enumerate() {
        let finalizer = finalizer.as_str().unwrap_or("");
        for why in names::qualified_name(finalizer) {
            errors.invalid(&path.child("finalizers").index(index), finalizer, why);
        }
    }
}

pub(crate) fn validate_annotations(object: &Value, path: &Path, errors: &mut Errors) {
    let mut total = 0;
    for (key, value) in object.map_at("/metadata/annotations").into_iter().flatten() {
        for why in names::qualified_name(&key.to_lowercase()) {
            errors.invalid(path, key.as_str(), why);
        }
        total += key.len() + value.as_str().map_or(0, str::len);
    }
    if total > MAX_ANNOTATION_BYTES {
        errors.too_long(path, MAX_ANNOTATION_BYTES);
    }
}

fn validate_owners(object: &Value, path: &Path, errors: &mut Errors) {
    let mut controllers = 0;
    for (index, owner) in object
        .list_at("/metadata/ownerReferences")
        .iter()
        .enumerate()
    {
        let path = path.index(index);
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner.str_at(&format!("/{field}")).is_empty() {
                let words = match field {
                    "apiVersion" => "version must not be empty",
                    _ => "must not be empty",
                };
                errors.invalid(&path.child(field), "", words);
            }
        }
        if owner.bool_at("/controller") {
            controllers += 1;
            if controllers > 1 {
                errors.invalid(
                    &path,
                    owner.clone(),
                    "Only one reference can have Controller set to true",
                );
            }
        }
    }
}

/// Rules of a change of the metadata.
pub fn validate_update(new: &Value, old: &Value, errors: &mut Errors) {
    let path = Path::new("metadata");
    for field in ["name", "namespace", "uid"] {
        let pointer = format!("/metadata/{field}");
        if new.str_at(&pointer) != old.str_at(&pointer) {
            errors.invalid(
                &path.child(field),
                new.str_at(&pointer),
                "field is immutable",
            );
        }
    }
    if old.is_deleting() {
        let added: Vec<&Value> = new
            .finalizers()
            .iter()
            .filter(|finalizer| !old.finalizers().contains(finalizer))
            .collect();
        if !added.is_empty() {
            errors.forbidden(
                &path.child("finalizers"),
                format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers {}",
                    json!(added)
                ),
            );
        }
    }
}
