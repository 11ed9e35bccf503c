//! How pods of one kind are spread over the cluster.

use std::collections::HashMap;

use serde_json::Value;

use super::affinity::validate_label_keys;
use crate::{
    ObjectExt,
    field::{Errors, Path},
    selector::label,
};

const NOT_POSITIVE: &str = "must be greater than zero";

pub(super) fn validate_spread(spec: &Value, path: &Path, errors: &mut Errors) {
    let all = spec.list_at("/topologySpreadConstraints");
    let pairs: Vec<(&str, &str)> = all
        .iter()
        .map(|one| (one.str_at("/topologyKey"), one.str_at("/whenUnsatisfiable")))
        .collect();
    let mut left: HashMap<(&str, &str), usize> = HashMap::new();
    for pair in &pairs {
        *left.entry(*pair).or_default() += 1;
    }
    for (index, constraint) in all.iter().enumerate() {
        let path = path.index(index);
        let skew = constraint.int_at("/maxSkew").unwrap_or(0);
        if skew <= 0 {
            errors.invalid(&path.child("maxSkew"), skew, NOT_POSITIVE);
        }
        let pair @ (topology, action) = pairs[index];
        if topology.is_empty() {
            errors.required(&path.child("topologyKey"), "can not be empty");
        }
        errors.check_supported(
            &path.child("whenUnsatisfiable"),
            action,
            &["DoNotSchedule", "ScheduleAnyway"],
        );
        let later = left.entry(pair).or_default();
        *later -= 1;
        if *later > 0 {
            errors.duplicate(
                &path.child("{topologyKey, whenUnsatisfiable}"),
                format!("{{{topology}, {action}}}"),
            );
        }
        validate_domains(constraint, action, &path.child("minDomains"), errors);
        for policy in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            if let Some(value) = constraint.get(policy).and_then(Value::as_str) {
                errors.check_supported(&path.child(policy), value, &["Honor", "Ignore"]);
            }
        }
        let keys: Vec<&str> = constraint
            .list_at("/matchLabelKeys")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        validate_label_keys(constraint, &keys, &path.child("matchLabelKeys"), errors);
        label::validate_object(
            constraint.get("labelSelector"),
            &path.child("labelSelector"),
            errors,
        );
    }
}

fn validate_domains(constraint: &Value, action: &str, path: &Path, errors: &mut Errors) {
    let Some(domains) = constraint.int_at("/minDomains") else {
        return;
    };
    if domains <= 0 {
        errors.invalid(path, domains, NOT_POSITIVE);
    }
    if action != "DoNotSchedule" {
        errors.invalid(
            path,
            domains,
            format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}"),
        );
    }
}
