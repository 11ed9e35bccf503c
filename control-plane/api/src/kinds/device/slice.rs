//! ResourceSlice: devices that a driver has somewhere.

use serde_json::Value;

use super::check_driver;
use crate::{
    ObjectExt,
    field::{Errors, Path},
    kinds::PLAIN,
    names,
    registry::{self, Kind},
    table::{self, Column},
};

/// `resource.k8s.io/v1` ResourceSlice.
pub static RESOURCE_SLICES: Kind = Kind {
    group: "resource.k8s.io",
    kind: "ResourceSlice",
    plural: "resourceslices",
    singular: "resourceslice",
    namespaced: false,
    schema: "resource.ResourceSlice",
    storage: "resourceslices",
    strategy: &Strategy,
    ..PLAIN
};

struct Strategy;

const MAX_DEVICES: usize = 128;
/// Ways to say where the devices are.
const PLACES: [&str; 4] = [
    "allNodes",
    "nodeName",
    "nodeSelector",
    "perDeviceNodeSelection",
];

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("Node", "The node that has the devices."),
    table::column("Driver", "Whose devices they are."),
    table::column("Pool", "The pool that they are part of."),
    table::AGE,
];

impl registry::Strategy for Strategy {
    fn validate(&self, object: &Value, errors: &mut Errors) {
        let path = Path::new("spec");
        let spec = object.get("spec").unwrap_or(&Value::Null);
        check_driver(spec.str_at("/driver"), &path.child("driver"), errors);
        let pool = path.child("pool");
        if spec.str_at("/pool/name").is_empty() {
            errors.required(&pool.child("name"), "");
        }
        errors.check_non_negative(&pool.child("generation"), spec.int_at("/pool/generation"));
        if spec.int_at("/pool/resourceSliceCount").unwrap_or(0) <= 0 {
            errors.invalid(
                &pool.child("resourceSliceCount"),
                spec.int_at("/pool/resourceSliceCount").unwrap_or(0),
                "must be greater than zero",
            );
        }
        let given = PLACES
            .iter()
            .filter(|place| match spec.get(**place) {
                None | Some(Value::Bool(false)) => false,
                Some(Value::String(text)) => !text.is_empty(),
                Some(_) => true,
            })
            .count();
        let words = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
        match given {
            0 if spec.list_at("/sharedCounters").is_empty() => errors.required(&path, words),
            0 | 1 => {}
            _ => errors.invalid(
                &path,
                spec.clone(),
                format!("{words}, but multiple fields are set"),
            ),
        }
        let devices = spec.list_at("/devices");
        let list = path.child("devices");
        if devices.len() > MAX_DEVICES {
            errors.too_many(&list, devices.len(), MAX_DEVICES);
        }
        let mut seen: Vec<&str> = Vec::new();
        for (index, device) in devices.iter().enumerate() {
            let path = list.index(index).child("name");
            let name = device.str_at("/name");
            for why in names::label(name) {
                errors.invalid(&path, name, why);
            }
            if seen.contains(&name) {
                errors.duplicate(&path, name);
            }
            seen.push(name);
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Errors) {
        for field in ["driver", "pool/name", "nodeName"] {
            let pointer = format!("/spec/{field}");
            errors.check_immutable(
                &Path::new("spec").child(&field.replace('/', ".")),
                new.pointer(&pointer),
                old.pointer(&pointer),
            );
        }
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["spec.driver", "spec.nodeName"]
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        vec![
            Value::from(object.name()),
            table::text_or(object.str_at("/spec/nodeName"), "<unset>"),
            Value::from(object.str_at("/spec/driver")),
            Value::from(object.str_at("/spec/pool/name")),
            table::age_cell(object, now),
        ]
    }
}
