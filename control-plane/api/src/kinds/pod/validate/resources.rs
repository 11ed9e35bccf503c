//! Amounts of resources.

use serde_json::{Map, Value};

use super::Surroundings;
use crate::{
    ObjectExt,
    field::{Errors, Path},
    names,
    quantity::Quantity,
};

/// Amounts of resources: known names, none below zero.
pub(crate) fn validate_resource_list(
    list: Option<&Map<String, Value>>,
    path: &Path,
    errors: &mut Errors,
) {
    for (name, amount) in list.into_iter().flatten() {
        let path = path.key(name);
        for why in names::qualified_name(name) {
            errors.invalid(&path, name.as_str(), why);
        }
        let text = amount.as_str().unwrap_or("");
        if let Ok(quantity) = text.parse::<Quantity>() {
            if quantity.is_negative() {
                errors.invalid(&path, text, "must be greater than or equal to 0");
            }
            if is_extended(name) && !quantity.is_integer() {
                errors.invalid(&path, text, "must be an integer");
            }
        }
    }
}

/// Devices and such, counted in whole units.
fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/")
}

pub(super) fn validate_resources(container: &Value, path: &Path, errors: &mut Errors) {
    for list in ["limits", "requests"] {
        let amounts = container.map_at(&format!("/resources/{list}"));
        validate_resource_list(amounts, &path.child(list), errors);
        for (name, _) in amounts.into_iter().flatten() {
            let standard = matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage");
            if !standard && !name.starts_with("hugepages-") && !name.contains('/') {
                errors.invalid(
                    &path.child(list).key(name),
                    name.as_str(),
                    "must be a standard resource type or fully qualified",
                );
            }
        }
    }
    let Some(requests) = container.map_at("/resources/requests") else {
        return;
    };
    for (name, request) in requests {
        let limit = container
            .map_at("/resources/limits")
            .and_then(|limits| limits.get(name));
        let parse = |value: &Value| {
            value
                .as_str()
                .and_then(|text| text.parse::<Quantity>().ok())
        };
        let (Some(request_amount), Some(limit_amount)) = (parse(request), limit.and_then(parse))
        else {
            continue;
        };
        if request_amount > limit_amount {
            errors.invalid(
                &path.child("requests"),
                request.clone(),
                format!("must be less than or equal to {name} limit of {limit_amount}"),
            );
        }
    }
}

/// Checks what a change of resources does to a running container.
pub(super) fn validate_resize_policy(
    container: &Value,
    around: &Surroundings<'_>,
    path: &Path,
    errors: &mut Errors,
) {
    let mut seen: Vec<&str> = Vec::new();
    for (index, rule) in container.list_at("/resizePolicy").iter().enumerate() {
        let (resource, policy) = (rule.str_at("/resourceName"), rule.str_at("/restartPolicy"));
        if seen.contains(&resource) {
            errors.duplicate(&path.index(index), resource);
        }
        seen.push(resource);
        for (value, supported) in [
            (resource, ["cpu", "memory"]),
            (policy, ["NotRequired", "RestartContainer"]),
        ] {
            if value.is_empty() {
                errors.required(path, "");
            } else {
                errors.check_supported(path, value, &supported);
            }
        }
        if around.never_restarts && policy != "NotRequired" {
            errors.invalid(
                path,
                policy,
                "must be 'NotRequired' when `restartPolicy` is 'Never'",
            );
        }
    }
}
