//! PodDisruptionBudget.

use serde_json::Value;

use super::{
    PLAIN,
    workload::{self, count},
};
use crate::{
    ObjectExt,
    field::{Errors, Path},
    registry::{self, Kind, Subresource},
    selector::label,
    table::{self, Column},
};

/// `policy/v1` PodDisruptionBudget.
pub static POD_DISRUPTION_BUDGETS: Kind = Kind {
    group: "policy",
    kind: "PodDisruptionBudget",
    plural: "poddisruptionbudgets",
    singular: "poddisruptionbudget",
    short_names: &["pdb"],
    subresources: &[Subresource::Status],
    schema: "policy.PodDisruptionBudget",
    storage: "poddisruptionbudgets",
    strategy: &Strategy,
    ..PLAIN
};

struct Strategy;

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("Min Available", "Pods that must stay."),
    table::column("Max Unavailable", "Pods that may be missing."),
    table::number("Allowed Disruptions", "Pods that may be evicted now."),
    table::AGE,
];

impl registry::Strategy for Strategy {
    fn validate(&self, object: &Value, errors: &mut Errors) {
        let path = Path::new("spec");
        let spec = object.get("spec").unwrap_or(&Value::Null);
        if spec.get("minAvailable").is_some() && spec.get("maxUnavailable").is_some() {
            errors.invalid(
                &path,
                spec.clone(),
                "minAvailable and maxUnavailable cannot be both set",
            );
        }
        for field in ["minAvailable", "maxUnavailable"] {
            workload::amount(spec, field, &path, errors);
            workload::check_at_most_all(spec, field, &path, errors);
        }
        label::validate_object(spec.get("selector"), &path.child("selector"), errors);
        let policy = spec.str_at("/unhealthyPodEvictionPolicy");
        if !policy.is_empty() {
            errors.check_supported(
                &path.child("unhealthyPodEvictionPolicy"),
                policy,
                &["AlwaysAllow", "IfHealthyBudget"],
            );
        }
    }

    fn validate_status_update(&self, new: &Value, _old: &Value, errors: &mut Errors) {
        workload::validate_counts(
            new,
            "status",
            &[
                "disruptionsAllowed",
                "currentHealthy",
                "desiredHealthy",
                "expectedPods",
            ],
            errors,
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
        let amount = |field: &str| match object.pointer(&format!("/spec/{field}")) {
            Some(Value::String(text)) => Value::from(text.as_str()),
            Some(number) => Value::from(number.to_string()),
            None => Value::from("N/A"),
        };
        vec![
            Value::from(object.name()),
            amount("minAvailable"),
            amount("maxUnavailable"),
            count(object, "/status/disruptionsAllowed"),
            table::age_cell(object, now),
        ]
    }
}
