//! VolumeAttributesClass.

use serde_json::Value;

use super::PLAIN;
use crate::{
    ObjectExt,
    field::{Errors, Path},
    names,
    registry::{self, Kind},
    table::{self, Column},
};

/// `storage.k8s.io/v1` VolumeAttributesClass.
pub static VOLUME_ATTRIBUTES_CLASSES: Kind = Kind {
    group: "storage.k8s.io",
    kind: "VolumeAttributesClass",
    plural: "volumeattributesclasses",
    singular: "volumeattributesclass",
    short_names: &["vac"],
    namespaced: false,
    schema: "storage.VolumeAttributesClass",
    storage: "volumeattributesclasses",
    strategy: &Strategy,
    ..PLAIN
};

struct Strategy;

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("DriverName", "The driver that knows the attributes."),
    table::AGE,
];

impl registry::Strategy for Strategy {
    fn validate(&self, object: &Value, errors: &mut Errors) {
        let path = Path::new("driverName");
        let driver = object.str_at("/driverName");
        if driver.is_empty() {
            errors.required(&path, "");
        } else {
            for why in names::subdomain(&driver.to_lowercase()) {
                errors.invalid(&path, driver, why);
            }
        }
        let parameters = object.map_at("/parameters");
        if parameters.is_none_or(serde_json::Map::is_empty) {
            errors.required(
                &Path::new("parameters"),
                "must contain at least one key/value pair",
            );
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Errors) {
        for field in ["driverName", "parameters"] {
            if new.get(field) != old.get(field) {
                errors.forbidden(
                    &Path::new(field),
                    format!("updates to {field} are forbidden."),
                );
            }
        }
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        vec![
            Value::from(object.name()),
            Value::from(object.str_at("/driverName")),
            table::age_cell(object, now),
        ]
    }
}
