//! The fields of a value, and the fields in which two values differ.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{
    set::FieldSet,
    types::{Shape, TypeRef},
};

/// What makes a difference between "applied" and "written": a written map or list is owned as
/// such too, an applied one only by its entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Containers {
    /// Only entries are members.
    Skip,
    /// Maps and lists are members.
    Include,
    /// Structs too: everything that is there.
    All,
}

/// Lists of elements by their path element; a later duplicate wins.
pub(super) fn elements<'v>(shape: &Shape<'_>, list: &'v [Value]) -> BTreeMap<String, &'v Value> {
    list.iter()
        .filter_map(|item| Some((element_of(shape, item)?, item)))
        .collect()
}

/// The path element of a list's item.
pub(super) fn element_of(shape: &Shape<'_>, item: &Value) -> Option<String> {
    match shape {
        Shape::Set => Some(format!("v:{item}")),
        Shape::ListMap(keys, element) => {
            let map = item.as_object()?;
            let mut identity = Map::new();
            for key in keys {
                if let Some(value) = map.get(*key).or_else(|| element.default_of(key)) {
                    identity.insert((*key).to_string(), value.clone());
                }
            }
            Some(format!("k:{}", Value::Object(identity)))
        }
        _ => None,
    }
}

fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_object().is_some_and(Map::is_empty)
}

/// The fields of a value. The flag says whether the value's own path belongs to them.
pub(super) fn collect(
    value: &Value,
    field_type: TypeRef<'_>,
    containers: Containers,
) -> (FieldSet, bool) {
    let shape = field_type.shape(value);
    let mut set = FieldSet::default();
    let mut member = containers == Containers::All;
    match (&shape, value) {
        (Shape::Struct, Value::Object(map)) => {
            member |= map.is_empty();
            for (key, item) in map {
                let inner = field_type.field(key);
                let (child, own) = collect(item, inner.unwrap_or(TypeRef::Deduced), containers);
                let named = inner.is_some();
                set.child(format!("f:{key}"), child, own || is_empty(item) || !named);
            }
        }
        (Shape::Map(inner), Value::Object(map)) => {
            member |= map.is_empty() || containers == Containers::Include;
            for (key, item) in map {
                let (child, _) = collect(item, *inner, containers);
                set.child(format!("f:{key}"), child, true);
            }
        }
        (Shape::Set | Shape::ListMap(..), Value::Array(list)) => {
            member |= containers == Containers::Include && !field_type.is_required();
            let inner = match &shape {
                Shape::ListMap(_, inner) => Some(*inner),
                _ => None,
            };
            for (element, item) in elements(&shape, list) {
                let child = inner.map_or_else(FieldSet::default, |inner| {
                    collect(item, inner, containers).0
                });
                set.child(element, child, true);
            }
        }
        _ => member = true,
    }
    (set, member)
}

/// The fields of an object that was applied.
pub(super) fn applied_fields(object: &Value, root: TypeRef<'_>) -> FieldSet {
    collect(object, root, Containers::Skip).0
}

/// How two objects differ.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    pub added: FieldSet,
    pub modified: FieldSet,
    pub removed: FieldSet,
}

impl Comparison {
    pub(super) fn is_same(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Own {
    No,
    Added,
    Modified,
    Removed,
}

/// Compares two objects.
pub(super) fn compare(old: &Value, new: &Value, root: TypeRef<'_>) -> Comparison {
    compare_values(Some(old), Some(new), root).0
}

fn compare_values(
    old: Option<&Value>,
    new: Option<&Value>,
    field_type: TypeRef<'_>,
) -> (Comparison, Own) {
    let mut out = Comparison::default();
    match (old, new) {
        (None, None) => (out, Own::No),
        (Some(old), Some(new)) if old == new => (out, Own::No),
        (None, Some(new)) => {
            let (set, own) = collect(new, field_type, Containers::Include);
            out.added = set;
            (out, if own { Own::Added } else { Own::No })
        }
        (Some(old), None) => {
            out.removed = collect(old, field_type, Containers::All).0;
            (out, Own::Removed)
        }
        (Some(old), Some(new)) => compare_present(old, new, field_type),
    }
}

fn compare_present(old: &Value, new: &Value, field_type: TypeRef<'_>) -> (Comparison, Own) {
    let shape = field_type.shape(new);
    let mut out = Comparison::default();
    match (&shape, old, new) {
        (Shape::Struct | Shape::Map(_), Value::Object(before), Value::Object(after)) => {
            let keys = before
                .keys()
                .chain(after.keys().filter(|key| !before.contains_key(*key)));
            // Owners are not owned.
            let keys = keys.filter(|key| *key != "managedFields" || !field_type.is_metadata());
            for key in keys {
                let (inner, named) = match &shape {
                    Shape::Map(inner) => (*inner, false),
                    _ => match field_type.field(key) {
                        Some(inner) => (inner, true),
                        None => (TypeRef::Deduced, false),
                    },
                };
                let (child, own) = compare_values(before.get(key), after.get(key), inner);
                // An entry of a map is owned as such; a field that turned empty too.
                let own = match own {
                    Own::No if !named && !before.contains_key(key) => Own::Added,
                    Own::No
                        if !before.contains_key(key) && after.get(key).is_some_and(is_empty) =>
                    {
                        Own::Added
                    }
                    own => own,
                };
                out.take(format!("f:{key}"), child, own);
            }
            (out, Own::No)
        }
        (Shape::Set | Shape::ListMap(..), Value::Array(before), Value::Array(after)) => {
            let (before, after) = (elements(&shape, before), elements(&shape, after));
            let inner = match &shape {
                Shape::ListMap(_, inner) => *inner,
                _ => TypeRef::Deduced,
            };
            let keys = before
                .keys()
                .chain(after.keys().filter(|key| !before.contains_key(*key)));
            for key in keys {
                let (old, new) = (before.get(key).copied(), after.get(key).copied());
                let (child, own) = compare_values(old, new, inner);
                let own = if old.is_none() { Own::Added } else { own };
                out.take(key.clone(), child, own);
            }
            (out, Own::No)
        }
        _ => (out, Own::Modified),
    }
}

impl Comparison {
    fn take(&mut self, element: String, child: Comparison, own: Own) {
        self.added
            .child(element.clone(), child.added, own == Own::Added);
        self.modified
            .child(element.clone(), child.modified, own == Own::Modified);
        self.removed
            .child(element, child.removed, own == Own::Removed);
    }
}
