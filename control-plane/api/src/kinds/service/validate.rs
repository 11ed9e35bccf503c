//! Rules of a service (Kubernetes: pkg/apis/core/validation).

use std::net::IpAddr;

use serde_json::Value;

use super::{HEADLESS, is_headless, service_type, wants_health_check_port};
use crate::{
    ObjectExt,
    field::{Errors, Path},
    kinds::endpoints::check_endpoint_ip,
    names,
    selector::label,
};

/// The node agent listens there: a load balancer must not lead to it.
const NODE_AGENT_PORT: i64 = 10_250;
/// Longest time that a client may stay with a pod, in seconds.
const MAX_AFFINITY_SECONDS: i64 = 86_400;
const IP_WORDS: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";

pub(super) fn validate(service: &Value, errors: &mut Errors) {
    let spec = Path::new("spec");
    validate_type(service, &spec, errors);
    validate_ports(service, &spec.child("ports"), errors);
    label::validate_labels(
        service.map_at("/spec/selector"),
        &spec.child("selector"),
        errors,
    );
    validate_affinity(service, &spec, errors);
    validate_cluster_ips(service, &spec, errors);
    for (index, address) in service.list_at("/spec/externalIPs").iter().enumerate() {
        let text = address.as_str().unwrap_or("");
        let path = spec.child("externalIPs").index(index);
        check_endpoint_ip(text, &path, errors);
    }
    validate_traffic(service, &spec, errors);
    validate_load_balancer(service, &spec, errors);
}

fn validate_type(service: &Value, spec: &Path, errors: &mut Errors) {
    errors.check_supported(
        &spec.child("type"),
        service_type(service),
        &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"],
    );
    let ports = service.list_at("/spec/ports");
    match service_type(service) {
        "ExternalName" => {
            let path = spec.child("externalName");
            let name = service.str_at("/spec/externalName");
            if name.is_empty() {
                errors.required(&path, "");
            } else {
                for why in names::subdomain(name.strip_suffix('.').unwrap_or(name)) {
                    errors.invalid(&path, name, why);
                }
            }
            return;
        }
        "LoadBalancer" => {
            for (index, port) in ports.iter().enumerate() {
                if port.int_at("/port") == Some(NODE_AGENT_PORT) {
                    errors.invalid(
                        &spec.child("ports").index(index),
                        NODE_AGENT_PORT,
                        format!("may not expose port {NODE_AGENT_PORT} externally since it is used by kubelet"),
                    );
                }
            }
            if is_headless(service) {
                headless_forbidden(service, spec, errors);
            }
        }
        "NodePort" if is_headless(service) => headless_forbidden(service, spec, errors),
        "ClusterIP" => {
            for (index, port) in ports.iter().enumerate() {
                if port.int_at("/nodePort").unwrap_or(0) != 0 {
                    errors.forbidden(
                        &spec.child("ports").index(index).child("nodePort"),
                        "may not be used when `type` is 'ClusterIP'",
                    );
                }
            }
        }
        _ => {}
    }
    if ports.is_empty() && !is_headless(service) {
        errors.required(&spec.child("ports"), "");
    }
}

fn headless_forbidden(service: &Value, spec: &Path, errors: &mut Errors) {
    errors.invalid(
        &spec.child("clusterIPs").index(0),
        HEADLESS,
        format!(
            "may not be set to 'None' for {} services",
            service_type(service)
        ),
    );
}

