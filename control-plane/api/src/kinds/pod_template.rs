//! PodTemplate.

use serde_json::Value;

use super::{PLAIN, pod, workload};
use crate::{
    ObjectExt,
    field::{Errors, Path},
    registry::{self, Kind},
    table::{self, Column},
};

/// `v1` PodTemplate.
pub static POD_TEMPLATES: Kind = Kind {
    kind: "PodTemplate",
    plural: "podtemplates",
    singular: "podtemplate",
    schema: "core.PodTemplate",
    storage: "podtemplates",
    strategy: &Strategy,
    ..PLAIN
};

struct Strategy;

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("Containers", "Names of the containers."),
    table::column("Images", "Images of the containers."),
    table::column("Pod Labels", "Labels of the pods."),
];

impl registry::Strategy for Strategy {
    fn apply_defaults(&self, object: &mut Value) {
        pod::default_pod_template(object.map_mut(&["template"]));
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let template = object.get("template").unwrap_or(&Value::Null);
        workload::validate_pod_template(template, &Path::new("template"), errors);
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        let generation = old.int_at("/metadata/generation").unwrap_or(0);
        let next = generation + i64::from(new.get("template") != old.get("template"));
        new.set_at(&["metadata", "generation"], Value::from(next));
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, _now: jiff::Timestamp) -> Vec<Value> {
        let spec = object.pointer("/template/spec").unwrap_or(&Value::Null);
        let [containers, images] = workload::container_cells(spec);
        vec![
            Value::from(object.name()),
            containers,
            images,
            workload::labels_cell(object.map_at("/template/metadata/labels")),
        ]
    }
}
