//! What the kinds that make pods from a template have in common.

use serde_json::Value;

use super::pod;
use crate::{
    ObjectExt,
    field::{Errors, Path},
    selector::{LabelSelector, label},
    table::{self, Column},
};

/// The columns of the template and the selector, shown with `-o wide`.
pub(super) const CONTAINERS: Column = table::wide("Containers", "Names of the containers.");
pub(super) const IMAGES: Column = table::wide("Images", "Images of the containers.");
pub(super) const SELECTOR: Column = table::wide("Selector", "Which pods belong to it.");

/// What a kind allows in its template.
pub(super) struct TemplateRules {
    /// For the message about `activeDeadlineSeconds`.
    pub kind: &'static str,
    /// Said of a selector that selects everything.
    pub empty_selector: &'static str,
}

/// Checks labels, annotations and spec of a pod template.
pub(super) fn validate_pod_template(template: &Value, path: &Path, errors: &mut Errors) {
    let metadata = path.child("metadata");
    label::validate_labels(template.labels(), &metadata.child("labels"), errors);
    let spec = template.get("spec").unwrap_or(&Value::Null);
    pod::validate_spec(spec, &path.child("spec"), errors);
}

/// Checks selector and template of a kind that keeps pods running.
pub(super) fn validate_selected_template(
    object: &Value,
    rules: &TemplateRules,
    errors: &mut Errors,
) {
    let spec = Path::new("spec");
    let path = spec.child("template");
    let template = object.pointer("/spec/template").unwrap_or(&Value::Null);
    match object.pointer("/spec/selector") {
        None => {
            errors.required(&spec.child("selector"), "");
            selector_mismatch(template, &path, errors);
        }
        Some(selector) => {
            label::validate_object(Some(selector), &spec.child("selector"), errors);
            match LabelSelector::from_object(selector) {
                Ok(parsed) if parsed.is_empty() => errors.invalid(
                    &spec.child("selector"),
                    selector.clone(),
                    rules.empty_selector,
                ),
                Ok(parsed) if !parsed.matches(template.labels()) => {
                    selector_mismatch(template, &path, errors);
                }
                _ => {}
            }
        }
    }
    validate_pod_template(template, &path, errors);
    validate_always_running(template, &path, rules.kind, errors);
}

/// Pods that are replaced when they end must be such that never end by themselves.
pub(super) fn validate_always_running(
    template: &Value,
    path: &Path,
    kind: &str,
    errors: &mut Errors,
) {
    let spec = path.child("spec");
    let policy = template.str_at("/spec/restartPolicy");
    if policy != "Always" {
        errors.not_supported(&spec.child("restartPolicy"), policy, &["Always"]);
    }
    if template.pointer("/spec/activeDeadlineSeconds").is_some() {
        errors.forbidden(
            &spec.child("activeDeadlineSeconds"),
            format!("activeDeadlineSeconds in {kind} is not Supported"),
        );
    }
}

pub(super) fn selector_mismatch(template: &Value, path: &Path, errors: &mut Errors) {
    errors.invalid(
        &path.child("metadata").child("labels"),
        template
            .labels()
            .cloned()
            .map_or(Value::Null, Value::Object),
        "`selector` does not match template `labels`",
    );
}

/// Numbers of the spec or status that may not be negative.
pub(super) fn validate_counts(object: &Value, part: &str, fields: &[&str], errors: &mut Errors) {
    for field in fields {
        errors.check_non_negative(
            &Path::new(part).child(field),
            object.int_at(&format!("/{part}/{field}")),
        );
    }
}

/// `status.collisionCount` only grows.
pub(super) fn validate_collisions(new: &Value, old: &Value, errors: &mut Errors) {
    let collisions = |object: &Value| object.int_at("/status/collisionCount").unwrap_or(0);
    if collisions(new) < collisions(old) {
        errors.invalid(
            &Path::new("status.collisionCount"),
            collisions(new),
            "cannot be decremented",
        );
    }
}

/// The selector is what ties the pods to the object.
pub(super) fn validate_selector_unchanged(new: &Value, old: &Value, errors: &mut Errors) {
    errors.check_immutable(
        &Path::new("spec.selector"),
        new.pointer("/spec/selector"),
        old.pointer("/spec/selector"),
    );
}

/// A number of pods, or a percentage of them: its value.
pub(super) fn amount(parent: &Value, field: &str, path: &Path, errors: &mut Errors) -> Option<i64> {
    let value = parent.get(field)?;
    let path = path.child(field);
    match value {
        Value::String(text) => {
            let percent = text
                .strip_suffix('%')
                .filter(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
                .and_then(|digits| digits.parse::<i64>().ok());
            if percent.is_none() {
                errors.invalid(
                    &path,
                    value.clone(),
                    "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
                );
            }
            percent
        }
        number => {
            errors.check_non_negative(&path, number.as_i64());
            number.as_i64()
        }
    }
}

/// A percentage of at most all.
pub(super) fn check_at_most_all(parent: &Value, field: &str, path: &Path, errors: &mut Errors) {
    let percent = parent
        .get(field)
        .and_then(Value::as_str)
        .and_then(|text| text.strip_suffix('%'))
        .and_then(|digits| digits.parse::<i64>().ok());
    if percent.is_some_and(|percent| percent > 100) {
        errors.invalid(
            &path.child(field),
            parent.get(field).cloned().unwrap_or(Value::Null),
            "must not be greater than 100%",
        );
    }
}

/// A number for a cell.
pub(super) fn count(object: &Value, pointer: &str) -> Value {
    Value::from(object.int_at(pointer).unwrap_or(0))
}

/// The cells of containers and images.
pub(super) fn container_cells(spec: &Value) -> [Value; 2] {
    let containers = spec.list_at("/containers");
    ["/name", "/image"].map(|field| {
        let parts: Vec<&str> = containers.iter().map(|c| c.str_at(field)).collect();
        Value::from(parts.join(","))
    })
}

/// A label selector for a cell.
pub(super) fn selector_cell(selector: Option<&Value>) -> Value {
    let text = selector
        .and_then(|selector| LabelSelector::from_object(selector).ok())
        .map(|selector| selector.to_string())
        .filter(|text| !text.is_empty());
    Value::from(text.unwrap_or_else(|| "<none>".to_string()))
}

/// Plain `key=value` labels for a cell.
pub(super) fn labels_cell(labels: Option<&serde_json::Map<String, Value>>) -> Value {
    let parts: Vec<String> = labels
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or("")))
        .collect();
    Value::from(if parts.is_empty() {
        "<none>".to_string()
    } else {
        parts.join(",")
    })
}

/// The cells of [`CONTAINERS`], [`IMAGES`] and [`SELECTOR`].
pub(super) fn template_cells(object: &Value) -> [Value; 3] {
    let spec = object
        .pointer("/spec/template/spec")
        .unwrap_or(&Value::Null);
    let [containers, images] = container_cells(spec);
    [
        containers,
        images,
        selector_cell(object.pointer("/spec/selector")),
    ]
}
