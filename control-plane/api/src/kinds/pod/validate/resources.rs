//! Amounts of resources.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::Surroundings;
use crate::{
    ObjectExt,
    field::{Errors, Path},
    names,
    quantity::Quantity,
};

/// Resources that are huge pages, by their size.
pub(in crate::kinds::pod) const HUGE_PAGES: &str = "hugepages-";
/// Resources without a domain that only quotas know.
const QUOTA_RESOURCES: [&str; 17] = [
    "configmaps",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
    "requests.storage",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
    "storage",
];

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

/// What a container asks for and may have.
pub(super) fn validate_resources(container: &Value, path: &Path, errors: &mut Errors) {
    let none = Value::Null;
    let resources = container.get("resources").unwrap_or(&none);
    validate_requirements(resources, container_resource, path, errors);
}

/// What a container or a pod asks for and may have; `known` says what is wrong with a name.
pub(in crate::kinds::pod) fn validate_requirements(
    resources: &Value,
    known: impl Fn(&str, &Path, &mut Errors),
    path: &Path,
    errors: &mut Errors,
) {
    let (limits, requests) = (resources.map_at("/limits"), resources.map_at("/requests"));
    for (field, list) in [("limits", limits), ("requests", requests)] {
        validate_resource_list(list, &path.child(field), errors);
        for (name, amount) in list.into_iter().flatten() {
            let at = path.child(field).key(name);
            if names::qualified_name(name).is_empty() {
                known(name, &at, errors);
            }
            validate_pages(name, amount, &at, errors);
        }
    }
    for (name, request) in requests.into_iter().flatten() {
        match limits.and_then(|limits| limits.get(name)) {
            Some(limit) => validate_below(name, request, limit, path, errors),
            None if !may_be_overcommitted(name) => errors.required(
                &path.child("limits"),
                "Limit must be set for non overcommitable resources",
            ),
            None => {}
        }
    }
    let asked = || limits.into_iter().chain(requests).flatten();
    if asked().any(|(name, _)| name.starts_with(HUGE_PAGES))
        && !asked().any(|(name, _)| matches!(name.as_str(), "cpu" | "memory"))
    {
        errors.forbidden(path, "HugePages require cpu or memory");
    }
}

fn container_resource(name: &str, path: &Path, errors: &mut Errors) {
    if !name.contains('/')
        && !matches!(name, "cpu" | "memory" | "ephemeral-storage")
        && !name.starts_with(HUGE_PAGES)
    {
        if !QUOTA_RESOURCES.contains(&name) {
            errors.invalid(
                path,
                name,
                "must be a standard resource type or fully qualified",
            );
        }
        errors.invalid(path, name, "must be a standard resource for containers");
    }
}

/// As a quantity, if it is one: whether it is, the schema says.
pub(in crate::kinds::pod) fn amount(value: &Value) -> Option<Quantity> {
    value.as_str()?.parse().ok()
}

fn validate_below(name: &str, request: &Value, limit: &Value, path: &Path, errors: &mut Errors) {
    let (Some(asked), Some(most)) = (amount(request), amount(limit)) else {
        return;
    };
    let path = path.child("requests");
    if asked != most && !may_be_overcommitted(name) {
        let why = format!("must be equal to {name} limit of {most}");
        errors.invalid(&path, request.clone(), why);
    } else if asked > most {
        let why = format!("must be less than or equal to {name} limit of {most}");
        errors.invalid(&path, request.clone(), why);
    }
}

/// Huge pages come whole.
fn validate_pages(name: &str, value: &Value, path: &Path, errors: &mut Errors) {
    let (Some(size), Some(total)) = (name.strip_prefix(HUGE_PAGES), amount(value)) else {
        return;
    };
    let page = size.parse().ok().filter(Quantity::is_integer);
    let page = page.map_or(0, |page: Quantity| page.value());
    if page <= 0 || total.value() % page != 0 {
        let why = format!("{total} is not positive integer multiple of {name}");
        errors.invalid(path, value.clone(), why);
    }
}

/// More of it may be promised than there is.
pub(in crate::kinds::pod) fn may_be_overcommitted(name: &str) -> bool {
    !is_extended(name) && !name.starts_with(HUGE_PAGES)
}

/// Checks what a change of resources does to a running container.
pub(super) fn validate_resize_policy(
    container: &Value,
    around: &Surroundings<'_>,
    path: &Path,
    errors: &mut Errors,
) {
    let mut seen = HashSet::new();
    for (index, rule) in container.list_at("/resizePolicy").iter().enumerate() {
        let (resource, policy) = (rule.str_at("/resourceName"), rule.str_at("/restartPolicy"));
        if !seen.insert(resource) {
            errors.duplicate(&path.index(index), resource);
        }
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
