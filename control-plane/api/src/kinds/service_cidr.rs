//! ServiceCIDR: a range of cluster addresses.

use serde_json::Value;

use super::PLAIN;
use crate::{
    ObjectExt,
    field::{Errors, Path},
    names,
    registry::{self, Kind, Subresource},
    table::{self, Column},
};

/// `networking.k8s.io/v1` ServiceCIDR.
pub static SERVICE_CIDRS: Kind = Kind {
    group: "networking.k8s.io",
    kind: "ServiceCIDR",
    plural: "servicecidrs",
    singular: "servicecidr",
    namespaced: false,
    subresources: &[Subresource::Status],
    schema: "networking.ServiceCIDR",
    storage: "servicecidrs",
    strategy: &Strategy,
    ..PLAIN
};

struct Strategy;

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("CIDRs", "The ranges."),
    table::AGE,
];

impl registry::Strategy for Strategy {
    fn validate(&self, object: &Value, errors: &mut Errors) {
        let path = Path::new("spec.cidrs");
        let ranges = object.list_at("/spec/cidrs");
        if ranges.is_empty() {
            errors.required(&path, "at least one CIDR required");
        } else if ranges.len() > 2 {
            errors.invalid(&path, ranges.to_vec(), "may only hold up to 2 values");
        }
        for (index, range) in ranges.iter().enumerate() {
            let text = range.as_str().unwrap_or("");
            if !names::is_cidr(text) {
                errors.invalid(
                    &path.index(index),
                    text,
                    "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
                );
            }
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Errors) {
        errors.check_immutable(
            &Path::new("spec.cidrs"),
            new.pointer("/spec/cidrs"),
            old.pointer("/spec/cidrs"),
        );
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
        let ranges: Vec<&str> = object
            .list_at("/spec/cidrs")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        vec![
            Value::from(object.name()),
            Value::from(ranges.join(",")),
            table::age_cell(object, now),
        ]
    }
}