fn validate_ports(service: &Value, path: &Path, errors: &mut Errors) {
    let ports = service.list_at("/spec/ports");
    let mut names_seen: Vec<&str> = Vec::new();
    let mut ports_seen: Vec<(i64, &str)> = Vec::new();
    let mut node_ports_seen: Vec<(i64, &str)> = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        let name = port.str_at("/name");
        if name.is_empty() {
            if ports.len() > 1 {
                errors.required(&path.child("name"), "");
            }
        } else {
            for why in names::label(name) {
                errors.invalid(&path.child("name"), name, why);
            }
            if names_seen.contains(&name) {
                errors.duplicate(&path.child("name"), name);
            }
            names_seen.push(name);
        }
        let number = port.int_at("/port").unwrap_or(0);
        if let Some(why) = names::port_number(number) {
            errors.invalid(&path.child("port"), number, why);
        }
        let protocol = port.str_at("/protocol");
        errors.check_supported(&path.child("protocol"), protocol, &["SCTP", "TCP", "UDP"]);
        validate_target(port, &path.child("targetPort"), errors);
        let application = port.str_at("/appProtocol");
        if !application.is_empty() {
            for why in names::qualified_name(application) {
                errors.invalid(&path.child("appProtocol"), application, why);
            }
        }
        if ports_seen.contains(&(number, protocol)) {
            errors.duplicate(
                &path,
                serde_json::json!({"port": number, "protocol": protocol}),
            );
        }
        ports_seen.push((number, protocol));
        let node_port = port.int_at("/nodePort").unwrap_or(0);
        if node_port != 0 {
            if node_ports_seen.contains(&(node_port, protocol)) {
                errors.duplicate(&path.child("nodePort"), node_port);
            }
            node_ports_seen.push((node_port, protocol));
        }
    }
}

fn validate_target(port: &Value, path: &Path, errors: &mut Errors) {
    match port.get("targetPort") {
        Some(Value::String(name)) => {
            for why in names::port_name(name) {
                errors.invalid(path, name.as_str(), why);
            }
        }
        Some(number) => {
            let number = number.as_i64().unwrap_or(0);
            if let Some(why) = names::port_number(number) {
                errors.invalid(path, number, why);
            }
        }
        None => {}
    }
}

fn validate_affinity(service: &Value, spec: &Path, errors: &mut Errors) {
    let affinity = service.str_at("/spec/sessionAffinity");
    let path = spec.child("sessionAffinity");
    if affinity.is_empty() {
        return errors.required(&path, "");
    }
    errors.check_supported(&path, affinity, &["ClientIP", "None"]);
    if affinity == "ClientIP" {
        let seconds = service
            .int_at("/spec/sessionAffinityConfig/clientIP/timeoutSeconds")
            .unwrap_or(0);
        if !(1..=MAX_AFFINITY_SECONDS).contains(&seconds) {
            errors.invalid(
                &spec
                    .child("sessionAffinityConfig")
                    .child("clientIP")
                    .child("timeoutSeconds"),
                seconds,
                format!("must be greater than 0 and less than {MAX_AFFINITY_SECONDS}"),
            );
        }
    }
}

fn validate_cluster_ips(service: &Value, spec: &Path, errors: &mut Errors) {
    let path = spec.child("clusterIPs");
    let addresses = service.list_at("/spec/clusterIPs");
    let single = service.str_at("/spec/clusterIP");
    if service_type(service) == "ExternalName" {
        if !addresses.is_empty() {
            errors.invalid(
                &path,
                addresses.to_vec(),
                "may not be set for ExternalName services",
            );
        }
        return;
    }
    if let Some(first) = addresses.first().and_then(Value::as_str)
        && first != single
        && !single.is_empty()
    {
        errors.invalid(
            &path,
            addresses.to_vec(),
            "first value must match `clusterIP`",
        );
    }
    if addresses.len() > 2 {
        errors.invalid(&path, addresses.to_vec(), "may only hold up to 2 values");
    }
    for (index, address) in addresses.iter().enumerate() {
        let text = address.as_str().unwrap_or("");
        if text == HEADLESS {
            if addresses.len() > 1 {
                errors.invalid(
                    &path,
                    addresses.to_vec(),
                    "'None' must be the first and only value",
                );
            }
        } else if text.parse::<IpAddr>().is_err() {
            errors.invalid(&path.index(index), text, IP_WORDS);
        }
    }
    let policy = service.str_at("/spec/ipFamilyPolicy");
    if !policy.is_empty() {
        errors.check_supported(
            &spec.child("ipFamilyPolicy"),
            policy,
            &["PreferDualStack", "RequireDualStack", "SingleStack"],
        );
    }
    for (index, family) in service.list_at("/spec/ipFamilies").iter().enumerate() {
        errors.check_supported(
            &spec.child("ipFamilies").index(index),
            family.as_str().unwrap_or(""),
            &["IPv4", "IPv6"],
        );
    }
}

