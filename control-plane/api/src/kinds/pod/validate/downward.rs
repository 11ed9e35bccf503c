//! What a pod may read of itself, by variables and by files (the downward API).

use serde_json::Value;

use crate::{
    ObjectExt,
    field::{Errors, Path},
    names,
    quantity::Quantity,
};

/// What an environment variable can hold.
pub(super) const ENVIRONMENT_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// What a file can hold.
const FILE_FIELDS: [&str; 5] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
];
/// Fields that have a name, beside those of variables.
const KNOWN_FIELDS: [&str; 5] = [
    "metadata.annotations",
    "metadata.labels",
    "spec.restartPolicy",
    "spec.schedulerName",
    "status.phase",
];
const RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const HUGE_PAGES: [&str; 2] = ["requests.hugepages-", "limits.hugepages-"];
const BYTE_DIVISORS: [&str; 13] = [
    "1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei",
];

pub(super) fn validate_field_ref(
    reference: &Value,
    allowed: &[&str],
    path: &Path,
    errors: &mut Errors,
) {
    let field = reference.str_at("/fieldPath");
    let at = path.child("fieldPath");
    if reference.str_at("/apiVersion").is_empty() {
        return errors.required(&path.child("apiVersion"), "");
    }
    if field.is_empty() {
        return errors.required(&at, "");
    }
    if let Some((map, key)) = subscript(field) {
        let key = match map {
            "metadata.annotations" => key.to_lowercase(),
            "metadata.labels" => key.to_string(),
            _ => {
                let why = "field label does not support subscript";
                return errors.invalid(&at, field, format!("{CONVERTING}: {why}: {field}"));
            }
        };
        for why in names::qualified_name(&key) {
            errors.invalid(path, key.as_str(), why);
        }
    } else if !ENVIRONMENT_FIELDS.contains(&field) && !KNOWN_FIELDS.contains(&field) {
        let why = "field label not supported";
        errors.invalid(&at, field, format!("{CONVERTING}: {why}: {field}"));
    } else if !allowed.contains(&field) {
        errors.not_supported(&at, field, allowed);
    }
}

const CONVERTING: &str = "error converting fieldPath";

/// `metadata.labels['key']` as its two parts.
fn subscript(field: &str) -> Option<(&str, &str)> {
    let (map, rest) = field.split_once("['")?;
    Some((map, rest.strip_suffix("']")?))
}

/// `file`: the reference is that of a file, which has to name the container.
pub(super) fn validate_resource_ref(
    reference: &Value,
    file: bool,
    path: &Path,
    errors: &mut Errors,
) {
    let resource = reference.str_at("/resource");
    let huge = HUGE_PAGES.iter().any(|prefix| resource.starts_with(prefix));
    if file && reference.str_at("/containerName").is_empty() {
        errors.required(&path.child("containerName"), "");
    } else if resource.is_empty() {
        errors.required(&path.child("resource"), "");
    } else if !RESOURCES.contains(&resource) && !huge {
        errors.not_supported(&path.child("resource"), resource, &RESOURCES);
    }
    let divisor = match reference.get("divisor") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => return,
    };
    let is_zero = divisor
        .parse::<Quantity>()
        .is_ok_and(|quantity| quantity == Quantity::from_units(0));
    if is_zero {
        return;
    }
    let (supported, words): (&[&str], &str) = match resource.split_once('.').map(|(_, name)| name) {
        Some("cpu") => (&["1m", "1"], "1m and 1 are supported with the cpu resource"),
        Some("memory") => (&BYTE_DIVISORS, BYTES_OF_MEMORY),
        Some("ephemeral-storage") => (&BYTE_DIVISORS, BYTES_OF_STORAGE),
        Some(_) if huge => (&BYTE_DIVISORS, BYTES_OF_HUGE_PAGES),
        _ => return,
    };
    if !supported.contains(&divisor.as_str()) {
        errors.invalid(
            &path.child("divisor"),
            resource,
            format!("only divisor's values {words}"),
        );
    }
}

const BYTES_OF_MEMORY: &str = "1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the memory resource";
const BYTES_OF_STORAGE: &str = "1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the local ephemeral storage resource";
const BYTES_OF_HUGE_PAGES: &str = "1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the hugepages resource";

/// What one file of a downwardAPI volume holds.
pub(in crate::kinds::pod) fn validate_file(item: &Value, path: &Path, errors: &mut Errors) {
    match (item.get("fieldRef"), item.get("resourceFieldRef")) {
        (None, None) => {
            errors.required(path, "one of fieldRef and resourceFieldRef is required");
        }
        (Some(field), other) => {
            validate_field_ref(field, &FILE_FIELDS, &path.child("fieldRef"), errors);
            if other.is_some() {
                errors.invalid(
                    path,
                    "resource",
                    "fieldRef and resourceFieldRef can not be specified simultaneously",
                );
            }
        }
        (None, Some(resource)) => {
            validate_resource_ref(resource, true, &path.child("resourceFieldRef"), errors);
        }
    }
}
