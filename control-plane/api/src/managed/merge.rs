//! The merge of an applied configuration into the live object, and the removal of what its
//! manager applied before and applies no more.

use serde_json::{Map, Value};

use super::{
    set::{FieldSet, node_children, node_is_member},
    types::{Shape, TypeRef},
    walk::{element_of, elements},
};

/// Puts `applied` over `live`.
pub(super) fn merge(live: Value, applied: &Value, field_type: TypeRef<'_>) -> Value {
    let shape = field_type.shape(applied);
    match (&shape, live, applied) {
        (Shape::Struct | Shape::Map(_), Value::Object(mut live), Value::Object(applied)) => {
            for (key, item) in applied {
                let inner = match &shape {
                    Shape::Map(inner) => *inner,
                    _ => field_type.field(key).unwrap_or(TypeRef::Deduced),
                };
                let merged = match live.remove(key) {
                    Some(old) => merge(old, item, inner),
                    None => item.clone(),
                };
                live.insert(key.clone(), merged);
            }
            Value::Object(live)
        }
        (Shape::Set, Value::Array(live), Value::Array(applied)) => {
            merge_lists(live, applied, &shape, |_, item| item.clone())
        }
        (Shape::ListMap(_, inner), Value::Array(live), Value::Array(applied)) => {
            merge_lists(live, applied, &shape, |old, item| merge(old, item, *inner))
        }
        _ => applied.clone(),
    }
}

/// The applied order wins; elements that only the live list has keep their place in between.
fn merge_lists(
    live: Vec<Value>,
    applied: &[Value],
    shape: &Shape<'_>,
    merge_item: impl Fn(Value, &Value) -> Value,
) -> Value {
    let key = |item: &Value| element_of(shape, item).unwrap_or_default();
    let wanted = elements(shape, applied);
    let live: Vec<(String, Value)> = live.into_iter().map(|item| (key(&item), item)).collect();
    let mut out = Vec::with_capacity(live.len().max(applied.len()));
    let mut position = 0;
    let keep_own = |position: &mut usize, out: &mut Vec<Value>| {
        while let Some((key, item)) = live.get(*position) {
            if wanted.contains_key(key) {
                break;
            }
            out.push(item.clone());
            *position += 1;
        }
    };
    keep_own(&mut position, &mut out);
    for item in applied {
        let element = key(item);
        let old = live.iter().find(|(key, _)| *key == element);
        out.push(match old {
            Some((_, old)) => merge_item(old.clone(), item),
            None => item.clone(),
        });
        // Past the elements that were, or will be, written in the applied order.
        if old.is_some() && live.get(position).is_some() {
            position += 1;
            keep_own(&mut position, &mut out);
        }
    }
    while let Some((key, item)) = live.get(position) {
        if !wanted.contains_key(key) {
            out.push(item.clone());
        }
        position += 1;
    }
    Value::Array(out)
}

/// The first element that is in a list twice, as `PATH: duplicate entries for key [name="a"]`.
pub(super) fn duplicate(value: &Value, field_type: TypeRef<'_>, path: &str) -> Option<String> {
    let shape = field_type.shape(value);
    match (&shape, value) {
        (Shape::Struct, Value::Object(map)) => map.iter().find_map(|(key, item)| {
            duplicate(item, field_type.field(key)?, &format!("{path}.{key}"))
        }),
        (Shape::Map(inner), Value::Object(map)) => map
            .iter()
            .find_map(|(key, item)| duplicate(item, *inner, &format!("{path}.{key}"))),
        (Shape::Set | Shape::ListMap(..), Value::Array(list)) => {
            let mut seen = std::collections::BTreeSet::new();
            for item in list {
                let element = element_of(&shape, item)?;
                if !seen.insert(element.clone()) {
                    let words = match &shape {
                        Shape::Set => "duplicate entries for value",
                        _ => "duplicate entries for key",
                    };
                    let mut one = FieldSet::default();
                    one.child(element, FieldSet::default(), true);
                    return Some(format!("{path}: {words} {}", one.paths().concat()));
                }
                if let Shape::ListMap(_, inner) = &shape
                    && let Some(found) = duplicate(item, *inner, path)
                {
                    return Some(found);
                }
            }
            None
        }
        _ => None,
    }
}

/// Removes from `value` the fields of `last` that are not in `keep`, where `keep` is what any
/// manager owns now. A container stays while something that nobody asked to remove is in it.
pub(super) fn prune(value: &mut Value, last: &FieldSet, keep: &FieldSet, field_type: TypeRef<'_>) {
    prune_children(value, last.root(), Some(keep.root()), field_type);
}

fn child_of<'n>(node: Option<&'n Map<String, Value>>, key: &str) -> Option<&'n Map<String, Value>> {
    node?.get(key)?.as_object()
}

fn prune_children(
    value: &mut Value,
    last: &Map<String, Value>,
    keep: Option<&Map<String, Value>>,
    field_type: TypeRef<'_>,
) {
    let shape = field_type.shape(value);
    match (&shape, value) {
        (Shape::Struct | Shape::Map(_), Value::Object(map)) => {
            for (element, node) in node_children(last) {
                let Some(key) = element.strip_prefix("f:") else {
                    continue;
                };
                let inner = match &shape {
                    Shape::Map(inner) => *inner,
                    _ => field_type.field(key).unwrap_or(TypeRef::Deduced),
                };
                let Some(item) = map.get_mut(key) else {
                    continue;
                };
                if prune_item(item, node, child_of(keep, element), inner) {
                    map.remove(key);
                }
            }
        }
        (Shape::Set | Shape::ListMap(..), Value::Array(list)) => {
            let inner = match &shape {
                Shape::ListMap(_, inner) => *inner,
                _ => TypeRef::Deduced,
            };
            list.retain_mut(|item| {
                let Some(element) = element_of(&shape, item) else {
                    return true;
                };
                match child_of(Some(last), &element) {
                    Some(node) => !prune_item(item, node, child_of(keep, &element), inner),
                    None => true,
                }
            });
        }
        _ => {}
    }
}

/// Prunes within an item; true when the item itself is to go.
fn prune_item(
    item: &mut Value,
    last: &Map<String, Value>,
    keep: Option<&Map<String, Value>>,
    field_type: TypeRef<'_>,
) -> bool {
    if keep.is_some() {
        prune_children(item, last, keep, field_type);
        return false;
    }
    // Nobody owns it or anything in it: an owned item goes whole, a container when it is empty.
    if node_is_member(last) {
        return true;
    }
    prune_children(item, last, None, field_type);
    match item {
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}
