//! ReplicaSet and Deployment.

use serde_json::{Value, json};

use super::pod;
use crate::{
    ObjectExt,
    field::{Errors, Path},
    meta,
    object::{default_text, default_to},
    registry,
    selector::{LabelSelector, label},
    table::{self, Column},
};

pub(super) struct DeploymentStrategy;
pub(super) struct ReplicaSetStrategy;

const REPLICA_SET_COLUMNS: &[Column] = &[
    table::NAME,
    table::number("Desired", "Pods wanted."),
    table::number("Current", "Pods that exist."),
    table::number("Ready", "Pods that are ready."),
    table::AGE,
    table::wide("Containers", "Names of the containers."),
    table::wide("Images", "Images of the containers."),
    table::wide("Selector", "Which pods belong to it."),
];

const DEPLOYMENT_COLUMNS: &[Column] = &[
    table::NAME,
    table::column("Ready", "Ready pods of those wanted."),
    table::number("Up-to-date", "Pods of the newest template."),
    table::number("Available", "Pods ready for long enough."),
    table::AGE,
    table::wide("Containers", "Names of the containers."),
    table::wide("Images", "Images of the containers."),
    table::wide("Selector", "Which pods belong to it."),
];

fn clear_status(object: &mut Value, generation: bool) {
    object.set_at(&["status"], json!({}));
    if generation {
        object.set_at(&["metadata", "generation"], Value::from(1));
    }
}

fn keep_status(new: &mut Value, old: &Value) {
    let status = old.get("status").cloned().unwrap_or(json!({}));
    new.set_at(&["status"], status);
    meta::bump_generation(new, old);
}

fn validate_template(object: &Value, errors: &mut Errors) {
    let spec = Path::new("spec");
    errors.check_non_negative(&spec.child("replicas"), object.int_at("/spec/replicas"));
    errors.check_non_negative(
        &spec.child("minReadySeconds"),
        object.int_at("/spec/minReadySeconds"),
    );
    let template_path = spec.child("template");
    let template = object.pointer("/spec/template").unwrap_or(&Value::Null);
    match object.pointer("/spec/selector") {
        None => {
            errors.required(&spec.child("selector"), "");
            selector_mismatch(template, &template_path, errors);
        }
        Some(selector) => {
            label::validate_object(Some(selector), &spec.child("selector"), errors);
            match LabelSelector::from_object(selector) {
                Ok(parsed) if parsed.is_empty() => errors.invalid(
                    &spec.child("selector"),
                    selector.clone(),
                    "empty selector is invalid for deployment",
                ),
                Ok(parsed) if !parsed.matches(template.labels()) => {
                    selector_mismatch(template, &template_path, errors);
                }
                _ => {}
            }
        }
    }
    label::validate_labels(
        template.labels(),
        &template_path.child("metadata").child("labels"),
        errors,
    );
    let template_spec = template.get("spec").unwrap_or(&Value::Null);
    pod::validate_spec(template_spec, &template_path.child("spec"), errors);
    let policy = template_spec.str_at("/restartPolicy");
    if policy != "Always" {
        errors.not_supported(
            &template_path.child("spec").child("restartPolicy"),
            policy,
            &["Always"],
        );
    }
    if template_spec.get("activeDeadlineSeconds").is_some() {
        errors.forbidden(
            &template_path.child("spec").child("activeDeadlineSeconds"),
            "activeDeadlineSeconds in ReplicaSet is not Supported",
        );
    }
}

fn selector_mismatch(template: &Value, path: &Path, errors: &mut Errors) {
    errors.invalid(
        &path.child("metadata").child("labels"),
        template
            .labels()
            .cloned()
            .map_or(Value::Null, Value::Object),
        "`selector` does not match template `labels`",
    );
}

impl registry::Strategy for ReplicaSetStrategy {
    fn apply_defaults(&self, object: &mut Value) {
        default_to(object.map_mut(&["spec"]), "replicas", 1);
        pod::default_template(object);
    }

    fn prepare_create(&self, object: &mut Value) {
        clear_status(object, true);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        keep_status(new, old);
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        validate_template(object, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Errors) {
        errors.check_immutable(
            &Path::new("spec.selector"),
            new.pointer("/spec/selector"),
            old.pointer("/spec/selector"),
        );
    }

    fn validate_status_update(&self, new: &Value, _old: &Value, errors: &mut Errors) {
        validate_counts(
            new,
            &[
                "replicas",
                "fullyLabeledReplicas",
                "readyReplicas",
                "availableReplicas",
            ],
            errors,
        );
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["status.replicas"]
    }

    fn columns(&self) -> &'static [Column] {
        REPLICA_SET_COLUMNS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let mut row = vec![
            Value::from(object.name()),
            count(object, "/spec/replicas"),
            count(object, "/status/replicas"),
            count(object, "/status/readyReplicas"),
            table::age_cell(object, now),
        ];
        row.extend(template_cells(object));
        row
    }
}

impl registry::Strategy for DeploymentStrategy {
    fn apply_defaults(&self, object: &mut Value) {
        let spec = object.map_mut(&["spec"]);
        default_to(spec, "replicas", 1);
        default_to(spec, "revisionHistoryLimit", 10);
        default_to(spec, "progressDeadlineSeconds", 600);
        default_text(
            object.map_mut(&["spec", "strategy"]),
            "type",
            "RollingUpdate",
        );
        if object.str_at("/spec/strategy/type") == "RollingUpdate" {
            let rolling = object.map_mut(&["spec", "strategy", "rollingUpdate"]);
            default_to(rolling, "maxSurge", "25%");
            default_to(rolling, "maxUnavailable", "25%");
        }
        pod::default_template(object);
    }

