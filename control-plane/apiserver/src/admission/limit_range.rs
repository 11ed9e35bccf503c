//! LimitRange: defaults and bounds for containers, pods and volume claims of a namespace.

use std::sync::Arc;

use hull_api::{
    ApiError, Kind, ObjectExt,
    amounts::{Amounts, amounts, pod_amounts},
    kinds,
    quantity::Quantity,
    registry::Subresource,
};
use serde_json::{Map, Value};

use super::resources::cached_in_namespace;
use crate::{
    handlers::{Backend, Context},
    watch_cache::CachedObject,
};

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// Gives a new object what the ranges of its namespace say, and holds it to their bounds.
pub(super) fn admit(backend: &Backend, kind: &Kind, object: &mut Value) -> Result<(), ApiError> {
    let ranges = ranges_for(backend, kind, object);
    if kind.schema == kinds::PODS.schema {
        for range in &ranges {
            apply_defaults(range.kept(), object);
        }
    }
    check_bounds(&ranges, kind, object)
}

/// Holds what grows to the bounds: claims, and pods whose containers are resized. Nothing else
/// that ranges are about can change.
pub(super) fn check_update(
    context: &Context<'_>,
    new: &Value,
    old: &Value,
) -> Result<(), ApiError> {
    let kind = context.kind;
    let is_pod = kind.schema == kinds::PODS.schema;
    let resources = "/spec/resources";
    let grows = match context.subresource {
        None => !is_pod && new.pointer(resources) != old.pointer(resources),
        Some(Subresource::Resize) => is_pod,
        Some(_) => false,
    };
    if !grows || new.is_deleting() {
        return Ok(());
    }
    check_bounds(&ranges_for(context.backend, kind, new), kind, new)
}

/// The ranges of the object's namespace, if they are about such objects.
fn ranges_for(backend: &Backend, kind: &Kind, object: &Value) -> Vec<Arc<CachedObject>> {
    let limited = [kinds::PODS.schema, kinds::PERSISTENT_VOLUME_CLAIMS.schema];
    if !limited.contains(&kind.schema) {
        return Vec::new();
    }
    cached_in_namespace(backend, &kinds::LIMIT_RANGES, object.namespace())
}

fn check_bounds(ranges: &[Arc<CachedObject>], kind: &Kind, object: &Value) -> Result<(), ApiError> {
    let is_pod = kind.schema == kinds::PODS.schema;
    let mut problems = Vec::new();
    let items = ranges.iter();
    for item in items.flat_map(|range| range.kept().list_at("/spec/limits")) {
        match (item.str_at("/type"), is_pod) {
            ("Container", true) => {
                for field in ["/spec/initContainers", "/spec/containers"] {
                    for container in object.list_at(field) {
                        let resources = container.get("resources");
                        check(item, "Container", &Used::of(resources), &mut problems);
                    }
                }
            }
            ("Pod", true) => {
                let used = Used {
                    requests: pod_amounts(object, "requests"),
                    limits: pod_amounts(object, "limits"),
                };
                check(item, "Pod", &used, &mut problems);
            }
            ("PersistentVolumeClaim", false) => {
                let used = Used::of(object.pointer("/spec/resources"));
                check_claim(item, &used, &mut problems);
            }
            _ => {}
        }
    }
    let words = match problems.as_slice() {
        [] => return Ok(()),
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    };
    Err(ApiError::forbidden(kind.resource(), object.name(), &words))
}

struct Used {
    requests: Amounts,
    limits: Amounts,
}

impl Used {
    fn of(resources: Option<&Value>) -> Self {
        Used {
            requests: amounts(resources.and_then(|resources| resources.get("requests"))),
            limits: amounts(resources.and_then(|resources| resources.get("limits"))),
        }
    }
}

fn apply_defaults(range: &Value, pod: &mut Value) {
    let mut notes = Vec::new();
    for item in range.list_at("/spec/limits") {
        if item.str_at("/type") != "Container" {
            continue;
        }
        for field in ["initContainers", "containers"] {
            let Some(Value::Array(containers)) = pod.map_mut(&["spec"]).get_mut(field) else {
                continue;
            };
            for container in containers {
                let name = container.str_at("/name").to_string();
                for (target, source, word) in [
                    ("requests", "/defaultRequest", "request"),
                    ("limits", "/default", "limit"),
                ] {
                    let set = fill(container, target, item.map_at(source));
                    if !set.is_empty() {
                        notes.push(format!("{} {word} for container {name}", set.join(", ")));
                    }
                }
            }
        }
    }
    if !notes.is_empty() {
        let text = format!("LimitRanger plugin set: {}", notes.join("; "));
        pod.set_at(&["metadata", "annotations", ANNOTATION], Value::from(text));
    }
}

