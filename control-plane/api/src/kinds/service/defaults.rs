//! What an absent field of a service means, written out
//! (Kubernetes: pkg/apis/core/v1/defaults.go).

use serde_json::{Value, json};

use crate::{
    ObjectExt,
    object::{default_text, default_to},
};

/// How long a client stays with its pod, by default.
const AFFINITY_SECONDS: i64 = 10_800;

pub(super) fn default_service(service: &mut Value) {
    let spec = service.map_mut(&["spec"]);
    default_text(spec, "type", "ClusterIP");
    default_text(spec, "sessionAffinity", "None");
    match spec.get("sessionAffinity").and_then(Value::as_str) {
        Some("None") => {
            spec.remove("sessionAffinityConfig");
        }
        Some("ClientIP") => {
            let config = service.map_mut(&["spec", "sessionAffinityConfig", "clientIP"]);
            default_to(config, "timeoutSeconds", AFFINITY_SECONDS);
        }
        _ => {}
    }
    default_ports(service);
    default_policies(service);
    normalize_cluster_ips(service);
}

fn default_ports(service: &mut Value) {
    let Some(Value::Array(ports)) = service.pointer_mut("/spec/ports") else {
        return;
    };
    for port in ports.iter_mut().filter_map(Value::as_object_mut) {
        default_text(port, "protocol", "TCP");
        let unset = port
            .get("targetPort")
            .is_none_or(|target| *target == json!(0) || *target == json!("") || target.is_null());
        if unset && let Some(number) = port.get("port").cloned() {
            port.insert("targetPort".to_string(), number);
        }
        if port.get("nodePort") == Some(&json!(0)) {
            port.remove("nodePort");
        }
    }
}

fn default_policies(service: &mut Value) {
    let service_type = service.str_at("/spec/type").to_string();
    let spec = service.map_mut(&["spec"]);
    if matches!(service_type.as_str(), "NodePort" | "LoadBalancer") {
        default_text(spec, "externalTrafficPolicy", "Cluster");
    }
    if matches!(
        service_type.as_str(),
        "ClusterIP" | "NodePort" | "LoadBalancer"
    ) {
        default_text(spec, "internalTrafficPolicy", "Cluster");
    }
    if service_type == "LoadBalancer" {
        default_to(spec, "allocateLoadBalancerNodePorts", true);
    }
}

/// `clusterIP` and the first of `clusterIPs` are one value.
fn normalize_cluster_ips(service: &mut Value) {
    let single = service.str_at("/spec/clusterIP").to_string();
    let first = service
        .list_at("/spec/clusterIPs")
        .first()
        .and_then(Value::as_str)
        .unwrap_or("")
        .to_string();
    if !single.is_empty() && first.is_empty() {
        service.set_at(&["spec", "clusterIPs"], json!([single]));
    }
    for field in ["clusterIP", "clusterIPs", "ipFamilies"] {
        let empty = match service.pointer(&format!("/spec/{field}")) {
            Some(Value::String(text)) => text.is_empty(),
            Some(Value::Array(list)) => list.is_empty(),
            _ => false,
        };
        if empty {
            service.remove_at(&["spec", field]);
        }
    }
}
