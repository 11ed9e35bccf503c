//! IPAddress: a cluster address that is taken.

use serde_json::Value;

use super::PLAIN;
use crate::{
    ObjectExt,
    field::{Errors, Path},
    names::NameRule,
    registry::{self, Kind},
    table::{self, Column},
};

/// `networking.k8s.io/v1` IPAddress.
pub static IP_ADDRESSES: Kind = Kind {
    group: "networking.k8s.io",
    kind: "IPAddress",
    plural: "ipaddresses",
    singular: "ipaddress",
    short_names: &["ip"],
    namespaced: false,
    schema: "networking.IPAddress",
    storage: "ipaddresses",
    strategy: &Strategy,
    ..PLAIN
};

struct Strategy;

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("ParentRef", "Who has the address."),
    table::AGE,
];

impl registry::Strategy for Strategy {
    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let name = object.name();
        let canonical = name
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.to_string() == name);
        if !canonical {
            errors.invalid(
                &Path::new("metadata.name"),
                name,
                "must be a valid IP address in canonical form, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            );
        }
        let path = Path::new("spec.parentRef");
        if object.pointer("/spec/parentRef").is_none() {
            return errors.required(&path, "");
        }
        for field in ["resource", "name"] {
            if object
                .str_at(&format!("/spec/parentRef/{field}"))
                .is_empty()
            {
                errors.required(&path.child(field), "");
            }
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Errors) {
        errors.check_immutable(
            &Path::new("spec.parentRef"),
            new.pointer("/spec/parentRef"),
            old.pointer("/spec/parentRef"),
        );
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let parts: Vec<&str> = ["group", "resource", "namespace", "name"]
            .into_iter()
            .map(|field| object.pointer(&format!("/spec/parentRef/{field}")))
            .filter_map(|value| value?.as_str())
            .filter(|part| !part.is_empty())
            .collect();
        vec![
            Value::from(object.name()),
            Value::from(parts.join("/")),
            table::age_cell(object, now),
        ]
    }
}
