//! DaemonSet.

use serde_json::Value;

use super::{
    PLAIN, pod,
    workload::{self, CONTAINERS, IMAGES, SELECTOR, TemplateRules, count},
};
use crate::{
    ObjectExt,
    field::{Errors, Path},
    object::{default_text, default_to},
    registry::{self, Kind, Subresource},
    table::{self, Column},
};

/// `apps/v1` DaemonSet.
pub static DAEMON_SETS: Kind = Kind {
    group: "apps",
    kind: "DaemonSet",
    plural: "daemonsets",
    singular: "daemonset",
    short_names: &["ds"],
    categories: &["all"],
    subresources: &[Subresource::Status],
    schema: "apps.DaemonSet",
    storage: "daemonsets",
    strategy: &Strategy,
    ..PLAIN
};

struct Strategy;

const TEMPLATE_RULES: TemplateRules = TemplateRules {
    kind: "DaemonSet",
    empty_selector: "empty selector is invalid for daemonset",
};

const COLUMNS: &[Column] = &[
    table::NAME,
    table::number("Desired", "Nodes that should run the pod."),
    table::number("Current", "Nodes that run it."),
    table::number("Ready", "Nodes where it is ready."),
    table::number("Up-to-date", "Nodes with the newest template."),
    table::number("Available", "Nodes where it is ready for long enough."),
    table::column("Node Selector", "Which nodes run the pod."),
    table::AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

impl registry::Strategy for Strategy {
    fn apply_defaults(&self, object: &mut Value) {
        default_to(object.map_mut(&["spec"]), "revisionHistoryLimit", 10);
        let strategy = object.map_mut(&["spec", "updateStrategy"]);
        default_text(strategy, "type", "RollingUpdate");
        if object.str_at("/spec/updateStrategy/type") == "RollingUpdate" {
            let rolling = object.map_mut(&["spec", "updateStrategy", "rollingUpdate"]);
            default_to(rolling, "maxUnavailable", 1);
            default_to(rolling, "maxSurge", 0);
        }
        pod::default_template(object);
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        workload::validate_counts(
            object,
            "spec",
            &["minReadySeconds", "revisionHistoryLimit"],
            errors,
        );
        workload::validate_selected_template(object, &TEMPLATE_RULES, errors);
        validate_update_strategy(object, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Errors) {
        workload::validate_selector_unchanged(new, old, errors);
    }

    fn validate_status_update(&self, new: &Value, old: &Value, errors: &mut Errors) {
        workload::validate_counts(
            new,
            "status",
            &[
                "currentNumberScheduled",
                "numberMisscheduled",
                "desiredNumberScheduled",
                "numberReady",
                "observedGeneration",
                "updatedNumberScheduled",
                "numberAvailable",
                "numberUnavailable",
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
        let mut row = vec![
            Value::from(object.name()),
            count(object, "/status/desiredNumberScheduled"),
            count(object, "/status/currentNumberScheduled"),
            count(object, "/status/numberReady"),
            count(object, "/status/updatedNumberScheduled"),
            count(object, "/status/numberAvailable"),
            workload::labels_cell(object.map_at("/spec/template/spec/nodeSelector")),
            table::age_cell(object, now),
        ];
        row.extend(workload::template_cells(object));
        row
    }
}

fn validate_update_strategy(object: &Value, errors: &mut Errors) {
    let path = Path::new("spec.updateStrategy");
    match object.str_at("/spec/updateStrategy/type") {
        "OnDelete" => {}
        "RollingUpdate" => {
            let path = path.child("rollingUpdate");
            let Some(rolling) = object.pointer("/spec/updateStrategy/rollingUpdate") else {
                return errors.required(&path, "");
            };
            let unavailable = workload::amount(rolling, "maxUnavailable", &path, errors);
            let surge = workload::amount(rolling, "maxSurge", &path, errors);
            for field in ["maxUnavailable", "maxSurge"] {
                workload::check_at_most_all(rolling, field, &path, errors);
            }
            let given = |field| rolling.get(field).cloned().unwrap_or(Value::Null);
            match (unavailable.unwrap_or(0) > 0, surge.unwrap_or(0) > 0) {
                (true, true) => errors.invalid(
                    &path.child("maxSurge"),
                    given("maxSurge"),
                    "may not be set when maxUnavailable is non-zero",
                ),
                (false, false) => {
                    errors.required(
                        &path.child("maxUnavailable"),
                        "cannot be 0 when maxSurge is 0",
                    );
                }
                _ => {}
            }
        }
        other => errors.not_supported(&path.child("type"), other, &["OnDelete", "RollingUpdate"]),
    }
}
