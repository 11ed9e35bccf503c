//! Node.

use serde_json::Value;

use super::pod;
use crate::{
    ObjectExt,
    field::{Errors, Path},
    registry,
    table::{self, Column},
};

pub(super) struct Strategy;

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("Status", "Ready or not, and whether pods may be scheduled."),
    table::column("Roles", "Roles by label."),
    table::AGE,
    table::column("Version", "The node agent's version."),
    table::wide("Internal-IP", "Address inside the cluster."),
    table::wide("External-IP", "Address outside the cluster."),
    table::wide("OS-Image", "The operating system."),
    table::wide("Kernel-Version", "The kernel."),
    table::wide(
        "Container-Runtime",
        "The container runtime and its version.",
    ),
];

const ROLE_PREFIX: &str = "node-role.kubernetes.io/";

impl registry::Strategy for Strategy {
    fn prepare_update(&self, new: &mut Value, old: &Value) {
        if let Some(status) = old.get("status") {
            let status = status.clone();
            new.set_at(&["status"], status);
        }
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let taints = object.list_at("/spec/taints");
        for (index, taint) in taints.iter().enumerate() {
            let path = Path::new("spec.taints").index(index);
            let key = taint.str_at("/key");
            for why in crate::names::qualified_name(key) {
                errors.invalid(&path.child("key"), key, why);
            }
            let value = taint.str_at("/value");
            for why in crate::names::label_value(value) {
                errors.invalid(&path.child("value"), value, why);
            }
            errors.check_supported(
                &path.child("effect"),
                taint.str_at("/effect"),
                &["NoExecute", "NoSchedule", "PreferNoSchedule"],
            );
            let twice = taints[..index].iter().any(|other| {
                other.get("key") == taint.get("key") && other.get("effect") == taint.get("effect")
            });
            if twice {
                errors.duplicate(&path, taint.clone());
            }
        }
        validate_networks(object, errors);
        for field in ["capacity", "allocatable"] {
            pod::validate_resource_list(
                object.map_at(&format!("/status/{field}")),
                &Path::new("status").child(field),
                errors,
            );
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Errors) {
        for field in ["podCIDR", "providerID"] {
            let pointer = format!("/spec/{field}");
            let before = old.str_at(&pointer);
            if !before.is_empty() && before != new.str_at(&pointer) {
                errors.forbidden(
                    &Path::new("spec").child(field),
                    format!("node updates may not change {field} except from \"\" to valid"),
                );
            }
        }
        let before = networks(old);
        if !before.is_empty() && before != networks(new) {
            errors.forbidden(
                &Path::new("spec.podCIDRs"),
                "node updates may not change podCIDR except from \"\" to valid",
            );
        }
    }

    fn validate_status_update(&self, new: &Value, _old: &Value, errors: &mut Errors) {
        self.validate(new, errors);
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["spec.unschedulable"]
    }

    fn field_value<'a>(&self, object: &'a Value, field: &str) -> Option<std::borrow::Cow<'a, str>> {
        (field == "spec.unschedulable")
            .then(|| object.bool_at("/spec/unschedulable").to_string().into())
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let info = |field: &str| {
            let text = object.str_at(&format!("/status/nodeInfo/{field}"));
            Value::from(if text.is_empty() { "<unknown>" } else { text })
        };
        vec![
            Value::from(object.name()),
            Value::from(status(object)),
            Value::from(roles(object)),
            table::age_cell(object, now),
            Value::from(object.str_at("/status/nodeInfo/kubeletVersion")),
            Value::from(address(object, "InternalIP")),
            Value::from(address(object, "ExternalIP")),
            info("osImage"),
            info("kernelVersion"),
            info("containerRuntimeVersion"),
        ]
    }
}

/// The networks of the node's pods, by whichever field.
fn networks(node: &Value) -> Vec<&str> {
    let several = node.list_at("/spec/podCIDRs").iter();
    let several: Vec<&str> = several.filter_map(Value::as_str).collect();
    let one = node.str_at("/spec/podCIDR");
    match several.is_empty() && !one.is_empty() {
        true => vec![one],
        false => several,
    }
}