fn validate_traffic(service: &Value, spec: &Path, errors: &mut Errors) {
    let external = service.str_at("/spec/externalTrafficPolicy");
    let path = spec.child("externalTrafficPolicy");
    let externally = matches!(service_type(service), "LoadBalancer" | "NodePort")
        || (service_type(service) == "ClusterIP"
            && !service.list_at("/spec/externalIPs").is_empty());
    if !externally && !external.is_empty() {
        errors.invalid(
            &path,
            external,
            "may only be set for externally-accessible services",
        );
    } else if externally && service_type(service) != "ClusterIP" {
        if external.is_empty() {
            errors.required(&path, "");
        } else {
            errors.check_supported(&path, external, &["Cluster", "Local"]);
        }
    }
    let health = service.int_at("/spec/healthCheckNodePort").unwrap_or(0);
    if health != 0 && !wants_health_check_port(service) {
        errors.invalid(
            &spec.child("healthCheckNodePort"),
            health,
            "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
        );
    }
    let internal = service.str_at("/spec/internalTrafficPolicy");
    if !internal.is_empty() {
        errors.check_supported(
            &spec.child("internalTrafficPolicy"),
            internal,
            &["Cluster", "Local"],
        );
    }
    let distribution = service.str_at("/spec/trafficDistribution");
    if !distribution.is_empty() {
        errors.check_supported(
            &spec.child("trafficDistribution"),
            distribution,
            &["PreferClose", "PreferSameNode", "PreferSameZone"],
        );
    }
}

fn validate_load_balancer(service: &Value, spec: &Path, errors: &mut Errors) {
    let ranges = service.list_at("/spec/loadBalancerSourceRanges");
    let balancer = service_type(service) == "LoadBalancer";
    let path = spec.child("loadBalancerSourceRanges");
    if !balancer && !ranges.is_empty() {
        errors.forbidden(&path, "may only be used when `type` is 'LoadBalancer'");
    }
    for (index, range) in ranges.iter().enumerate() {
        let text = range.as_str().unwrap_or("");
        if !names::is_cidr(text.trim()) {
            errors.invalid(
                &path.index(index),
                text,
                "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            );
        }
    }
    for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
        if !balancer && service.pointer(&format!("/spec/{field}")).is_some() {
            errors.forbidden(
                &spec.child(field),
                "may only be used when `type` is 'LoadBalancer'",
            );
        }
    }
    if let Some(Value::String(class)) = service.pointer("/spec/loadBalancerClass") {
        for why in names::qualified_name(class) {
            errors.invalid(&spec.child("loadBalancerClass"), class.as_str(), why);
        }
    }
}

/// The addresses in a load balancer's status.
pub(super) fn validate_load_balancer_status(service: &Value, errors: &mut Errors) {
    let path = Path::new("status.loadBalancer.ingress");
    let ingress = service.list_at("/status/loadBalancer/ingress");
    if service_type(service) != "LoadBalancer" && !ingress.is_empty() {
        errors.forbidden(
            &path,
            "may only be used when `spec.type` is \"LoadBalancer\"",
        );
    }
    for (index, entry) in ingress.iter().enumerate() {
        let address = entry.str_at("/ip");
        if !address.is_empty() && address.parse::<IpAddr>().is_err() {
            errors.invalid(&path.index(index).child("ip"), address, IP_WORDS);
        }
        let hostname = entry.str_at("/hostname");
        if !hostname.is_empty() {
            for why in names::subdomain(hostname) {
                errors.invalid(&path.index(index).child("hostname"), hostname, why);
            }
        }
    }
}
