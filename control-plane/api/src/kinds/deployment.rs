//! Deployment.

use serde_json::Value;

use super::{
    pod, replica_set,
    workload::{self, CONTAINERS, IMAGES, SELECTOR, count},
};
use crate::{
    ObjectExt,
    field::{Errors, Path},
    object::{default_text, default_to},
    registry,
    table::{self, Column},
};

pub(super) struct Strategy;

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("Ready", "Ready pods of those wanted."),
    table::number("Up-to-date", "Pods of the newest template."),
    table::number("Available", "Pods ready for long enough."),
    table::AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

impl registry::Strategy for Strategy {
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

    fn validate(&self, object: &Value, errors: &mut Errors) {
        workload::validate_counts(object, "spec", &["replicas", "minReadySeconds"], errors);
        workload::validate_selected_template(object, &replica_set::TEMPLATE_RULES, errors);
        validate_rollout(object, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Errors) {
        workload::validate_selector_unchanged(new, old, errors);
    }

    fn validate_status_update(&self, new: &Value, old: &Value, errors: &mut Errors) {
        workload::validate_counts(
            new,
            "status",
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
        workload::validate_collisions(new, old, errors);
    }

    fn has_status(&self) -> bool {
        true
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
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
        row.extend(workload::template_cells(object));
        row
    }
}

fn validate_rollout(object: &Value, errors: &mut Errors) {
    let spec = Path::new("spec");
    workload::validate_counts(object, "spec", &["revisionHistoryLimit"], errors);
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
        "RollingUpdate" => validate_rolling(
            rolling.unwrap_or(&Value::Null),
            &path.child("rollingUpdate"),
            errors,
        ),
        other => errors.not_supported(&path.child("type"), other, &["Recreate", "RollingUpdate"]),
    }
}

fn validate_rolling(rolling: &Value, path: &Path, errors: &mut Errors) {
    let surge = workload::amount(rolling, "maxSurge", path, errors);
    let unavailable = workload::amount(rolling, "maxUnavailable", path, errors);
    workload::check_at_most_all(rolling, "maxUnavailable", path, errors);
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
