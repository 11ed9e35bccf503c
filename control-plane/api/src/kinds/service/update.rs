//! What an update of a service keeps, drops and may not change.

use serde_json::Value;

use super::{
    cluster_ips, service_type, wants_cluster_ip, wants_health_check_port, wants_node_ports,
};
use crate::{
    ObjectExt,
    field::{Errors, Path},
};

/// What was chosen for the service stays when the update does not say otherwise.
pub(super) fn keep_allocated(new: &mut Value, old: &Value) {
    if wants_cluster_ip(new) && wants_cluster_ip(old) {
        let unset = |object: &Value| object.str_at("/spec/clusterIP").is_empty();
        if unset(new) && new.list_at("/spec/clusterIPs").is_empty() {
            for field in ["clusterIP", "clusterIPs"] {
                copy(new, old, field);
            }
        } else if unset(new)
            && let Some(first) = new.list_at("/spec/clusterIPs").first().cloned()
        {
            new.set_at(&["spec", "clusterIP"], first);
        } else if new.list_at("/spec/clusterIPs").first() == old.list_at("/spec/clusterIPs").first()
            && new.str_at("/spec/clusterIP") == old.str_at("/spec/clusterIP")
            && new.list_at("/spec/clusterIPs").is_empty()
        {
            copy(new, old, "clusterIPs");
        }
        for field in ["ipFamilies", "ipFamilyPolicy"] {
            if new.pointer(&format!("/spec/{field}")).is_none() {
                copy(new, old, field);
            }
        }
    }
    if wants_node_ports(new) && wants_node_ports(old) {
        keep_node_ports(new, old);
    }
    if wants_health_check_port(new)
        && wants_health_check_port(old)
        && new.int_at("/spec/healthCheckNodePort").unwrap_or(0) == 0
    {
        copy(new, old, "healthCheckNodePort");
    }
}

fn copy(new: &mut Value, old: &Value, field: &str) {
    if let Some(value) = old.pointer(&format!("/spec/{field}")) {
        let value = value.clone();
        new.set_at(&["spec", field], value);
    }
}

/// A port keeps its node port by its number and protocol.
fn keep_node_ports(new: &mut Value, old: &Value) {
    let taken: Vec<i64> = new
        .list_at("/spec/ports")
        .iter()
        .filter_map(|port| port.int_at("/nodePort"))
        .collect();
    let Some(Value::Array(ports)) = new.pointer_mut("/spec/ports") else {
        return;
    };
    for port in ports {
        if port.int_at("/nodePort").unwrap_or(0) != 0 {
            continue;
        }
        let same = old.list_at("/spec/ports").iter().find(|before| {
            before.get("port") == port.get("port") && before.get("protocol") == port.get("protocol")
        });
        if let Some(number) = same.and_then(|before| before.int_at("/nodePort"))
            && !taken.contains(&number)
        {
            port.set_at(&["nodePort"], Value::from(number));
        }
    }
}

/// Drops what the service's type has no use for. On an update only what the old type used and
/// the client did not change: anything else is the client's mistake to hear of.
pub(super) fn drop_unused(new: &mut Value, old: Option<&Value>) {
    let Some(old) = old else { return };
    let unchanged = |new: &Value, field: &str| {
        let pointer = format!("/spec/{field}");
        new.pointer(&pointer) == old.pointer(&pointer)
    };
    let mut drop = Vec::new();
    if wants_cluster_ip(old) && !wants_cluster_ip(new) {
        if unchanged(new, "clusterIP") && unchanged(new, "clusterIPs") {
            drop.extend(["clusterIP", "clusterIPs"]);
        }
        drop.extend(["ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"]);
    }
    if wants_node_ports(old) && !wants_node_ports(new) {
        drop_node_ports(new, old);
    }
    if wants_health_check_port(old)
        && !wants_health_check_port(new)
        && unchanged(new, "healthCheckNodePort")
    {
        drop.push("healthCheckNodePort");
    }
    if service_type(old) == "LoadBalancer" && service_type(new) != "LoadBalancer" {
        for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
            if unchanged(new, field) {
                drop.push(field);
            }
        }
        new.set_at(&["status"], serde_json::json!({"loadBalancer": {}}));
    }
    let external = |object: &Value| matches!(service_type(object), "NodePort" | "LoadBalancer");
    if external(old) && !external(new) && unchanged(new, "externalTrafficPolicy") {
        drop.push("externalTrafficPolicy");
    }
    for field in drop {
        new.remove_at(&["spec", field]);
    }
}

fn drop_node_ports(new: &mut Value, old: &Value) {
    let before: Vec<i64> = old
        .list_at("/spec/ports")
        .iter()
        .filter_map(|port| port.int_at("/nodePort"))
        .collect();
    let after: Vec<i64> = new
        .list_at("/spec/ports")
        .iter()
        .filter_map(|port| port.int_at("/nodePort"))
        .collect();
    if after.iter().any(|port| !before.contains(port)) {
        return;
    }
    if let Some(Value::Array(ports)) = new.pointer_mut("/spec/ports") {
        for port in ports {
            port.remove_at(&["nodePort"]);
        }
    }
}

pub(super) fn validate(new: &Value, old: &Value, errors: &mut Errors) {
    if wants_cluster_ip(new) && wants_cluster_ip(old) {
        let path = Path::new("spec.clusterIPs");
        let (before, after) = (
            old.list_at("/spec/clusterIPs"),
            new.list_at("/spec/clusterIPs"),
        );
        if !before.is_empty() && before.first() != after.first() {
            errors.invalid(&path.index(0), after.to_vec(), "may not change once set");
        } else if cluster_ips(old).len() > 1 && after.len() > 1 && before.get(1) != after.get(1) {
            errors.invalid(&path.index(1), after.to_vec(), "may not change once set");
        }
    }
    if service_type(new) == "LoadBalancer" && service_type(old) == "LoadBalancer" {
        let class = |object: &Value| object.pointer("/spec/loadBalancerClass").cloned();
        if class(new) != class(old) {
            errors.invalid(
                &Path::new("spec.loadBalancerClass"),
                class(new).unwrap_or(Value::Null),
                "may not change once set",
            );
        }
    }
}
