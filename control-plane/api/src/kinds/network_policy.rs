//! NetworkPolicy.

use serde_json::{Value, json};

use super::{PLAIN, workload};
use crate::{
    ObjectExt,
    field::{Errors, Path},
    names,
    object::default_text,
    registry::{self, Kind},
    selector::label,
    table::{self, Column},
};

/// `networking.k8s.io/v1` NetworkPolicy.
pub static NETWORK_POLICIES: Kind = Kind {
    group: "networking.k8s.io",
    kind: "NetworkPolicy",
    plural: "networkpolicies",
    singular: "networkpolicy",
    short_names: &["netpol"],
    schema: "networking.NetworkPolicy",
    storage: "networkpolicies",
    strategy: &Strategy,
    ..PLAIN
};

struct Strategy;

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("Pod-Selector", "Which pods it is about."),
    table::AGE,
];

impl registry::Strategy for Strategy {
    fn apply_defaults(&self, object: &mut Value) {
        for direction in ["ingress", "egress"] {
            let rules = object.pointer_mut(&format!("/spec/{direction}"));
            for rule in rules.and_then(Value::as_array_mut).into_iter().flatten() {
                let ports = rule.get_mut("ports").and_then(Value::as_array_mut);
                for port in ports.into_iter().flatten().filter_map(Value::as_object_mut) {
                    default_text(port, "protocol", "TCP");
                }
            }
        }
        if object.list_at("/spec/policyTypes").is_empty() {
            // Ingress always, egress where there are rules for it.
            let mut types = vec!["Ingress"];
            if !object.list_at("/spec/egress").is_empty() {
                types.push("Egress");
            }
            object.set_at(&["spec", "policyTypes"], json!(types));
        }
        object.map_mut(&["spec", "podSelector"]);
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let spec = Path::new("spec");
        label::validate_object(
            object.pointer("/spec/podSelector"),
            &spec.child("podSelector"),
            errors,
        );
        for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
            let rules = object.list_at(&format!("/spec/{direction}"));
            for (index, rule) in rules.iter().enumerate() {
                let path = spec.child(direction).index(index);
                for (at, port) in rule.list_at("/ports").iter().enumerate() {
                    validate_port(port, &path.child("ports").index(at), errors);
                }
                for (at, peer) in rule.list_at(&format!("/{peers}")).iter().enumerate() {
                    validate_peer(peer, &path.child(peers).index(at), errors);
                }
            }
        }
        let types = object.list_at("/spec/policyTypes");
        let path = spec.child("policyTypes");
        if types.len() > 2 {
            errors.invalid(
                &path,
                types.to_vec(),
                "may not specify more than two policyTypes",
            );
        }
        for (index, policy_type) in types.iter().enumerate() {
            errors.check_supported(
                &path.index(index),
                policy_type.as_str().unwrap_or(""),
                &["Egress", "Ingress"],
            );
        }
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        vec![
            Value::from(object.name()),
            workload::selector_cell(object.pointer("/spec/podSelector")),
            table::age_cell(object, now),
        ]
    }
}

fn validate_port(port: &Value, path: &Path, errors: &mut Errors) {
    let protocol = port.str_at("/protocol");
    if !protocol.is_empty() {
        errors.check_supported(&path.child("protocol"), protocol, &["SCTP", "TCP", "UDP"]);
    }
    let number = match port.get("port") {
        Some(Value::String(name)) => {
            for why in names::port_name(name) {
                errors.invalid(&path.child("port"), name.as_str(), why);
            }
            if port.get("endPort").is_some() {
                errors.invalid(
                    &path.child("endPort"),
                    port.get("endPort").cloned().unwrap_or(Value::Null),
                    "may not be specified when `port` is non-numeric",
                );
            }
            return;
        }
        Some(number) => number.as_i64(),
        None => None,
    };
    if let Some(number) = number
        && let Some(why) = names::port_number(number)
    {
        errors.invalid(&path.child("port"), number, why);
    }
    if let Some(end) = port.int_at("/endPort") {
        match number {
            None => errors.invalid(
                &path.child("endPort"),
                end,
                "may not be specified when `port` is not specified",
            ),
            Some(number) if end < number => errors.invalid(
                &path.child("endPort"),
                end,
                "must be greater than or equal to `port`",
            ),
            Some(_) => {
                if let Some(why) = names::port_number(end) {
                    errors.invalid(&path.child("endPort"), end, why);
                }
            }
        }
    }
}

fn validate_peer(peer: &Value, path: &Path, errors: &mut Errors) {
    let mut given = 0;
    for field in ["podSelector", "namespaceSelector"] {
        if peer.get(field).is_some() {
            given += 1;
            label::validate_object(peer.get(field), &path.child(field), errors);
        }
    }
    if let Some(block) = peer.get("ipBlock") {
        validate_block(block, &path.child("ipBlock"), errors);
        if given > 0 {
            errors.forbidden(path, "may not specify both ipBlock and another peer");
        }
        given += 1;
    }
    if given == 0 {
        errors.required(path, "must specify a peer");
    }
}

fn validate_block(block: &Value, path: &Path, errors: &mut Errors) {
    const WORDS: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
    let whole = block.str_at("/cidr");
    if whole.is_empty() {
        return errors.required(&path.child("cidr"), "");
    }
    if !names::is_cidr(whole) {
        return errors.invalid(&path.child("cidr"), whole, WORDS);
    }
    for (index, except) in block.list_at("/except").iter().enumerate() {
        let text = except.as_str().unwrap_or("");
        let path = path.child("except").index(index);
        if !names::is_cidr(text) {
            errors.invalid(&path, text, WORDS);
        } else if !names::is_within(text, whole) {
            errors.invalid(
                &path,
                text,
                format!("must be a strict subset of `cidr`: {whole}"),
            );
        }
    }
}
