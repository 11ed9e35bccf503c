//! What a proxied request names, and where that is: `[SCHEME:]NAME[:PORT]` of a pod, a service or
//! a node.
//!
//! Addresses come from objects, and those who write objects must not reach through this server
//! what they could not reach themselves: what is on its own machine or link is refused, and a
//! service leads to pods of its namespace only, at addresses that are theirs.

use std::net::{IpAddr, SocketAddr};

use hull_api::{ApiError, Kind, ObjectExt, kinds, registry::Subresource, status::Reason};
use hull_store::prefix_range;
use serde_json::Value;

use crate::{handlers::Backend, node_proxy};

const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// What is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Id<'i> {
    secure: bool,
    name: &'i str,
    /// A number or a name; empty: the usual one.
    port: &'i str,
}

impl<'i> Id<'i> {
    /// `None`: it has another form.
    fn parse(text: &'i str) -> Option<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        let (scheme, name, port) = match parts.as_slice() {
            [name] => ("", *name, ""),
            [name, port] => ("", *name, *port),
            [scheme, name, port] => (*scheme, *name, *port),
            _ => return None,
        };
        let known = matches!(scheme, "" | "http" | "https");
        (known && !name.is_empty()).then_some(Id {
            secure: scheme == "https",
            name,
            port,
        })
    }

    fn usual_port(&self) -> u16 {
        if self.secure { HTTPS_PORT } else { HTTP_PORT }
    }
}

/// Where a request goes.
#[derive(Debug)]
pub(super) enum Place {
    /// To whatever listens there, with TLS or without.
    Address { at: SocketAddr, secure: bool },
    /// To the agent of this node.
    Agent { node: Value },
}

/// Finds what `id` names.
pub(super) async fn find(
    backend: &Backend,
    part: Subresource,
    namespace: &str,
    id: &str,
) -> Result<Place, ApiError> {
    let (what, parsed) = (what(part), Id::parse(id));
    let invalid = || ApiError::bad_request(format!("invalid {what} request {id:?}"));
    let parsed = parsed.ok_or_else(invalid)?;
    match part {
        Subresource::NodeProxy => node(backend, parsed, invalid).await,
        Subresource::ServiceProxy => service(backend, namespace, parsed, id).await,
        _ => pod(backend, namespace, parsed, invalid).await,
    }
}

fn what(part: Subresource) -> &'static str {
    match part {
        Subresource::NodeProxy => "node",
        Subresource::ServiceProxy => "service",
        _ => "pod",
    }
}

/// The address, if requests may be passed on to it: a unicast one of more than this link.
fn allowed(text: &str) -> Result<IpAddr, ApiError> {
    let refused = || ApiError::bad_request("address not allowed");
    let address: IpAddr = text.parse().map_err(|_| refused())?;
    let local = match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let canonical = address.to_canonical();
    let none = canonical.is_unspecified() || canonical.is_loopback() || canonical.is_multicast();
    if local || none {
        return Err(refused());
    }
    Ok(canonical)
}

async fn node(
    backend: &Backend,
    id: Id<'_>,
    invalid: impl Fn() -> ApiError,
) -> Result<Place, ApiError> {
    let found = backend.storage.must_get(&kinds::NODES, "", id.name).await?;
    let node = found.object;
    let (address, agent_port) = node_proxy::node_address(&node)?;
    let port = match id.port {
        "" => agent_port,
        port => port.parse().map_err(|_| invalid())?,
    };
    if port == agent_port {
        return Ok(Place::Agent { node });
    }
    Ok(Place::Address {
        at: SocketAddr::new(allowed(&address)?, port),
        secure: id.secure,
    })
}

/// Without a port, the first that a container declares.
async fn pod(
    backend: &Backend,
    namespace: &str,
    id: Id<'_>,
    invalid: impl Fn() -> ApiError,
) -> Result<Place, ApiError> {
    let found = backend.storage.must_get(&kinds::PODS, namespace, id.name);
    let pod = found.await?.object;
    let port = match id.port {
        "" => pod
            .list_at("/spec/containers")
            .iter()
            .find_map(|container| container.int_at("/ports/0/containerPort"))
            .and_then(|port| u16::try_from(port).ok())
            .unwrap_or_else(|| id.usual_port()),
        port => port.parse().map_err(|_| invalid())?,
    };
    let address = match pod.str_at("/status/podIPs/0/ip") {
        "" => pod.str_at("/status/podIP"),
        first => first,
    };
    Ok(Place::Address {
        at: SocketAddr::new(allowed(address)?, port),
        secure: id.secure,
    })
}

