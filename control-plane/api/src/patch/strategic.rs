//! Strategic merge patch: a merge patch that knows which lists merge and by which key.
//!
//! Directives in the patch: `$patch: replace|delete|merge` on maps and list elements,
//! `$deleteFromPrimitiveList/FIELD`, `$setElementOrder/FIELD`, `$retainKeys`
//! (Kubernetes: community/contributors/devel/sig-api-machinery/strategic-merge-patch.md).

use serde_json::{Map, Value};

use super::PatchError;
use crate::schema::{Field, FieldType, ObjectType, TypeId, schema};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_PRIMITIVES: &str = "$deleteFromPrimitiveList/";
const SET_ORDER: &str = "$setElementOrder/";

/// Applies `patch` to an object of the type named `type_name` (`core.Pod`).
pub fn strategic_merge(
    type_name: &str,
    object: &mut Value,
    patch: &Value,
) -> Result<(), PatchError> {
    let id = schema().id(type_name);
    let Value::Object(patch) = patch else {
        return Err(malformed("the patch must be a JSON object"));
    };
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    if let Value::Object(object) = object {
        merge_map(id, object, patch)?;
    }
    Ok(())
}

fn malformed(words: impl Into<String>) -> PatchError {
    PatchError::Malformed(format!("error decoding patch: {}", words.into()))
}

fn object_type(id: Option<TypeId>) -> Option<&'static ObjectType> {
    id.map(|id| schema().object(id))
}

fn type_of(field_type: &FieldType) -> Option<TypeId> {
    match field_type {
        FieldType::Object(id) => Some(*id),
        FieldType::List(inner) | FieldType::Map(inner) => type_of(inner),
        _ => None,
    }
}

/// What `$patch` says about a map.
enum Directive {
    Merge,
    Replace,
    Delete,
}

fn directive(patch: &Map<String, Value>) -> Result<Directive, PatchError> {
    match patch.get(PATCH) {
        None => Ok(Directive::Merge),
        Some(Value::String(word)) => match word.as_str() {
            "merge" => Ok(Directive::Merge),
            "replace" => Ok(Directive::Replace),
            "delete" => Ok(Directive::Delete),
            other => Err(malformed(format!(
                "unknown patch type {other:?} found in patch"
            ))),
        },
        Some(_) => Err(malformed("$patch must be a string")),
    }
}

fn merge_map(
    id: Option<TypeId>,
    object: &mut Map<String, Value>,
    patch: &Map<String, Value>,
) -> Result<(), PatchError> {
    match directive(patch)? {
        Directive::Merge => {}
        Directive::Replace => {
            object.clear();
            object.extend(
                patch
                    .iter()
                    .filter(|(key, _)| *key != PATCH)
                    .map(|(key, value)| (key.clone(), without_directives(value))),
            );
            return Ok(());
        }
        Directive::Delete => {
            object.clear();
            return Ok(());
        }
    }
    if let Some(keys) = patch.get(RETAIN_KEYS) {
        retain_keys(object, patch, keys)?;
    }
    for (key, value) in patch {
        if let Some(field) = key.strip_prefix(DELETE_PRIMITIVES) {
            delete_primitives(object, field, value)?;
        }
    }
    for (key, value) in patch {
        if key == PATCH
            || key == RETAIN_KEYS
            || key.starts_with(DELETE_PRIMITIVES)
            || key.starts_with(SET_ORDER)
        {
            continue;
        }
        merge_field(id, object, key, value)?;
    }
    for (key, value) in patch {
        if let Some(field) = key.strip_prefix(SET_ORDER) {
            let merge_key = object_type(id)
                .and_then(|t| t.field(field))
                .and_then(|f| f.patch.merge_key.as_deref());
            set_order(object, field, merge_key, value, patch.get(field))?;
        }
    }
    Ok(())
}

fn retain_keys(
    object: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    keys: &Value,
) -> Result<(), PatchError> {
    let Value::Array(keys) = keys else {
        return Err(malformed("$retainKeys must be a list"));
    };
    let retained: Vec<&str> = keys.iter().filter_map(Value::as_str).collect();
    for (key, value) in patch {
        if !key.starts_with('$') && !value.is_null() && !retained.contains(&key.as_str()) {
            return Err(malformed(
                "invalid patch format of retainKeys: every field in the patch must be in the $retainKeys list",
            ));
        }
    }
    object.retain(|key, _| retained.contains(&key.as_str()));
    Ok(())
}

fn delete_primitives(
    object: &mut Map<String, Value>,
    field: &str,
    gone: &Value,
) -> Result<(), PatchError> {
    let Value::Array(gone) = gone else {
        return Err(malformed(format!(
            "{DELETE_PRIMITIVES}{field} must be a list"
        )));
    };
    if let Some(Value::Array(items)) = object.get_mut(field) {
        items.retain(|item| !gone.contains(item));
    }
    Ok(())
}

