//! What is changed through `pods/ephemeralcontainers` and `pods/resize`, and nothing else.

use serde_json::Value;

use super::{
    defaults, qos_class, validate::validate_ephemeral, validate_resource_list, validate_spec,
};
use crate::{
    ObjectExt,
    field::{Errors, Path},
    registry::Subresource,
};

const LISTS: [&str; 2] = ["containers", "initContainers"];

/// Takes over the part from `new`, everything else from `old`.
pub(super) fn prepare(part: Subresource, new: &mut Value, old: &Value) {
    let wanted = std::mem::replace(new, old.clone());
    match part {
        Subresource::EphemeralContainers => {
            let containers = wanted.list_at("/spec/ephemeralContainers").to_vec();
            if containers.is_empty() {
                new.remove_at(&["spec", "ephemeralContainers"]);
            } else {
                new.set_at(&["spec", "ephemeralContainers"], Value::Array(containers));
            }
        }
        Subresource::Resize => {
            for list in LISTS {
                take_resources(new, &wanted, list);
            }
        }
        _ => {}
    }
    defaults::default_pod(new);
}

fn take_resources(new: &mut Value, wanted: &Value, list: &str) {
    let Some(Value::Array(containers)) = new.pointer_mut(&format!("/spec/{list}")) else {
        return;
    };
    for container in containers {
        let name = container.str_at("/name");
        let source = wanted
            .list_at(&format!("/spec/{list}"))
            .iter()
            .find(|other| other.str_at("/name") == name);
        for field in ["resources", "resizePolicy"] {
            if let Some(value) = source.and_then(|source| source.get(field)) {
                container.set_at(&[field], value.clone());
            }
        }
    }
}

pub(super) fn validate(part: Subresource, new: &Value, old: &Value, errors: &mut Errors) {
    match part {
        Subresource::EphemeralContainers => validate_ephemeral(new, old, errors),
        Subresource::Resize => validate_resize(new, old, errors),
        _ => {}
    }
}

fn validate_resize(new: &Value, old: &Value, errors: &mut Errors) {
    let spec = Path::new("spec");
    validate_spec(new.get("spec").unwrap_or(&Value::Null), &spec, errors);
    if qos_class(new) != qos_class(old) {
        errors.invalid(
            &spec,
            qos_class(new),
            "Pod QOS Class may not change as a result of resizing",
        );
    }
    for list in LISTS {
        let pointer = format!("/spec/{list}");
        let pairs = new.list_at(&pointer).iter().zip(old.list_at(&pointer));
        for (index, (after, before)) in pairs.enumerate() {
            let path = spec.child(list).index(index).child("resources");
            for kind in ["limits", "requests"] {
                let amounts = |container: &Value| {
                    let mut map = container
                        .map_at(&format!("/resources/{kind}"))
                        .cloned()
                        .unwrap_or_default();
                    map.retain(|name, _| !matches!(name.as_str(), "cpu" | "memory"));
                    map
                };
                if amounts(after) != amounts(before) {
                    errors.forbidden(&path, "only cpu and memory resources are mutable");
                }
                let list = after.map_at(&format!("/resources/{kind}"));
                let removed = before
                    .map_at(&format!("/resources/{kind}"))
                    .into_iter()
                    .flatten()
                    .any(|(name, _)| list.is_none_or(|list| !list.contains_key(name)));
                if removed {
                    errors.forbidden(
                        &path.child(kind),
                        format!("resource {kind} cannot be removed"),
                    );
                }
                validate_resource_list(list, &path.child(kind), errors);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod() -> Value {
        let mut pod = json!({"metadata": {"resourceVersion": "1"}, "spec": {"containers": [{"name": "c", "image": "i",
            "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}]}});
        defaults::default_pod(&mut pod);
        pod
    }

    fn change(part: Subresource, change: impl Fn(&mut Value)) -> (Value, Vec<String>) {
        let old = pod();
        let mut new = old.clone();
        change(&mut new);
        prepare(part, &mut new, &old);
        let mut errors = Errors::default();
        validate(part, &new, &old, &mut errors);
        let errors = errors.into_vec().iter().map(ToString::to_string).collect();
        (new, errors)
    }

    #[test]
    fn a_resize_changes_cpu_and_memory_only() {
        let (new, errors) = change(Subresource::Resize, |pod| {
            pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("2");
            pod["spec"]["containers"][0]["image"] = json!("other");
        });
        assert!(errors.is_empty(), "{errors:?}");
        let container = &new["spec"]["containers"][0];
        assert_eq!(container["resources"]["requests"]["cpu"], "2");
        assert_eq!(container["image"], "i");
        let (_, errors) = change(Subresource::Resize, |pod| {
            pod["spec"]["containers"][0]["resources"] = json!({});
        });
        assert!(
            errors[0].contains("Pod QOS Class may not change"),
            "{errors:?}"
        );
    }

    #[test]
    fn ephemeral_containers_are_only_added() {
        let (new, errors) = change(Subresource::EphemeralContainers, |pod| {
            pod["spec"]["ephemeralContainers"] =
                json!([{"name": "d", "image": "b", "targetContainerName": "c"}]);
            pod["spec"]["nodeName"] = json!("elsewhere");
        });
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(
            new["spec"]["ephemeralContainers"][0]["imagePullPolicy"],
            "Always"
        );
        assert!(new["spec"].get("nodeName").is_none());
        let mut errors = Errors::default();
        validate_ephemeral(&pod(), &new, &mut errors);
        assert_eq!(errors.into_vec().len(), 1);
        let (_, errors) = change(Subresource::EphemeralContainers, |pod| {
            pod["spec"]["ephemeralContainers"] =
                json!([{"name": "c", "image": "b", "ports": [{"containerPort": 1}]}]);
        });
        assert_eq!(
            errors,
            [
                "spec.ephemeralContainers[0].name: Duplicate value: \"c\"",
                "spec.ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral Container",
            ]
        );
    }
}
