//! LimitRange.

use serde_json::{Map, Value};

use super::{PLAIN, pod};
use crate::{
    ObjectExt,
    field::{Errors, Path},
    quantity::Quantity,
    registry::{self, Kind},
};

/// `v1` LimitRange.
pub static LIMIT_RANGES: Kind = Kind {
    kind: "LimitRange",
    plural: "limitranges",
    singular: "limitrange",
    short_names: &["limits"],
    schema: "core.LimitRange",
    storage: "limitranges",
    strategy: &Strategy,
    ..PLAIN
};

struct Strategy;

const BOUNDS: [&str; 5] = [
    "max",
    "min",
    "default",
    "defaultRequest",
    "maxLimitRequestRatio",
];

fn amount(map: Option<&Map<String, Value>>, name: &str) -> Option<Quantity> {
    map?.get(name)?.as_str()?.parse().ok()
}

impl registry::Strategy for Strategy {
    fn apply_defaults(&self, object: &mut Value) {
        let Some(Value::Array(limits)) = object.pointer_mut("/spec/limits") else {
            return;
        };
        for item in limits.iter_mut() {
            if item.str_at("/type") != "Container" {
                continue;
            }
            // The most is the default; the default limit, else the least, the default request.
            fill(item, "default", "max");
            fill(item, "defaultRequest", "default");
            fill(item, "defaultRequest", "min");
        }
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let mut seen: Vec<&str> = Vec::new();
        for (index, item) in object.list_at("/spec/limits").iter().enumerate() {
            let path = Path::new("spec.limits").index(index);
            let item_type = item.str_at("/type");
            if item_type.is_empty() {
                errors.required(&path.child("type"), "");
            } else if seen.contains(&item_type) {
                errors.duplicate(&path.child("type"), item_type);
            }
            seen.push(item_type);
            validate_item(item, &path, errors);
        }
    }

    fn returns_deleted(&self) -> bool {
        true
    }
}

/// Amounts of `from` that `to` lacks are taken over.
fn fill(item: &mut Value, to: &str, from: &str) {
    let Some(source) = item.map_at(&format!("/{from}")).cloned() else {
        return;
    };
    let target = item.map_mut(&[to]);
    for (name, value) in source {
        target.entry(name).or_insert(value);
    }
}

fn validate_item(item: &Value, path: &Path, errors: &mut Errors) {
    let bound = |name: &str| item.map_at(&format!("/{name}"));
    for name in BOUNDS {
        pod::validate_resource_list(bound(name), &path.child(name), errors);
    }
    let item_type = item.str_at("/type");
    if item_type == "Pod" {
        for name in ["default", "defaultRequest"] {
            if bound(name).is_some_and(|map| !map.is_empty()) {
                errors.forbidden(
                    &path.child(name),
                    "may not be specified when `type` is 'Pod'",
                );
            }
        }
    }
    let storage = |name: &str| bound(name).is_some_and(|map| map.contains_key("storage"));
    if item_type == "PersistentVolumeClaim" && !storage("min") && !storage("max") {
        errors.required(
            &path.child("limits"),
            "either minimum or maximum storage value is required, but neither was provided",
        );
    }
    for (low, high) in [
        ("min", "max"),
        ("min", "defaultRequest"),
        ("min", "default"),
        ("defaultRequest", "max"),
        ("defaultRequest", "default"),
        ("default", "max"),
    ] {
        for (name, value) in bound(low).into_iter().flatten() {
            let (Some(least), Some(most)) = (amount(bound(low), name), amount(bound(high), name))
            else {
                continue;
            };
            if least > most {
                let (field, words) = if low == "min" && high != "max" {
                    (
                        high,
                        format!("{low} value {least} is greater than {high} value {most}"),
                    )
                } else {
                    (
                        low,
                        format!("{low} value {least} is greater than {high} value {most}"),
                    )
                };
                errors.invalid(&path.child(field).key(name), value.clone(), words);
            }
        }
    }
    for (name, value) in bound("maxLimitRequestRatio").into_iter().flatten() {
        if amount(bound("maxLimitRequestRatio"), name) < Some(Quantity::from_units(1)) {
            errors.invalid(
                &path.child("maxLimitRequestRatio").key(name),
                value.clone(),
                format!("ratio {} is less than 1", value.as_str().unwrap_or("")),
            );
        }
    }
}
