//! kubectl's columns of services.

use serde_json::Value;

use super::service_type;
use crate::{
    ObjectExt,
    kinds::workload::labels_cell,
    table::{self, Column},
};

pub(super) const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("Type", "How the service is reached."),
    table::column("Cluster-IP", "Its address within the cluster."),
    table::column("External-IP", "Its addresses outside of the cluster."),
    table::column("Port(s)", "Its ports, with those on the nodes."),
    table::AGE,
    table::wide("Selector", "Which pods it leads to."),
];

pub(super) fn row(service: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let address = match service.list_at("/spec/clusterIPs") {
        [] => match service.str_at("/spec/clusterIP") {
            "" => "<none>",
            address => address,
        },
        [first, ..] => first.as_str().unwrap_or("<none>"),
    };
    vec![
        Value::from(service.name()),
        Value::from(service_type(service)),
        Value::from(address),
        Value::from(external(service)),
        Value::from(ports(service)),
        table::age_cell(service, now),
        labels_cell(service.map_at("/spec/selector")),
    ]
}

fn external(service: &Value) -> String {
    let mut addresses: Vec<&str> = Vec::new();
    match service_type(service) {
        "ExternalName" => return service.str_at("/spec/externalName").to_string(),
        "LoadBalancer" => {
            for entry in service.list_at("/status/loadBalancer/ingress") {
                let ip = entry.str_at("/ip");
                addresses.push(if ip.is_empty() {
                    entry.str_at("/hostname")
                } else {
                    ip
                });
            }
        }
        _ => {}
    }
    let own = service.list_at("/spec/externalIPs");
    addresses.extend(own.iter().filter_map(Value::as_str));
    match (addresses.is_empty(), service_type(service)) {
        (false, _) => addresses.join(","),
        (true, "LoadBalancer") => "<pending>".to_string(),
        (true, _) => "<none>".to_string(),
    }
}

fn ports(service: &Value) -> String {
    let parts: Vec<String> = service
        .list_at("/spec/ports")
        .iter()
        .map(|port| {
            let (number, protocol) = (port.int_at("/port").unwrap_or(0), port.str_at("/protocol"));
            match port.int_at("/nodePort").unwrap_or(0) {
                0 => format!("{number}/{protocol}"),
                node_port => format!("{number}:{node_port}/{protocol}"),
            }
        })
        .collect();
    if parts.is_empty() {
        "<none>".to_string()
    } else {
        parts.join(",")
    }
}
