//! CSINode: the drivers of a node.

use serde_json::Value;

use super::{PLAIN, csi_driver};
use crate::{
    ObjectExt,
    field::{Errors, Path},
    registry::{self, Kind},
    table::{self, Column},
};

/// `storage.k8s.io/v1` CSINode.
pub static CSI_NODES: Kind = Kind {
    group: "storage.k8s.io",
    kind: "CSINode",
    plural: "csinodes",
    singular: "csinode",
    namespaced: false,
    schema: "storage.CSINode",
    storage: "csinodes",
    strategy: &Strategy,
    ..PLAIN
};

struct Strategy;

/// Longest name that a driver may have for a node.
const MAX_NODE_ID: usize = 256;

const COLUMNS: &[Column] = &[
    table::NAME,
    table::number("Drivers", "How many drivers the node has."),
    table::AGE,
];

impl registry::Strategy for Strategy {
    fn validate(&self, object: &Value, errors: &mut Errors) {
        let mut seen = Vec::new();
        for (index, driver) in object.list_at("/spec/drivers").iter().enumerate() {
            let path = Path::new("spec.drivers").index(index);
            let name = driver.str_at("/name");
            csi_driver::check_name(name, &path.child("name"), errors);
            if seen.contains(&name) {
                errors.duplicate(&path.child("name"), name);
            }
            seen.push(name);
            let node = driver.str_at("/nodeID");
            if node.is_empty() {
                errors.required(&path.child("nodeID"), "");
            } else if node.len() > MAX_NODE_ID {
                errors.invalid(
                    &path.child("nodeID"),
                    node,
                    format!("must be {MAX_NODE_ID} characters or less"),
                );
            }
            errors.check_non_negative(
                &path.child("allocatable").child("count"),
                driver.int_at("/allocatable/count"),
            );
            for (at, key) in driver.list_at("/topologyKeys").iter().enumerate() {
                let key = key.as_str().unwrap_or("");
                for why in crate::names::qualified_name(key) {
                    errors.invalid(&path.child("topologyKeys").index(at), key, why);
                }
            }
        }
    }

    fn returns_deleted(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        vec![
            Value::from(object.name()),
            Value::from(object.list_at("/spec/drivers").len()),
            table::age_cell(object, now),
        ]
    }
}