fn merge_field(
    id: Option<TypeId>,
    object: &mut Map<String, Value>,
    key: &str,
    value: &Value,
) -> Result<(), PatchError> {
    let field = object_type(id).and_then(|t| t.field(key));
    let inner = match field {
        Some(field) => type_of(&field.field_type),
        // A map with text keys: its values are of the type the map was entered with.
        None => None,
    };
    match value {
        Value::Null => {
            object.remove(key);
        }
        Value::Object(patch) => {
            if matches!(directive(patch)?, Directive::Delete) {
                object.remove(key);
                return Ok(());
            }
            let slot = object.entry(key).or_insert(Value::Null);
            if !slot.is_object() || field.is_some_and(|field| field.patch.replace) {
                *slot = Value::Object(Map::new());
            }
            if let Value::Object(slot) = slot {
                merge_map(inner, slot, patch)?;
            }
        }
        Value::Array(patch) => match field.filter(|field| field.patch.merge) {
            Some(field) => {
                let slot = object.entry(key).or_insert(Value::Null);
                if !slot.is_array() {
                    *slot = Value::Array(Vec::new());
                }
                if let Value::Array(items) = slot {
                    merge_list(field, items, patch)?;
                }
            }
            None => {
                object.insert(key.to_string(), without_directives(value));
            }
        },
        other => {
            object.insert(key.to_string(), other.clone());
        }
    }
    Ok(())
}

fn merge_list(field: &Field, items: &mut Vec<Value>, patch: &[Value]) -> Result<(), PatchError> {
    let Some(merge_key) = field.patch.merge_key.as_deref() else {
        for value in patch {
            if !items.contains(value) {
                items.push(value.clone());
            }
        }
        return Ok(());
    };
    let replaces = patch
        .iter()
        .any(|element| element.get(PATCH).and_then(Value::as_str) == Some("replace"));
    if replaces {
        // `- $patch: replace` makes the rest of the list the new list.
        *items = patch
            .iter()
            .filter(|element| element.get(PATCH).is_none())
            .map(without_directives)
            .collect();
        return Ok(());
    }
    for element in patch {
        let Value::Object(element) = element else {
            return Err(malformed(format!(
                "the list {:?} must hold objects",
                field.name
            )));
        };
        let Some(key) = element.get(merge_key) else {
            return Err(malformed(format!(
                "map: {} does not contain declared merge key: {merge_key}",
                Value::Object(element.clone())
            )));
        };
        let position = items
            .iter()
            .position(|item| item.get(merge_key) == Some(key));
        match (directive(element)?, position) {
            (Directive::Delete, _) => items.retain(|item| item.get(merge_key) != Some(key)),
            (_, Some(position)) => {
                if let Some(Value::Object(item)) = items.get_mut(position) {
                    merge_map(type_of(&field.field_type), item, element)?;
                }
            }
            (_, None) => {
                let mut item = Map::new();
                merge_map(type_of(&field.field_type), &mut item, element)?;
                items.push(Value::Object(item));
            }
        }
    }
    Ok(())
}

/// Sorts a merged list: elements named in `order` stand in that order; the others keep
/// their place relative to their left neighbours.
fn set_order(
    object: &mut Map<String, Value>,
    field: &str,
    merge_key: Option<&str>,
    order: &Value,
    patch: Option<&Value>,
) -> Result<(), PatchError> {
    let Value::Array(order) = order else {
        return Err(malformed(format!("{SET_ORDER}{field} must be a list")));
    };
    let identity = |item: &Value| match merge_key {
        Some(key) => item.get(key).cloned().unwrap_or(Value::Null),
        None => item.clone(),
    };
    let wanted: Vec<Value> = order.iter().map(identity).collect();
    if let Some(Value::Array(patch)) = patch {
        let unordered = patch
            .iter()
            .any(|element| element.get(PATCH).is_none() && !wanted.contains(&identity(element)));
        if unordered {
            return Err(malformed(format!(
                "the order in patch list {field:?} doesn't match {SET_ORDER}{field}"
            )));
        }
    }
    let Some(Value::Array(items)) = object.get_mut(field) else {
        return Ok(());
    };
    let mut ordered: Vec<Value> = Vec::with_capacity(items.len());
    for identity_wanted in &wanted {
        ordered.extend(
            items
                .iter()
                .find(|item| identity(item) == *identity_wanted)
                .cloned(),
        );
    }
    // Server-only elements go right after the element that was before them.
    let mut previous: Option<Value> = None;
    for item in items.iter() {
        let id = identity(item);
        if !wanted.contains(&id) {
            let at = previous
                .as_ref()
                .and_then(|before| ordered.iter().position(|item| identity(item) == *before))
                .map_or(0, |position| position + 1);
            ordered.insert(at, item.clone());
        }
        previous = Some(id);
    }
    *items = ordered;
    Ok(())
}

