//! ResourceQuota.

use serde_json::Value;

use super::{PLAIN, pod};
use crate::{
    ObjectExt,
    field::{Errors, Path},
    registry::{self, Kind, Subresource},
    table::{self, Column},
};

/// `v1` ResourceQuota.
pub static RESOURCE_QUOTAS: Kind = Kind {
    kind: "ResourceQuota",
    plural: "resourcequotas",
    singular: "resourcequota",
    short_names: &["quota"],
    subresources: &[Subresource::Status],
    schema: "core.ResourceQuota",
    storage: "resourcequotas",
    strategy: &Strategy,
    ..PLAIN
};

struct Strategy;

const SCOPES: &[&str] = &[
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];
/// Scopes that exclude each other.
const OPPOSITES: [(&str, &str); 2] = [
    ("BestEffort", "NotBestEffort"),
    ("Terminating", "NotTerminating"),
];

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("Request", "Used and allowed requests."),
    table::column("Limit", "Used and allowed limits."),
    table::AGE,
];

impl registry::Strategy for Strategy {
    fn validate(&self, object: &Value, errors: &mut Errors) {
        let spec = Path::new("spec");
        let hard = object.map_at("/spec/hard");
        pod::validate_resource_list(hard, &spec.child("hard"), errors);
        let scopes = object.list_at("/spec/scopes");
        let path = spec.child("scopes");
        for scope in scopes {
            errors.check_supported(&path, scope.as_str().unwrap_or(""), SCOPES);
        }
        for (one, other) in OPPOSITES {
            let has = |wanted: &str| scopes.iter().any(|scope| scope == wanted);
            if has(one) && has(other) {
                errors.invalid(&path, scopes.to_vec(), "conflicting scopes");
            }
        }
        let list = spec.child("scopeSelector").child("matchExpressions");
        for (index, term) in object
            .list_at("/spec/scopeSelector/matchExpressions")
            .iter()
            .enumerate()
        {
            validate_term(term, &list.index(index), errors);
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Errors) {
        for field in ["scopes", "scopeSelector"] {
            let pointer = format!("/spec/{field}");
            errors.check_immutable(
                &Path::new("spec").child(field),
                new.pointer(&pointer),
                old.pointer(&pointer),
            );
        }
    }

    fn validate_status_update(&self, new: &Value, _old: &Value, errors: &mut Errors) {
        for field in ["hard", "used"] {
            pod::validate_resource_list(
                new.map_at(&format!("/status/{field}")),
                &Path::new("status").child(field),
                errors,
            );
        }
    }

    fn has_status(&self) -> bool {
        true
    }

    fn returns_deleted(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let (mut requests, mut limits) = (Vec::new(), Vec::new());
        for (name, hard) in object.map_at("/status/hard").into_iter().flatten() {
            let used = object
                .map_at("/status/used")
                .and_then(|used| used.get(name))
                .and_then(Value::as_str)
                .unwrap_or("0");
            let cell = format!("{name}: {used}/{}", hard.as_str().unwrap_or("0"));
            if name.starts_with("limits.") {
                limits.push(cell);
            } else {
                requests.push(cell);
            }
        }
        vec![
            Value::from(object.name()),
            Value::from(requests.join(", ")),
            Value::from(limits.join(", ")),
            table::age_cell(object, now),
        ]
    }
}

fn validate_term(term: &Value, path: &Path, errors: &mut Errors) {
    let (scope, operator) = (term.str_at("/scopeName"), term.str_at("/operator"));
    errors.check_supported(&path.child("scopeName"), scope, SCOPES);
    let values = term.list_at("/values");
    match operator {
        "In" | "NotIn" => {
            if values.is_empty() {
                errors.required(
                    &path.child("values"),
                    "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
                );
            }
        }
        "Exists" | "DoesNotExist" => {
            if !values.is_empty() {
                errors.invalid(
                    &path.child("values"),
                    values.to_vec(),
                    "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector",
                );
            }
        }
        other => errors.invalid(
            &path.child("operator"),
            other,
            "not a valid selector operator",
        ),
    }
    let by_value = matches!(scope, "PriorityClass" | "VolumeAttributesClass");
    if !by_value && operator != "Exists" {
        errors.invalid(
            &path.child("operator"),
            operator,
            "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity",
        );
    }
}
