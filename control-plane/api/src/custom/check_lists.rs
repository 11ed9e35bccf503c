//! The rules of lists and maps in a schema: how they merge.

use serde_json::{Value, json};

use crate::{
    ObjectExt,
    field::{Errors, Path},
};

const LIST_TYPES: [&str; 3] = ["atomic", "map", "set"];
const MAP_TYPES: [&str; 2] = ["atomic", "granular"];

/// The list under a word.
pub(super) fn list<'a>(schema: &'a Value, word: &str) -> &'a [Value] {
    schema
        .get(word)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// Rules of `x-kubernetes-map-type`.
pub(super) fn map_type(schema: &Value, path: &Path, errors: &mut Errors) {
    let Some(Value::String(map_type)) = schema.get("x-kubernetes-map-type") else {
        return;
    };
    let value_type = schema.str_at("/type");
    if value_type != "object" {
        let why = "must be object if x-kubernetes-map-type is specified";
        if value_type.is_empty() {
            errors.required(&path.child("type"), why);
        } else {
            errors.invalid(&path.child("type"), value_type, why);
        }
    }
    errors.check_supported(&path.child("x-kubernetes-map-type"), map_type, &MAP_TYPES);
}

/// Rules of `x-kubernetes-list-type`.
pub(super) fn list_type(schema: &Value, path: &Path, errors: &mut Errors) {
    let at = path.child("x-kubernetes-list-type");
    let keys = list(schema, "x-kubernetes-list-map-keys");
    let list_type = schema.get("x-kubernetes-list-type").and_then(Value::as_str);
    if !keys.is_empty() && list_type != Some("map") {
        let why = "must be map if x-kubernetes-list-map-keys is non-empty";
        match list_type {
            None => errors.required(&at, why),
            Some(other) => errors.invalid(&at, other, why),
        }
    }
    let Some(list_type) = list_type else { return };
    let value_type = schema.str_at("/type");
    if value_type != "array" {
        let why = "must be array if x-kubernetes-list-type is specified";
        if value_type.is_empty() {
            errors.required(&path.child("type"), why);
        } else {
            errors.invalid(&path.child("type"), value_type, why);
        }
    }
    errors.check_supported(&at, list_type, &LIST_TYPES);
    let items = schema.get("items").filter(|items| items.is_object());
    let items_path = path.child("items");
    match (list_type, items) {
        ("set", Some(items)) => set_items(items, &items_path, errors),
        ("map", Some(items)) => map_items(keys, items, path, errors),
        ("map", None) => {
            errors.required(
                &items_path,
                "must have a schema if x-kubernetes-list-type is map",
            );
        }
        _ => {}
    }
    if list_type == "map" && keys.is_empty() {
        errors.required(
            &path.child("x-kubernetes-list-map-keys"),
            "must not be empty if x-kubernetes-list-type is map",
        );
    }
    if matches!(list_type, "set" | "map") && items.is_some_and(|items| items.bool_at("/nullable")) {
        errors.forbidden(
            &items_path.child("nullable"),
            format!("cannot be nullable when x-kubernetes-list-type is {list_type}"),
        );
    }
}

fn set_items(items: &Value, path: &Path, errors: &mut Errors) {
    let why = "must be atomic as item of a list with x-kubernetes-list-type=set";
    let (word, implicit) = match items.str_at("/type") {
        "array" => ("x-kubernetes-list-type", true),
        "object" => ("x-kubernetes-map-type", false),
        _ => return,
    };
    let atomic = match items.get(word) {
        None => implicit,
        Some(value) => value == "atomic",
    };
    if !atomic {
        let value = items.get(word).cloned().unwrap_or_default();
        errors.invalid(&path.child(word), value, why);
    }
}

fn map_items(keys: &[Value], items: &Value, path: &Path, errors: &mut Errors) {
    let at = path.child("items");
    let item_type = items.str_at("/type");
    if item_type != "object" {
        errors.invalid(
            &at.child("type"),
            item_type,
            "must be object if parent array's x-kubernetes-list-type is map",
        );
        return;
    }
    let keys_path = path.child("x-kubernetes-list-map-keys");
    for (index, key) in keys.iter().enumerate() {
        let name = key.as_str().unwrap_or("");
        if keys[..index].contains(key) {
            errors.invalid(
                &keys_path,
                json!(keys),
                "must not contain duplicate entries",
            );
        }
        let Some(property) = items.get("properties").and_then(|all| all.get(name)) else {
            errors.invalid(
                &keys_path,
                json!(keys),
                "entries must all be names of item properties",
            );
            continue;
        };
        let property_path = at.child("properties").key(name);
        if matches!(property.str_at("/type"), "array" | "object") {
            errors.invalid(
                &property_path.child("type"),
                item_type,
                "must be a scalar type if parent array's x-kubernetes-list-type is map",
            );
        }
        if !list(items, "required").contains(key) && property.get("default").is_none() {
            errors.required(
                &property_path.child("default"),
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
            );
        }
        if property.bool_at("/nullable") {
            errors.forbidden(
                &property_path.child("nullable"),
                "this property is in x-kubernetes-list-map-keys, so it cannot be nullable",
            );
        }
    }
}
