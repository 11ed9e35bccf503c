//! Where a pod wants to run: beside which nodes and which other pods.

use std::collections::HashSet;

use serde_json::Value;

use crate::{
    ObjectExt,
    field::{Errors, Path},
    names,
    selector::label,
};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

pub(super) fn validate_affinity(spec: &Value, path: &Path, errors: &mut Errors) {
    if let Some(nodes) = spec.pointer("/affinity/nodeAffinity") {
        let path = path.child("nodeAffinity");
        if let Some(required) = nodes.get(REQUIRED) {
            validate_node_selector(required, &path.child(REQUIRED), errors);
        }
        for (index, term) in nodes.list_at(&format!("/{PREFERRED}")).iter().enumerate() {
            let path = path.child(PREFERRED).index(index);
            validate_weight(term, &path, errors);
            let preference = term.get("preference").unwrap_or(&Value::Null);
            validate_node_term(preference, false, &path.child("preference"), errors);
        }
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(pods) = spec.pointer(&format!("/affinity/{kind}")) else {
            continue;
        };
        let path = path.child(kind);
        for (index, term) in pods.list_at(&format!("/{REQUIRED}")).iter().enumerate() {
            validate_pod_term(term, &path.child(REQUIRED).index(index), errors);
        }
        for (index, weighted) in pods.list_at(&format!("/{PREFERRED}")).iter().enumerate() {
            let path = path.child(PREFERRED).index(index);
            validate_weight(weighted, &path, errors);
            let term = weighted.get("podAffinityTerm").unwrap_or(&Value::Null);
            validate_pod_term(term, &path.child("podAffinityTerm"), errors);
        }
    }
}

fn validate_weight(term: &Value, path: &Path, errors: &mut Errors) {
    let weight = term.int_at("/weight").unwrap_or(0);
    if !(1..=100).contains(&weight) {
        errors.invalid(&path.child("weight"), weight, "must be in the range 1-100");
    }
}

/// Checks a `NodeSelector`.
pub(crate) fn validate_node_selector(selector: &Value, path: &Path, errors: &mut Errors) {
    let path = path.child("nodeSelectorTerms");
    let terms = selector.list_at("/nodeSelectorTerms");
    if terms.is_empty() {
        errors.required(&path, "must have at least one node selector term");
    }
    for (index, term) in terms.iter().enumerate() {
        validate_node_term(term, true, &path.index(index), errors);
    }
}

/// `exact`: values have to be such as a label can have.
fn validate_node_term(term: &Value, exact: bool, path: &Path, errors: &mut Errors) {
    for (index, rule) in term.list_at("/matchExpressions").iter().enumerate() {
        let path = path.child("matchExpressions").index(index);
        validate_expression(rule, &path, errors);
        for (at, value) in rule.list_at("/values").iter().enumerate() {
            let value = value.as_str().unwrap_or("");
            for why in names::label_value(value).into_iter().filter(|_| exact) {
                errors.invalid(&path.child("values").index(at), value, why);
            }
        }
    }
    for (index, rule) in term.list_at("/matchFields").iter().enumerate() {
        validate_field(rule, &path.child("matchFields").index(index), errors);
    }
}

fn validate_expression(rule: &Value, path: &Path, errors: &mut Errors) {
    let count = rule.list_at("/values").len();
    let values = path.child("values");
    match rule.str_at("/operator") {
        "In" | "NotIn" if count == 0 => errors.required(
            &values,
            "must be specified when `operator` is 'In' or 'NotIn'",
        ),
        "Exists" | "DoesNotExist" if count > 0 => errors.forbidden(
            &values,
            "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
        ),
        "Gt" | "Lt" if count != 1 => errors.required(
            &values,
            "must be specified single value when `operator` is 'Lt' or 'Gt'",
        ),
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => errors.invalid(&path.child("operator"), other, NOT_AN_OPERATOR),
    }
    let key = rule.str_at("/key");
    for why in names::qualified_name(key) {
        errors.invalid(&path.child("key"), key, why);
    }
}

const NOT_AN_OPERATOR: &str = "not a valid selector operator";

/// Of a node's fields there is one to select by: its name.
fn validate_field(rule: &Value, path: &Path, errors: &mut Errors) {
    let values = rule.list_at("/values");
    match rule.str_at("/operator") {
        "In" | "NotIn" if values.len() != 1 => errors.required(
            &path.child("values"),
            "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
        ),
        "In" | "NotIn" => {}
        other => errors.invalid(&path.child("operator"), other, NOT_AN_OPERATOR),
    }
    let key = rule.str_at("/key");
    if key != "metadata.name" {
        errors.invalid(&path.child("key"), key, "not a valid field selector key");
        return;
    }
    for (index, value) in values.iter().enumerate() {
        let value = value.as_str().unwrap_or("");
        for why in names::subdomain(value) {
            errors.invalid(&path.child("values").index(index), value, why);
        }
    }
}

fn validate_pod_term(term: &Value, path: &Path, errors: &mut Errors) {
    for selector in ["labelSelector", "namespaceSelector"] {
        label::validate_object(term.get(selector), &path.child(selector), errors);
    }
    for name in term.list_at("/namespaces") {
        let name = name.as_str().unwrap_or("");
        for why in names::label(name) {
            errors.invalid(&path.child("namespace"), name, why);
        }
    }
    let keys = |field: &str| -> Vec<&str> {
        let list = term.list_at(&format!("/{field}"));
        list.iter().filter_map(Value::as_str).collect()
    };
    let mismatched = keys("mismatchLabelKeys");
    let excluded: HashSet<&str> = mismatched.iter().copied().collect();
    for (field, keys) in [
        ("matchLabelKeys", keys("matchLabelKeys")),
        ("mismatchLabelKeys", mismatched),
    ] {
        validate_label_keys(term, &keys, &path.child(field), errors);
        for (index, key) in keys.iter().enumerate() {
            if field == "matchLabelKeys" && excluded.contains(key) {
                let why = "exists in both matchLabelKeys and mismatchLabelKeys";
                errors.invalid(&path.child(field).index(index), *key, why);
            }
        }
    }
    let topology = term.str_at("/topologyKey");
    if topology.is_empty() {
        errors.required(&path.child("topologyKey"), "can not be empty");
    }
    for why in names::qualified_name(topology) {
        errors.invalid(&path.child("topologyKey"), topology, why);
    }
}

/// Keys whose values come from the pod itself: they have to be keys of labels that the selector
/// beside them does not name.
pub(super) fn validate_label_keys(term: &Value, keys: &[&str], path: &Path, errors: &mut Errors) {
    if keys.is_empty() {
        return;
    }
    if term.get("labelSelector").is_none() {
        errors.forbidden(path, "must not be specified when labelSelector is not set");
    }
    let labels = term.map_at("/labelSelector/matchLabels");
    let expressions: HashSet<&str> = term
        .list_at("/labelSelector/matchExpressions")
        .iter()
        .map(|rule| rule.str_at("/key"))
        .collect();
    for (index, key) in keys.iter().enumerate() {
        for why in names::qualified_name(key) {
            errors.invalid(&path.index(index), *key, why);
        }
        let named =
            labels.is_some_and(|labels| labels.contains_key(*key)) || expressions.contains(key);
        if named {
            let why = "exists in both matchLabelKeys and labelSelector";
            errors.invalid(&path.index(index), *key, why);
        }
    }
}
