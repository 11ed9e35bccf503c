//! ReplicationController: what ReplicaSets grew out of.

use serde_json::{Value, json};

use super::{
    PLAIN, pod,
    workload::{self, CONTAINERS, IMAGES, SELECTOR, count},
};
use crate::{
    ObjectExt,
    field::{Errors, Path},
    object::default_to,
    registry::{self, Kind, Subresource},
    selector::label,
    table::{self, Column},
};

/// `v1` ReplicationController.
pub static REPLICATION_CONTROLLERS: Kind = Kind {
    kind: "ReplicationController",
    plural: "replicationcontrollers",
    singular: "replicationcontroller",
    short_names: &["rc"],
    categories: &["all"],
    subresources: &[Subresource::Scale, Subresource::Status],
    schema: "core.ReplicationController",
    storage: "controllers",
    strategy: &Strategy,
    ..PLAIN
};

struct Strategy;

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
        let labels = object.pointer("/spec/template/metadata/labels").cloned();
        if let Some(labels) = labels {
            let empty = |map: Option<&serde_json::Map<String, Value>>| {
                map.is_none_or(serde_json::Map::is_empty)
            };
            if empty(object.map_at("/spec/selector")) {
                object.set_at(&["spec", "selector"], labels.clone());
            }
            if empty(object.labels()) {
                object.set_at(&["metadata", "labels"], labels);
            }
        }
        pod::default_template(object);
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        workload::validate_counts(object, "spec", &["replicas", "minReadySeconds"], errors);
        let spec = Path::new("spec");
        let path = spec.child("template");
        let selector = object.map_at("/spec/selector");
        label::validate_labels(selector, &spec.child("selector"), errors);
        if selector.is_none_or(serde_json::Map::is_empty) {
            errors.required(&spec.child("selector"), "");
        }
        let Some(template) = object.pointer("/spec/template") else {
            return errors.required(&path, "");
        };
        let fits = selector.into_iter().flatten().all(|(key, value)| {
            template.labels().and_then(|labels| labels.get(key)) == Some(value)
        });
        if !fits {
            workload::selector_mismatch(template, &path, errors);
        }
        workload::validate_pod_template(template, &path, errors);
        workload::validate_always_running(template, &path, "ReplicationController", errors);
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
        let spec = object
            .pointer("/spec/template/spec")
            .cloned()
            .unwrap_or(json!({}));
        let [containers, images] = workload::container_cells(&spec);
        vec![
            Value::from(object.name()),
            count(object, "/spec/replicas"),
            count(object, "/status/replicas"),
            count(object, "/status/readyReplicas"),
            table::age_cell(object, now),
            containers,
            images,
            workload::labels_cell(object.map_at("/spec/selector")),
        ]
    }
}
