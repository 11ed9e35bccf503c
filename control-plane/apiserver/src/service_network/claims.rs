//! The keys that a service holds besides its own.

use bytes::Bytes;
use hull_api::{
    Kind, ObjectExt,
    kinds::{self, service},
    time,
};
use serde_json::{Value, json};

/// Node ports, one key each: no kind of the API stands for them.
pub(super) const NODE_PORTS: &str = "/registry/hull/nodeports/";

/// A key that nobody else may hold, and what is written there.
pub(crate) struct Claim {
    pub key: String,
    pub value: Bytes,
}

/// The key of a cluster address.
pub(super) fn address_key(address: &str) -> String {
    kinds::IP_ADDRESSES.key("", address)
}

/// The key of a node port.
pub(super) fn port_key(port: u16) -> String {
    format!("{NODE_PORTS}{port}")
}

/// What the object holds. Only services hold anything.
pub(crate) fn of(kind: &Kind, object: &Value) -> Vec<Claim> {
    if kind.storage != kinds::SERVICES.storage {
        return Vec::new();
    }
    let addresses = service::cluster_ips(object)
        .into_iter()
        .map(|address| Claim {
            key: address_key(address),
            value: Bytes::from(address_object(address, object).to_string()),
        });
    let holder = json!({"namespace": object.namespace(), "name": object.name()}).to_string();
    let ports = service::node_ports(object).into_iter().map(|port| Claim {
        key: port_key(port),
        value: Bytes::from(holder.clone()),
    });
    addresses.chain(ports).collect()
}

fn address_object(address: &str, service: &Value) -> Value {
    let family = if address.contains(':') {
        "IPv6"
    } else {
        "IPv4"
    };
    json!({
        "kind": kinds::IP_ADDRESSES.kind,
        "apiVersion": kinds::IP_ADDRESSES.group_version(),
        "metadata": {
            "name": address,
            "uid": uuid::Uuid::new_v4().to_string(),
            "creationTimestamp": time::to_seconds(jiff::Timestamp::now()),
            "labels": {
                "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
                "ipaddress.kubernetes.io/ip-family": family,
            },
        },
        "spec": {"parentRef": {
            "group": "",
            "resource": kinds::SERVICES.plural,
            "namespace": service.namespace(),
            "name": service.name(),
        }},
    })
}