fn validate_networks(node: &Value, errors: &mut Errors) {
    let (one, several) = (node.str_at("/spec/podCIDR"), networks(node));
    let field = match node.list_at("/spec/podCIDRs").is_empty() {
        true => Path::new("spec.podCIDR"),
        false => Path::new("spec.podCIDRs"),
    };
    for (index, text) in several.iter().enumerate() {
        if !crate::names::is_cidr(text) {
            errors.invalid(
                &field.index(index),
                *text,
                "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            );
        }
    }
    let of_ipv6 = several.iter().filter(|text| text.contains(':')).count();
    if of_ipv6 > 1 || several.len() - of_ipv6 > 1 {
        let given = node.list_at("/spec/podCIDRs").to_vec();
        errors.invalid(
            &field,
            given,
            "may specify no more than one CIDR for each IP family",
        );
    }
    if !one.is_empty() && several.first() != Some(&one) {
        let path = Path::new("spec.podCIDR");
        errors.invalid(&path, one, "must be the first of podCIDRs");
    }
}

fn status(node: &Value) -> String {
    let ready = node
        .list_at("/status/conditions")
        .iter()
        .find(|condition| condition.str_at("/type") == "Ready");
    let mut text = match ready.map(|condition| condition.str_at("/status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_string();
    if node.bool_at("/spec/unschedulable") {
        text.push_str(",SchedulingDisabled");
    }
    text
}

fn roles(node: &Value) -> String {
    let mut roles: Vec<&str> = Vec::new();
    for (key, value) in node.labels().into_iter().flatten() {
        if let Some(role) = key.strip_prefix(ROLE_PREFIX) {
            roles.push(role);
        } else if key == "kubernetes.io/role" {
            roles.extend(value.as_str());
        }
    }
    roles.retain(|role| !role.is_empty());
    roles.sort_unstable();
    roles.dedup();
    if roles.is_empty() {
        "<none>".to_string()
    } else {
        roles.join(",")
    }
}

fn address<'a>(node: &'a Value, wanted: &str) -> &'a str {
    node.list_at("/status/addresses")
        .iter()
        .find(|address| address.str_at("/type") == wanted)
        .map_or("<none>", |address| address.str_at("/address"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::Strategy as _;

    fn node(spec: Value) -> Value {
        json!({"metadata": {"name": "a"}, "spec": spec})
    }

    fn told(check: impl FnOnce(&mut Errors)) -> Vec<String> {
        let mut errors = Errors::default();
        check(&mut errors);
        let errors = errors.into_vec().into_iter();
        errors.map(|error| error.to_string()).collect()
    }

    #[test]
    fn a_node_has_one_pod_network_per_ip_version() {
        let wrong = |spec: Value| told(|errors| Strategy.validate(&node(spec), errors)).len();
        let both = json!(["10.42.1.0/24", "fd42:0:0:1::/64"]);
        assert_eq!(wrong(json!({})), 0);
        assert_eq!(wrong(json!({"podCIDR": "10.42.1.0/24"})), 0);
        assert_eq!(wrong(json!({"podCIDRs": both})), 0);
        assert_eq!(
            wrong(json!({"podCIDR": "10.42.1.0/24", "podCIDRs": both})),
            0
        );
        assert_eq!(
            wrong(json!({"podCIDR": "fd42:0:0:1::/64", "podCIDRs": both})),
            1
        );
        assert_eq!(wrong(json!({"podCIDR": "10.42.1.0"})), 1);
        assert_eq!(wrong(json!({"podCIDRs": ["10.42.1.0/24", "here"]})), 2);
        assert_eq!(
            wrong(json!({"podCIDRs": ["10.42.1.0/24", "10.42.2.0/24"]})),
            1
        );
    }

    #[test]
    fn a_nodes_pod_networks_stay() {
        let told = |old: Value, new: Value| {
            told(|errors| Strategy.validate_update(&node(new), &node(old), errors))
        };
        let own = json!({"podCIDR": "10.42.1.0/24", "podCIDRs": ["10.42.1.0/24"]});
        assert!(told(json!({}), own.clone()).is_empty());
        assert!(told(own.clone(), own.clone()).is_empty());
        assert!(told(json!({"podCIDR": "10.42.1.0/24"}), own.clone()).is_empty());
        let words = "Forbidden: node updates may not change podCIDR except from \"\" to valid";
        for (another, fields) in [
            (
                json!({"podCIDR": "10.42.1.0/24", "podCIDRs": ["10.42.2.0/24"]}),
                &["podCIDRs"][..],
            ),
            (
                json!({"podCIDR": "10.42.1.0/24", "podCIDRs": ["10.42.1.0/24", "fd42::/64"]}),
                &["podCIDRs"],
            ),
            (
                json!({"podCIDR": "10.42.2.0/24", "podCIDRs": ["10.42.2.0/24"]}),
                &["podCIDR", "podCIDRs"],
            ),
            (json!({}), &["podCIDR", "podCIDRs"]),
        ] {
            let expected: Vec<String> = fields
                .iter()
                .map(|field| format!("spec.{field}: {words}"))
                .collect();
            assert_eq!(told(own.clone(), another), expected);
        }
    }
}