/// One of the ready endpoints, at random.
async fn service(
    backend: &Backend,
    namespace: &str,
    id: Id<'_>,
    asked: &str,
) -> Result<Place, ApiError> {
    let unavailable = |why: String| ApiError::new(Reason::ServiceUnavailable, why);
    let kind: &Kind = &kinds::SERVICES;
    let service = backend.storage.must_get(kind, namespace, id.name).await?;
    let port_name = match id.port.parse::<i64>() {
        Err(_) => id.port.to_string(),
        Ok(number) => {
            let ports = service.object.list_at("/spec/ports");
            let port = ports.iter().find(|one| one.int_at("/port") == Some(number));
            let missing = || {
                let name = id.name;
                unavailable(format!(
                    "no service port {number} found for service {name:?}"
                ))
            };
            port.ok_or_else(missing)?.str_at("/name").to_string()
        }
    };
    let mut endpoints = endpoints(backend, namespace, id.name, &port_name);
    if endpoints.is_empty() {
        let why = format!("no endpoints available for service {asked:?}");
        return Err(unavailable(why));
    }
    let at = endpoints.swap_remove(rand::random_range(0..endpoints.len()));
    Ok(Place::Address {
        at,
        secure: id.secure,
    })
}

/// Where the ready pods of a service listen.
fn endpoints(backend: &Backend, namespace: &str, service: &str, port: &str) -> Vec<SocketAddr> {
    let slices: &Kind = &kinds::ENDPOINT_SLICES;
    let range = prefix_range(&slices.prefix(namespace));
    let mut found = Vec::new();
    for slice in backend.cache.snapshot(slices.storage, range).objects {
        if slice.label(SERVICE_NAME) != Some(service) {
            continue;
        }
        let slice = slice.parsed();
        let named = slice.list_at("/ports").iter();
        let number = named
            .filter(|one| one.str_at("/name") == port)
            .find_map(|one| one.int_at("/port"))
            .and_then(|number| u16::try_from(number).ok());
        let Some(number) = number else { continue };
        let ready = slice
            .list_at("/endpoints")
            .iter()
            .filter(|one| one.pointer("/conditions/ready") != Some(&Value::Bool(false)));
        for endpoint in ready {
            let address = endpoint.str_at("/addresses/0");
            if is_of_pod(backend, namespace, endpoint, address)
                && let Ok(address) = allowed(address)
            {
                found.push(SocketAddr::new(address, number));
            }
        }
    }
    found
}

/// The endpoint is a pod of the namespace, at one of its addresses.
fn is_of_pod(backend: &Backend, namespace: &str, endpoint: &Value, address: &str) -> bool {
    let target = |field: &str| endpoint.str_at(&format!("/targetRef/{field}"));
    let kind: &Kind = &kinds::PODS;
    if target("kind") != kind.kind || target("namespace") != namespace {
        return false;
    }
    let key = kind.key(namespace, target("name"));
    backend.cache.get(kind.storage, &key).is_some_and(|pod| {
        let status = pod.parts(&["status"]);
        let addresses = status.list_at("/status/podIPs");
        addresses.iter().any(|one| one.str_at("/ip") == address)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_with_schemes_and_ports() {
        let id = |secure, name, port| Some(Id { secure, name, port });
        for (text, expected) in [
            ("a", id(false, "a", "")),
            ("a:80", id(false, "a", "80")),
            ("a:web", id(false, "a", "web")),
            ("https:a:", id(true, "a", "")),
            ("http:a:81", id(false, "a", "81")),
            ("ftp:a:81", None),
            (":80", None),
            ("", None),
            ("a:b:c:d", None),
        ] {
            assert_eq!(Id::parse(text), expected, "{text}");
        }
    }

    #[test]
    fn addresses_of_this_machine_and_link_are_refused() {
        for address in [
            "10.1.2.3",
            "192.168.1.1",
            "8.8.8.8",
            "fd00::1",
            "2001:db8::1",
        ] {
            assert!(allowed(address).is_ok(), "{address}");
        }
        for address in [
            "",
            "x",
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "169.254.169.254",
            "255.255.255.255",
            "224.0.0.1",
            "::",
            "::1",
            "fe80::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
        ] {
            let error = allowed(address).unwrap_err();
            assert_eq!(
                (error.code(), error.message.as_str()),
                (400, "address not allowed")
            );
        }
    }
}