/// Sets what is missing; the names of what was set.
fn fill(container: &mut Value, target: &str, source: Option<&Map<String, Value>>) -> Vec<String> {
    let mut set = Vec::new();
    for (name, amount) in source.into_iter().flatten() {
        let map = container.map_mut(&["resources", target]);
        if !map.contains_key(name) {
            map.insert(name.clone(), amount.clone());
            set.push(name.clone());
        }
    }
    set
}

fn bounds(item: &Value, field: &str) -> Amounts {
    amounts(item.get(field))
}

fn check(item: &Value, kind: &str, used: &Used, problems: &mut Vec<String>) {
    for (name, min) in bounds(item, "min") {
        let rule = format!("minimum {name} usage per {kind} is {min}");
        match (used.requests.get(&name), used.limits.get(&name)) {
            (None, _) => problems.push(format!("{rule}.  No request is specified")),
            (Some(request), _) if *request < min => {
                problems.push(format!("{rule}, but request is {request}"));
            }
            (_, Some(limit)) if *limit < min => {
                problems.push(format!("{rule}, but limit is {limit}"));
            }
            _ => {}
        }
    }
    for (name, max) in bounds(item, "max") {
        let rule = format!("maximum {name} usage per {kind} is {max}");
        match (used.requests.get(&name), used.limits.get(&name)) {
            (_, None) => problems.push(format!("{rule}.  No limit is specified")),
            (_, Some(limit)) if *limit > max => {
                problems.push(format!("{rule}, but limit is {limit}"));
            }
            (Some(request), _) if *request > max => {
                problems.push(format!("{rule}, but request is {request}"));
            }
            _ => {}
        }
    }
    for (name, ratio) in bounds(item, "maxLimitRequestRatio") {
        check_ratio(kind, &name, &ratio, used, problems);
    }
}

fn check_ratio(kind: &str, name: &str, most: &Quantity, used: &Used, problems: &mut Vec<String>) {
    let rule = format!("{name} max limit to request ratio per {kind} is {most}");
    let (Some(request), Some(limit)) = (
        used.requests
            .get(name)
            .filter(|amount| amount.milli_value() > 0),
        used.limits
            .get(name)
            .filter(|amount| amount.milli_value() > 0),
    ) else {
        problems.push(format!(
            "{rule}, but no request is specified or request is 0"
        ));
        return;
    };
    // Only for the comparison and the message: the quantities themselves stay exact.
    #[allow(clippy::cast_precision_loss)]
    let ratio = limit.milli_value() as f64 / request.milli_value() as f64;
    #[allow(clippy::cast_precision_loss)]
    let allowed = most.milli_value() as f64 / 1000.0;
    if ratio > allowed {
        problems.push(format!("{rule}, but provided ratio is {ratio:.6}"));
    }
}

fn check_claim(item: &Value, used: &Used, problems: &mut Vec<String>) {
    const KIND: &str = "PersistentVolumeClaim";
    for (name, min) in bounds(item, "min") {
        if let Some(request) = used.requests.get(&name).filter(|amount| **amount < min) {
            problems.push(format!(
                "minimum {name} usage per {KIND} is {min}, but request is {request}"
            ));
        }
    }
    for (name, max) in bounds(item, "max") {
        if let Some(request) = used.requests.get(&name).filter(|amount| **amount > max) {
            problems.push(format!(
                "maximum {name} usage per {KIND} is {max}, but request is {request}"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn bounds_are_worded_as_kubernetes_words_them() {
        let item = json!({"type": "Container", "min": {"cpu": "100m"}, "max": {"memory": "1Gi"},
            "maxLimitRequestRatio": {"cpu": "2"}});
        let words = |resources: Value| {
            let mut problems = Vec::new();
            check(
                &item,
                "Container",
                &Used::of(Some(&resources)),
                &mut problems,
            );
            problems
        };
        assert_eq!(
            words(json!({"requests": {"cpu": "50m", "memory": "2Gi"},
                "limits": {"cpu": "150m", "memory": "2Gi"}})),
            [
                "minimum cpu usage per Container is 100m, but request is 50m",
                "maximum memory usage per Container is 1Gi, but limit is 2Gi",
                "cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000",
            ]
        );
        assert_eq!(
            words(json!({"requests": {"cpu": "1"}, "limits": {"cpu": "1"}})),
            ["maximum memory usage per Container is 1Gi.  No limit is specified"]
        );
    }

    #[test]
    fn defaults_fill_only_what_is_missing() {
        let range = json!({"spec": {"limits": [{"type": "Container",
            "default": {"cpu": "1", "memory": "1Gi"}, "defaultRequest": {"cpu": "100m"}}]}});
        let mut pod = json!({"metadata": {}, "spec": {"containers": [
            {"name": "a", "resources": {"limits": {"cpu": "2"}}}]}});
        apply_defaults(&range, &mut pod);
        assert_eq!(
            pod["spec"]["containers"][0]["resources"],
            json!({"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "100m"}})
        );
        assert_eq!(
            pod["metadata"]["annotations"][ANNOTATION],
            "LimitRanger plugin set: cpu request for container a; memory limit for container a"
        );
    }
}
