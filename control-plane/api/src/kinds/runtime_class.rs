//! RuntimeClass.

use serde_json::Value;

use super::pod;
use crate::{
    ObjectExt,
    field::{Errors, Path},
    names, registry,
    table::{self, Column},
};

pub(super) struct Strategy;

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("Handler", "What the node's runtime calls it."),
    table::AGE,
];

impl registry::Strategy for Strategy {
    fn validate(&self, object: &Value, errors: &mut Errors) {
        let handler = object.str_at("/handler");
        for why in names::label(handler) {
            errors.invalid(&Path::new("handler"), handler, why);
        }
        pod::validate_resource_list(
            object.map_at("/overhead/podFixed"),
            &Path::new("overhead.podFixed"),
            errors,
        );
        crate::selector::label::validate_labels(
            object.map_at("/scheduling/nodeSelector"),
            &Path::new("scheduling.nodeSelector"),
            errors,
        );
        pod::validate_tolerations(
            object.list_at("/scheduling/tolerations"),
            &Path::new("scheduling.tolerations"),
            errors,
        );
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Errors) {
        errors.check_immutable(
            &Path::new("handler"),
            new.get("handler"),
            old.get("handler"),
        );
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        vec![
            Value::from(object.name()),
            Value::from(object.str_at("/handler")),
            table::age_cell(object, now),
        ]
    }
}
