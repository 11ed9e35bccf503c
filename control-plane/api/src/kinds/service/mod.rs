//! Service: defaults, what follows from its type, validation, kubectl's columns.
//!
//! Addresses and node ports are chosen by the API server, which owns the ranges
//! (`hull_apiserver::service_network`); what a service holds of them is told by
//! [`cluster_ips`] and [`node_ports`].

mod defaults;
mod print;
mod update;
mod validate;

use serde_json::{Value, json};

use super::PLAIN;
use crate::{
    ObjectExt,
    field::Errors,
    names::NameRule,
    registry::{self, Kind, Subresource},
    table::Column,
};

/// `v1` Service.
pub static SERVICES: Kind = Kind {
    kind: "Service",
    plural: "services",
    singular: "service",
    short_names: &["svc"],
    categories: &["all"],
    subresources: &[Subresource::ServiceProxy, Subresource::Status],
    schema: "core.Service",
    storage: "services/specs",
    strategy: &Strategy,
    ..PLAIN
};

/// `clusterIP` of a service without an address of its own.
pub const HEADLESS: &str = "None";

struct Strategy;

impl registry::Strategy for Strategy {
    fn name_rule(&self) -> NameRule {
        NameRule::Label1035
    }

    fn apply_defaults(&self, object: &mut Value) {
        defaults::default_service(object);
    }

    fn prepare_create(&self, object: &mut Value) {
        object.set_at(&["status"], json!({"loadBalancer": {}}));
        update::drop_unused(object, None);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        let status = old.get("status").cloned().unwrap_or(json!({}));
        new.set_at(&["status"], status);
        update::keep_allocated(new, old);
        update::drop_unused(new, Some(old));
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        validate::validate(object, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Errors) {
        update::validate(new, old, errors);
    }

    fn validate_status_update(&self, new: &Value, _old: &Value, errors: &mut Errors) {
        validate::validate_load_balancer_status(new, errors);
    }

    fn has_status(&self) -> bool {
        true
    }

    fn returns_deleted(&self) -> bool {
        true
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["spec.clusterIP", "spec.type"]
    }

    fn columns(&self) -> &'static [Column] {
        print::COLUMNS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        print::row(object, now)
    }
}

/// The service's type.
pub fn service_type(service: &Value) -> &str {
    service.str_at("/spec/type")
}

/// It asks for a cluster address (unless it is headless).
pub fn wants_cluster_ip(service: &Value) -> bool {
    service_type(service) != "ExternalName"
}

/// It has no address of its own: DNS answers with the pods.
pub fn is_headless(service: &Value) -> bool {
    service.str_at("/spec/clusterIP") == HEADLESS
        || service
            .list_at("/spec/clusterIPs")
            .first()
            .is_some_and(|ip| ip == HEADLESS)
}

/// Every port gets a node port.
pub fn wants_node_ports(service: &Value) -> bool {
    match service_type(service) {
        "NodePort" => true,
        "LoadBalancer" => service
            .pointer("/spec/allocateLoadBalancerNodePorts")
            .is_none_or(|value| value != false),
        _ => false,
    }
}

/// It gets a node port that answers health checks.
pub fn wants_health_check_port(service: &Value) -> bool {
    service_type(service) == "LoadBalancer"
        && service.str_at("/spec/externalTrafficPolicy") == "Local"
}

/// The cluster addresses that it holds.
pub fn cluster_ips(service: &Value) -> Vec<&str> {
    service
        .list_at("/spec/clusterIPs")
        .iter()
        .filter_map(Value::as_str)
        .filter(|ip| !ip.is_empty() && *ip != HEADLESS)
        .collect()
}

/// The node ports that it holds, each once.
pub fn node_ports(service: &Value) -> Vec<u16> {
    let mut ports: Vec<u16> = service
        .list_at("/spec/ports")
        .iter()
        .map(|port| port.int_at("/nodePort"))
        .chain([service.int_at("/spec/healthCheckNodePort")])
        .filter_map(|port| u16::try_from(port?).ok())
        .filter(|port| *port != 0)
        .collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}