/// A value that replaces another must not carry directives or nulls into the object.
fn without_directives(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.iter()
                .filter(|(key, value)| !key.starts_with('$') && !value.is_null())
                .map(|(key, value)| (key.clone(), without_directives(value)))
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.iter().map(without_directives).collect()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn apply(mut object: Value, patch: Value) -> Value {
        strategic_merge("core.Pod", &mut object, &patch).unwrap();
        object
    }

    #[test]
    fn lists_merge_by_their_key() {
        let pod = json!({"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1", "args": ["x"]}]}});
        let patch = json!({"spec": {"containers": [{"name": "b", "image": "2", "args": ["y"]}, {"name": "c", "image": "3"}]}});
        assert_eq!(
            apply(pod, patch)["spec"]["containers"],
            json!([{"name": "a", "image": "1"}, {"name": "b", "image": "2", "args": ["y"]}, {"name": "c", "image": "3"}])
        );
    }

    #[test]
    fn directives_delete_replace_and_order() {
        let pod = json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}, {"name": "c"}]}});
        for (patch, expected) in [
            (
                json!({"spec": {"containers": [{"$patch": "delete", "name": "b"}]}}),
                json!([{"name": "a"}, {"name": "c"}]),
            ),
            (
                json!({"spec": {"containers": [{"$patch": "replace"}, {"name": "z"}]}}),
                json!([{"name": "z"}]),
            ),
            (
                json!({"spec": {"$setElementOrder/containers": [{"name": "c"}, {"name": "a"}], "containers": [{"name": "a", "image": "x"}]}}),
                json!([{"name": "c"}, {"name": "a", "image": "x"}, {"name": "b"}]),
            ),
            (json!({"spec": {"containers": null}}), Value::Null),
        ] {
            let result = apply(pod.clone(), patch.clone());
            assert_eq!(
                result["spec"]
                    .get("containers")
                    .cloned()
                    .unwrap_or(Value::Null),
                expected,
                "{patch}"
            );
        }
    }

    #[test]
    fn primitive_lists_are_sets() {
        let pod = json!({"metadata": {"finalizers": ["a", "b"]}});
        let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "$setElementOrder/finalizers": ["c", "b"], "finalizers": ["c"]}});
        assert_eq!(
            apply(pod, patch)["metadata"]["finalizers"],
            json!(["c", "b"])
        );
    }

    #[test]
    fn a_budgets_selector_is_replaced_whole() {
        let mut budget =
            json!({"spec": {"selector": {"matchLabels": {"a": "1"}}, "minAvailable": 1}});
        let patch = json!({"spec": {"selector": {"matchLabels": {"b": "2"}}}});
        strategic_merge("policy.PodDisruptionBudget", &mut budget, &patch).unwrap();
        assert_eq!(
            budget,
            json!({"spec": {"selector": {"matchLabels": {"b": "2"}}, "minAvailable": 1}})
        );
    }

    #[test]
    fn retain_keys_clears_the_others() {
        let pod = json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}});
        let patch = json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}]}});
        assert_eq!(
            apply(pod, patch)["spec"]["volumes"],
            json!([{"name": "v", "hostPath": {"path": "/x"}}])
        );
    }

    #[test]
    fn free_maps_merge_and_drop_nulls() {
        let pod = json!({"metadata": {"labels": {"a": "1", "b": "2"}}});
        let patch = json!({"metadata": {"labels": {"a": null, "c": "3"}}});
        assert_eq!(
            apply(pod.clone(), patch)["metadata"]["labels"],
            json!({"b": "2", "c": "3"})
        );
        let patch = json!({"metadata": {"labels": {"$patch": "replace", "z": "1"}}});
        assert_eq!(apply(pod, patch)["metadata"]["labels"], json!({"z": "1"}));
    }

    #[test]
    fn malformed_patches_are_errors() {
        for patch in [
            json!([]),
            json!({"spec": {"containers": ["x"]}}),
            json!({"spec": {"containers": [{"image": "x"}]}}),
            json!({"spec": {"$patch": "nonsense"}}),
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": "a"}}),
            json!({"spec": {"$setElementOrder/containers": [], "containers": [{"name": "a"}]}}),
        ] {
            let mut pod = json!({"spec": {}, "metadata": {}});
            assert!(
                strategic_merge("core.Pod", &mut pod, &patch).is_err(),
                "{patch}"
            );
        }
    }
}
