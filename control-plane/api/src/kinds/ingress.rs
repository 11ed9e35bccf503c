//! Ingress.

use serde_json::Value;

use super::PLAIN;
use crate::{
    ObjectExt,
    field::{Errors, Path},
    names,
    registry::{self, Kind, Subresource},
    table::{self, Column},
};

/// `networking.k8s.io/v1` Ingress.
pub static INGRESSES: Kind = Kind {
    group: "networking.k8s.io",
    kind: "Ingress",
    plural: "ingresses",
    singular: "ingress",
    short_names: &["ing"],
    subresources: &[Subresource::Status],
    schema: "networking.Ingress",
    storage: "ingress",
    strategy: &Strategy,
    ..PLAIN
};

struct Strategy;

const HOSTS_SHOWN: usize = 3;

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("Class", "Who serves it."),
    table::column("Hosts", "Names that it answers to."),
    table::column("Address", "Where it is reached."),
    table::column("Ports", "80, and 443 with TLS."),
    table::AGE,
];

impl registry::Strategy for Strategy {
    fn validate(&self, object: &Value, errors: &mut Errors) {
        let path = Path::new("spec");
        let spec = object.get("spec").unwrap_or(&Value::Null);
        let default = spec.get("defaultBackend");
        if spec.list_at("/rules").is_empty() && default.is_none() {
            errors.invalid(
                &path,
                spec.list_at("/rules").to_vec(),
                "either `defaultBackend` or `rules` must be specified",
            );
        }
        if let Some(backend) = default {
            validate_backend(backend, &path.child("defaultBackend"), errors);
        }
        let class = spec.str_at("/ingressClassName");
        if !class.is_empty() {
            for why in names::subdomain(class) {
                errors.invalid(&path.child("ingressClassName"), class, why);
            }
        }
        for (index, tls) in spec.list_at("/tls").iter().enumerate() {
            let hosts = path.child("tls").index(index).child("hosts");
            for (at, host) in tls.list_at("/hosts").iter().enumerate() {
                let host = host.as_str().unwrap_or("");
                let plain = host.strip_prefix("*.").unwrap_or(host);
                for why in names::subdomain(plain) {
                    errors.invalid(&hosts.index(at), host, why);
                }
            }
        }
        for (index, rule) in spec.list_at("/rules").iter().enumerate() {
            validate_rule(rule, &path.child("rules").index(index), errors);
        }
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
        let ports = if object.list_at("/spec/tls").is_empty() {
            "80"
        } else {
            "80, 443"
        };
        vec![
            Value::from(object.name()),
            table::text_or(object.str_at("/spec/ingressClassName"), "<none>"),
            Value::from(hosts(object)),
            Value::from(addresses(object)),
            Value::from(ports),
            table::age_cell(object, now),
        ]
    }
}

fn hosts(ingress: &Value) -> String {
    let hosts: Vec<&str> = ingress
        .list_at("/spec/rules")
        .iter()
        .map(|rule| rule.str_at("/host"))
        .filter(|host| !host.is_empty())
        .collect();
    match hosts.len() {
        0 => "*".to_string(),
        count if count > HOSTS_SHOWN => format!(
            "{} + {} more...",
            hosts[..HOSTS_SHOWN].join(","),
            count - HOSTS_SHOWN
        ),
        _ => hosts.join(","),
    }
}

fn addresses(ingress: &Value) -> String {
    let addresses: Vec<&str> = ingress
        .list_at("/status/loadBalancer/ingress")
        .iter()
        .map(|entry| match entry.str_at("/ip") {
            "" => entry.str_at("/hostname"),
            ip => ip,
        })
        .collect();
    addresses.join(",")
}

fn validate_rule(rule: &Value, path: &Path, errors: &mut Errors) {
    let host = rule.str_at("/host");
    if !host.is_empty() {
        let path = path.child("host");
        if host.parse::<std::net::IpAddr>().is_ok() {
            errors.invalid(&path, host, "must be a DNS name, not an IP address");
        }
        for why in names::subdomain(host.strip_prefix("*.").unwrap_or(host)) {
            errors.invalid(&path, host, why);
        }
    }
    let Some(http) = rule.get("http") else { return };
    let list = path.child("http").child("paths");
    if http.list_at("/paths").is_empty() {
        errors.required(&list, "");
    }
    for (index, entry) in http.list_at("/paths").iter().enumerate() {
        let path = list.index(index);
        validate_path(entry, &path, errors);
        match entry.get("backend") {
            None => errors.required(&path.child("backend"), ""),
            Some(backend) => validate_backend(backend, &path.child("backend"), errors),
        }
    }
}

fn validate_path(entry: &Value, path: &Path, errors: &mut Errors) {
    const SEQUENCES: [&str; 5] = ["//", "/./", "/../", "%2f", "%2F"];
    const SUFFIXES: [&str; 2] = ["/..", "/."];
    let text = entry.str_at("/path");
    let path_type = entry.str_at("/pathType");
    if path_type.is_empty() {
        return errors.required(&path.child("pathType"), "pathType must be specified");
    }
    let here = path.child("path");
    match path_type {
        "Exact" | "Prefix" => {
            if !text.starts_with('/') {
                errors.invalid(&here, text, "must be an absolute path");
            }
            for sequence in SEQUENCES {
                if text.contains(sequence) {
                    errors.invalid(&here, text, format!("must not contain '{sequence}'"));
                }
            }
            for suffix in SUFFIXES {
                if text.ends_with(suffix) {
                    errors.invalid(&here, text, format!("cannot end with '{suffix}'"));
                }
            }
        }
        "ImplementationSpecific" => {
            if !text.is_empty() && !text.starts_with('/') {
                errors.invalid(&here, text, "must be an absolute path");
            }
        }
        other => errors.not_supported(
            &path.child("pathType"),
            other,
            &["Exact", "ImplementationSpecific", "Prefix"],
        ),
    }
}

fn validate_backend(backend: &Value, path: &Path, errors: &mut Errors) {
    let resource = backend.get("resource");
    let Some(service) = backend.get("service") else {
        if resource.is_none() {
            errors.required(path, "must specify a service or resource backend");
        }
        return;
    };
    if resource.is_some() {
        return errors.invalid(path, "", "cannot set both resource and service backends");
    }
    let path = path.child("service");
    let name = service.str_at("/name");
    if name.is_empty() {
        errors.required(&path.child("name"), "");
    } else {
        for why in names::label_1035(name) {
            errors.invalid(&path.child("name"), name, why);
        }
    }
    let (port_name, number) = (
        service.str_at("/port/name"),
        service.int_at("/port/number").unwrap_or(0),
    );
    let port = path.child("port");
    if !port_name.is_empty() && number != 0 {
        errors.invalid(&path, "", "cannot set both port name & port number");
    } else if !port_name.is_empty() {
        for why in names::port_name(port_name) {
            errors.invalid(&port.child("name"), port_name, why);
        }
    } else if number == 0 {
        errors.required(&path, "port name or number is required");
    } else if let Some(why) = names::port_number(number) {
        errors.invalid(&port.child("number"), number, why);
    }
}
