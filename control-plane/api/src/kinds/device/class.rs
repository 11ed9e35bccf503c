//! DeviceClass.

use serde_json::Value;

use super::{validate_config, validate_selectors};
use crate::{
    ObjectExt,
    field::{Errors, Path},
    kinds::PLAIN,
    registry::{self, Kind},
    table::{self, Column},
};

/// `resource.k8s.io/v1` DeviceClass.
pub static DEVICE_CLASSES: Kind = Kind {
    group: "resource.k8s.io",
    kind: "DeviceClass",
    plural: "deviceclasses",
    singular: "deviceclass",
    namespaced: false,
    schema: "resource.DeviceClass",
    storage: "deviceclasses",
    strategy: &Strategy,
    ..PLAIN
};

struct Strategy;

const COLUMNS: &[Column] = &[table::NAME, table::AGE];

impl registry::Strategy for Strategy {
    fn validate(&self, object: &Value, errors: &mut Errors) {
        let spec = Path::new("spec");
        let selectors = object.list_at("/spec/selectors");
        validate_selectors(selectors, &spec.child("selectors"), errors);
        validate_config(
            object.list_at("/spec/config"),
            &spec.child("config"),
            errors,
        );
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }
}
