//! Endpoints: the older form of EndpointSlices.

use serde_json::Value;

use super::PLAIN;
use crate::{
    ObjectExt,
    field::{Errors, Path},
    names,
    object::default_text,
    registry::{self, Kind},
    table::{self, Column},
};

/// `v1` Endpoints.
pub static ENDPOINTS: Kind = Kind {
    kind: "Endpoints",
    plural: "endpoints",
    singular: "endpoints",
    short_names: &["ep"],
    schema: "core.Endpoints",
    storage: "services/endpoints",
    deprecated: Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"),
    strategy: &Strategy,
    ..PLAIN
};

struct Strategy;

/// Addresses shown in a cell.
const SHOWN: usize = 3;

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("Endpoints", "Addresses and ports that are ready."),
    table::AGE,
];

impl registry::Strategy for Strategy {
    fn apply_defaults(&self, object: &mut Value) {
        if let Some(Value::Array(subsets)) = object.pointer_mut("/subsets") {
            for subset in subsets {
                if let Some(Value::Array(ports)) = subset.pointer_mut("/ports") {
                    for port in ports.iter_mut().filter_map(Value::as_object_mut) {
                        default_text(port, "protocol", "TCP");
                    }
                }
            }
        }
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        for (index, subset) in object.list_at("/subsets").iter().enumerate() {
            let path = Path::new("subsets").index(index);
            let (ready, waiting) = (
                subset.list_at("/addresses"),
                subset.list_at("/notReadyAddresses"),
            );
            if ready.is_empty() && waiting.is_empty() {
                errors.required(&path, "must specify `addresses` or `notReadyAddresses`");
            }
            for (field, addresses) in [("addresses", ready), ("notReadyAddresses", waiting)] {
                for (index, address) in addresses.iter().enumerate() {
                    let path = path.child(field).index(index).child("ip");
                    check_endpoint_ip(address.str_at("/ip"), &path, errors);
                }
            }
            let ports = subset.list_at("/ports");
            for (index, port) in ports.iter().enumerate() {
                check_port(
                    port,
                    ports.len() > 1,
                    &path.child("ports").index(index),
                    errors,
                );
            }
        }
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let mut shown = Vec::new();
        for subset in object.list_at("/subsets") {
            for address in subset.list_at("/addresses") {
                let ip = address.str_at("/ip");
                let ports = subset.list_at("/ports");
                if ports.is_empty() {
                    shown.push(ip.to_string());
                }
                for port in ports {
                    let port = port.int_at("/port").unwrap_or(0);
                    shown.push(match ip.contains(':') {
                        true => format!("[{ip}]:{port}"),
                        false => format!("{ip}:{port}"),
                    });
                }
            }
        }
        vec![
            Value::from(object.name()),
            Value::from(short_list(&shown, SHOWN)),
            table::age_cell(object, now),
        ]
    }
}

/// The first few of a list and how many more there are.
pub(super) fn short_list(items: &[String], shown: usize) -> String {
    match items.len() {
        0 => "<none>".to_string(),
        count if count > shown => {
            format!("{} + {} more...", items[..shown].join(","), count - shown)
        }
        _ => items.join(","),
    }
}

/// An address that traffic is sent to must not lead back to the node itself.
pub(super) fn check_endpoint_ip(text: &str, path: &Path, errors: &mut Errors) {
    let Ok(ip) = text.parse::<std::net::IpAddr>() else {
        return errors.invalid(
            path,
            text,
            "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        );
    };
    let link_local = match ip {
        std::net::IpAddr::V4(ip) => ip.is_link_local(),
        std::net::IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    for (wrong, words) in [
        (
            ip.is_unspecified(),
            "may not be unspecified (0.0.0.0 or ::)",
        ),
        (
            ip.is_loopback(),
            "may not be in the loopback range (127.0.0.0/8, ::1/128)",
        ),
        (
            link_local,
            "may not be in the link-local range (169.254.0.0/16, fe80::/10)",
        ),
        (
            ip.is_multicast(),
            "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)",
        ),
    ] {
        if wrong {
            errors.invalid(path, text, words);
        }
    }
}

fn check_port(port: &Value, needs_name: bool, path: &Path, errors: &mut Errors) {
    let name = port.str_at("/name");
    if name.is_empty() {
        if needs_name {
            errors.required(&path.child("name"), "");
        }
    } else {
        for why in names::label(name) {
            errors.invalid(&path.child("name"), name, why);
        }
    }
    let number = port.int_at("/port").unwrap_or(0);
    if let Some(why) = names::port_number(number) {
        errors.invalid(&path.child("port"), number, why);
    }
    errors.check_supported(
        &path.child("protocol"),
        port.str_at("/protocol"),
        &["SCTP", "TCP", "UDP"],
    );
}
