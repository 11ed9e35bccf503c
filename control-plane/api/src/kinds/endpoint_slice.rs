//! EndpointSlice.

use serde_json::Value;

use super::{
    PLAIN,
    endpoints::{check_endpoint_ip, short_list},
};
use crate::{
    ObjectExt,
    field::{Errors, Path},
    names,
    object::{default_text, default_to},
    registry::{self, Kind},
    table::{self, Column},
};

/// `discovery.k8s.io/v1` EndpointSlice.
pub static ENDPOINT_SLICES: Kind = Kind {
    group: "discovery.k8s.io",
    kind: "EndpointSlice",
    plural: "endpointslices",
    singular: "endpointslice",
    schema: "discovery.EndpointSlice",
    storage: "endpointslices",
    strategy: &Strategy,
    ..PLAIN
};

struct Strategy;

const MAX_ENDPOINTS: usize = 1000;
const MAX_PORTS: usize = 20_000;
const MAX_ADDRESSES: usize = 100;
const SHOWN: usize = 3;

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("AddressType", "IPv4, IPv6 or FQDN."),
    table::column("Ports", "The ports of every endpoint."),
    table::column("Endpoints", "The addresses."),
    table::AGE,
];

impl registry::Strategy for Strategy {
    fn apply_defaults(&self, object: &mut Value) {
        if let Some(Value::Array(ports)) = object.pointer_mut("/ports") {
            for port in ports.iter_mut().filter_map(Value::as_object_mut) {
                default_text(port, "protocol", "TCP");
                default_to(port, "name", "");
            }
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        object.set_at(&["metadata", "generation"], Value::from(1));
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        let generation = old.int_at("/metadata/generation").unwrap_or(0);
        let content = |object: &Value| {
            ["endpoints", "ports", "addressType"].map(|field| object.get(field).cloned())
        };
        let labels = |object: &Value| object.labels().cloned();
        let changed = content(new) != content(old) || labels(new) != labels(old);
        let next = generation + i64::from(changed);
        new.set_at(&["metadata", "generation"], Value::from(next));
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let family = object.str_at("/addressType");
        let path = Path::new("addressType");
        if family.is_empty() {
            errors.required(&path, "");
        } else {
            errors.check_supported(&path, family, &["FQDN", "IPv4", "IPv6"]);
        }
        validate_endpoints(object, family, errors);
        validate_ports(object, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Errors) {
        errors.check_immutable(
            &Path::new("addressType"),
            new.get("addressType"),
            old.get("addressType"),
        );
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let ports: Vec<String> = object
            .list_at("/ports")
            .iter()
            .map(|port| match port.int_at("/port") {
                Some(number) => number.to_string(),
                None => "*".to_string(),
            })
            .collect();
        let addresses: Vec<String> = object
            .list_at("/endpoints")
            .iter()
            .flat_map(|endpoint| endpoint.list_at("/addresses"))
            .filter_map(|address| address.as_str().map(str::to_string))
            .collect();
        let unset = |items: &[String]| match items {
            [] => "<unset>".to_string(),
            items => short_list(items, SHOWN),
        };
        vec![
            Value::from(object.name()),
            Value::from(object.str_at("/addressType")),
            Value::from(unset(&ports)),
            Value::from(unset(&addresses)),
            table::age_cell(object, now),
        ]
    }
}

fn validate_endpoints(object: &Value, family: &str, errors: &mut Errors) {
    let path = Path::new("endpoints");
    let endpoints = object.list_at("/endpoints");
    if endpoints.len() > MAX_ENDPOINTS {
        return errors.too_many(&path, endpoints.len(), MAX_ENDPOINTS);
    }
    for (index, endpoint) in endpoints.iter().enumerate() {
        let path = path.index(index);
        let addresses = endpoint.list_at("/addresses");
        let list = path.child("addresses");
        if addresses.is_empty() {
            errors.required(&list, "must contain at least 1 address");
        } else if addresses.len() > MAX_ADDRESSES {
            errors.too_many(&list, addresses.len(), MAX_ADDRESSES);
        }
        for (index, address) in addresses.iter().enumerate() {
            let text = address.as_str().unwrap_or("");
            validate_address(text, family, &list.index(index), errors);
        }
        let node = endpoint.str_at("/nodeName");
        if !node.is_empty() {
            for why in names::subdomain(node) {
                errors.invalid(&path.child("nodeName"), node, why);
            }
        }
        let hostname = endpoint.str_at("/hostname");
        if !hostname.is_empty() {
            for why in names::label(hostname) {
                errors.invalid(&path.child("hostname"), hostname, why);
            }
        }
    }
}

fn validate_address(text: &str, family: &str, path: &Path, errors: &mut Errors) {
    match family {
        "IPv4" if text.parse::<std::net::Ipv4Addr>().is_err() => {
            errors.invalid(path, text, "must be an IPv4 address");
        }
        "IPv6" if text.parse::<std::net::Ipv6Addr>().is_err() => {
            errors.invalid(path, text, "must be an IPv6 address");
        }
        "IPv4" | "IPv6" => check_endpoint_ip(text, path, errors),
        "FQDN" => {
            for why in names::subdomain(text) {
                errors.invalid(path, text, why);
            }
        }
        _ => {}
    }
}

fn validate_ports(object: &Value, errors: &mut Errors) {
    let path = Path::new("ports");
    let ports = object.list_at("/ports");
    if ports.len() > MAX_PORTS {
        return errors.too_many(&path, ports.len(), MAX_PORTS);
    }
    let mut seen: Vec<&str> = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        let name = port.str_at("/name");
        if !name.is_empty() {
            for why in names::label(name) {
                errors.invalid(&path.child("name"), name, why);
            }
        }
        if seen.contains(&name) {
            errors.duplicate(&path.child("name"), name);
        }
        seen.push(name);
        if let Some(number) = port.int_at("/port")
            && let Some(why) = names::port_number(number)
        {
            errors.invalid(&path.child("port"), number, why);
        }
        errors.check_supported(
            &path.child("protocol"),
            port.str_at("/protocol"),
            &["SCTP", "TCP", "UDP"],
        );
    }
}
