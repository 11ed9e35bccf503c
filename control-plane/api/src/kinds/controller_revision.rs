//! ControllerRevision.

use serde_json::Value;

use super::PLAIN;
use crate::{
    ObjectExt,
    field::{Errors, Path},
    object::controller_of,
    registry::{self, Kind},
    table::{self, Column},
};

/// `apps/v1` ControllerRevision.
pub static CONTROLLER_REVISIONS: Kind = Kind {
    group: "apps",
    kind: "ControllerRevision",
    plural: "controllerrevisions",
    singular: "controllerrevision",
    schema: "apps.ControllerRevision",
    storage: "controllerrevisions",
    strategy: &Strategy,
    ..PLAIN
};

struct Strategy;

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("Controller", "Whose revision it is."),
    table::column("Revision", "The number of the revision."),
    table::AGE,
];

impl registry::Strategy for Strategy {
    fn validate(&self, object: &Value, errors: &mut Errors) {
        if object.get("data").is_none_or(Value::is_null) {
            errors.required(&Path::new("data"), "data is mandatory");
        }
        errors.check_non_negative(&Path::new("revision"), object.int_at("/revision"));
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Errors) {
        errors.check_immutable(&Path::new("data"), new.get("data"), old.get("data"));
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let controller = controller_of(object).map_or("<none>".to_string(), |owner| {
            let kind = owner.str_at("/kind").to_lowercase();
            let group = owner.str_at("/apiVersion").split_once('/');
            match group {
                Some((group, _)) => format!("{kind}.{group}/{}", owner.str_at("/name")),
                None => format!("{kind}/{}", owner.str_at("/name")),
            }
        });
        vec![
            Value::from(object.name()),
            Value::from(controller),
            Value::from(object.int_at("/revision").unwrap_or(0)),
            table::age_cell(object, now),
        ]
    }
}
