//! ReplicaSet.

use serde_json::Value;

use super::{
    pod,
    workload::{self, CONTAINERS, IMAGES, SELECTOR, TemplateRules, count},
};
use crate::{
    ObjectExt,
    field::Errors,
    object::default_to,
    registry,
    table::{self, Column},
};

pub(super) struct Strategy;

/// ReplicaSets were once a part of deployments; the words stayed.
pub(super) const TEMPLATE_RULES: TemplateRules = TemplateRules {
    kind: "ReplicaSet",
    empty_selector: "empty selector is invalid for deployment",
};

const COLUMNS: &[Column] = &[
    table::NAME,
    table::number("Desired", "Pods wanted."),
    table::number("Current", "Pods that exist."),
    table::number("Ready", "Pods that are ready."),
    table::AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

impl registry::Strategy for Strategy {
    fn apply_defaults(&self, object: &mut Value) {
        default_to(object.map_mut(&["spec"]), "replicas", 1);
        pod::default_template(object);
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        workload::validate_counts(object, "spec", &["replicas", "minReadySeconds"], errors);
        workload::validate_selected_template(object, &TEMPLATE_RULES, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Errors) {
        workload::validate_selector_unchanged(new, old, errors);
    }

    fn validate_status_update(&self, new: &Value, _old: &Value, errors: &mut Errors) {
        workload::validate_counts(
            new,
            "status",
            &[
                "replicas",
                "fullyLabeledReplicas",
                "readyReplicas",
                "availableReplicas",
                "observedGeneration",
            ],
            errors,
        );
    }

    fn has_status(&self) -> bool {
        true
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["status.replicas"]
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let mut row = vec![
            Value::from(object.name()),
            count(object, "/spec/replicas"),
            count(object, "/status/replicas"),
            count(object, "/status/readyReplicas"),
            table::age_cell(object, now),
        ];
        row.extend(workload::template_cells(object));
        row
    }
}