    fn prepare_create(&self, object: &mut Value) {
        clear_status(object, true);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        keep_status(new, old);
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        validate_template(object, errors);
        validate_rollout(object, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Errors) {
        errors.check_immutable(
            &Path::new("spec.selector"),
            new.pointer("/spec/selector"),
            old.pointer("/spec/selector"),
        );
    }

    fn validate_status_update(&self, new: &Value, old: &Value, errors: &mut Errors) {
        validate_counts(
            new,
            &[
                "observedGeneration",
                "replicas",
                "updatedReplicas",
                "readyReplicas",
                "availableReplicas",
                "unavailableReplicas",
                "collisionCount",
            ],
            errors,
        );
        let collisions = |object: &Value| object.int_at("/status/collisionCount").unwrap_or(0);
        if collisions(new) < collisions(old) {
            errors.invalid(
                &Path::new("status.collisionCount"),
                collisions(new),
                "cannot be decremented",
            );
        }
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        DEPLOYMENT_COLUMNS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let ready = object.int_at("/status/readyReplicas").unwrap_or(0);
        let wanted = object.int_at("/spec/replicas").unwrap_or(0);
        let mut row = vec![
            Value::from(object.name()),
            Value::from(format!("{ready}/{wanted}")),
            count(object, "/status/updatedReplicas"),
            count(object, "/status/availableReplicas"),
            table::age_cell(object, now),
        ];
        row.extend(template_cells(object));
        row
    }
}

fn validate_counts(object: &Value, fields: &[&str], errors: &mut Errors) {
    for field in fields {
        errors.check_non_negative(
            &Path::new("status").child(field),
            object.int_at(&format!("/status/{field}")),
        );
    }
}

fn validate_rollout(object: &Value, errors: &mut Errors) {
    let spec = Path::new("spec");
    errors.check_non_negative(
        &spec.child("revisionHistoryLimit"),
        object.int_at("/spec/revisionHistoryLimit"),
    );
    let deadline = object
        .int_at("/spec/progressDeadlineSeconds")
        .unwrap_or(600);
    errors.check_non_negative(&spec.child("progressDeadlineSeconds"), Some(deadline));
    if deadline <= object.int_at("/spec/minReadySeconds").unwrap_or(0) {
        errors.invalid(
            &spec.child("progressDeadlineSeconds"),
            deadline,
            "must be greater than minReadySeconds",
        );
    }
    let path = spec.child("strategy");
    let strategy = object.pointer("/spec/strategy").unwrap_or(&Value::Null);
    let rolling = strategy.get("rollingUpdate");
    match strategy.str_at("/type") {
        "Recreate" => {
            if rolling.is_some() {
                errors.forbidden(
                    &path.child("rollingUpdate"),
                    "may not be specified when strategy `type` is 'Recreate'",
                );
            }
        }
        "RollingUpdate" => {
            let rolling = rolling.unwrap_or(&Value::Null);
            let path = path.child("rollingUpdate");
            let surge = amount(rolling, "maxSurge", &path, errors);
            let unavailable = amount(rolling, "maxUnavailable", &path, errors);
            if surge == Some(0) && unavailable == Some(0) {
                errors.invalid(
                    &path.child("maxUnavailable"),
                    rolling
                        .get("maxUnavailable")
                        .cloned()
                        .unwrap_or(Value::Null),
                    "may not be 0 when `maxSurge` is 0",
                );
            }
        }
        other => errors.not_supported(&path.child("type"), other, &["Recreate", "RollingUpdate"]),
    }
}

/// A number or percentage of the rolling update.
fn amount(rolling: &Value, field: &str, path: &Path, errors: &mut Errors) -> Option<i64> {
    let value = rolling.get(field)?;
    let path = path.child(field);
    match value {
        Value::String(text) => {
            let percent = text
                .strip_suffix('%')
                .filter(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
                .and_then(|digits| digits.parse::<i64>().ok());
            match percent {
                None => errors.invalid(
                    &path,
                    value.clone(),
                    "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
                ),
                Some(percent) if percent > 100 && field == "maxUnavailable" => {
                    errors.invalid(&path, value.clone(), "must not be greater than 100%");
                }
                Some(_) => {}
            }
            percent
        }
        number => {
            errors.check_non_negative(&path, number.as_i64());
            number.as_i64()
        }
    }
}

fn count(object: &Value, pointer: &str) -> Value {
    Value::from(object.int_at(pointer).unwrap_or(0))
}

fn template_cells(object: &Value) -> [Value; 3] {
    let containers = object.list_at("/spec/template/spec/containers");
    let join = |field: &str| {
        let parts: Vec<&str> = containers.iter().map(|c| c.str_at(field)).collect();
        Value::from(parts.join(","))
    };
    let selector = object
        .pointer("/spec/selector")
        .and_then(|selector| LabelSelector::from_object(selector).ok())
        .map(|selector| selector.to_string())
        .filter(|text| !text.is_empty());
    [
        join("/name"),
        join("/image"),
        Value::from(selector.unwrap_or_else(|| "<none>".to_string())),
    ]
}
