//! ComponentStatus: how a part of the control plane is. Deprecated in Kubernetes since 1.19.

use serde_json::Value;

use super::PLAIN;
use crate::{
    ObjectExt,
    registry::{self, Keeping, Kind},
    table::{self, Column},
};

/// `v1` ComponentStatus.
pub static COMPONENT_STATUSES: Kind = Kind {
    kind: "ComponentStatus",
    plural: "componentstatuses",
    singular: "componentstatus",
    short_names: &["cs"],
    namespaced: false,
    schema: "core.ComponentStatus",
    storage: "componentstatuses",
    keeping: Keeping::Computed,
    deprecated: Some("v1 ComponentStatus is deprecated in v1.19+"),
    strategy: &Strategy,
    ..PLAIN
};

struct Strategy;

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("Status", "Healthy, Unhealthy or Unknown."),
    table::column("Message", "What it says about itself."),
    table::column("Error", "Why it could not be asked."),
];

impl registry::Strategy for Strategy {
    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, _now: jiff::Timestamp) -> Vec<Value> {
        let healthy = object
            .list_at("/conditions")
            .iter()
            .find(|condition| condition.str_at("/type") == "Healthy");
        let word = match healthy.map(|condition| condition.str_at("/status")) {
            Some("True") => "Healthy",
            Some("False") => "Unhealthy",
            _ => "Unknown",
        };
        let text = |pointer: &str| Value::from(healthy.map_or("", |one| one.str_at(pointer)));
        vec![
            Value::from(object.name()),
            Value::from(word),
            text("/message"),
            text("/error"),
        ]
    }
}
