//! The service `kubernetes`: how pods find the API server.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use hull_api::{ApiError, Kind, ObjectExt, kinds, meta};
use serde_json::{Value, json};

use super::ServiceNetwork;
use crate::storage::{Outcome, Storage};

const NAME: &str = "kubernetes";
const NAMESPACE: &str = "default";
/// The port of the service itself.
const PORT: u16 = 443;
/// Tries when another server writes the same objects.
const TRIES: usize = 5;
/// An address of no host (RFC 5737): the route to it is the default route.
const ELSEWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)), 9);

/// The address of this machine that others reach the listener at.
pub(super) fn advertised(listening: SocketAddr) -> SocketAddr {
    if !listening.ip().is_unspecified() {
        return listening;
    }
    // Connecting a datagram socket sends nothing: it only asks for the route.
    let found = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
        .and_then(|socket| socket.connect(ELSEWHERE).and_then(|()| socket.local_addr()));
    let ip = found.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.ip());
    SocketAddr::new(ip, listening.port())
}

/// Writes the default range, the service and its endpoints, as far as they are not there.
pub(crate) async fn publish(
    storage: &Storage,
    network: &ServiceNetwork,
    listening: SocketAddr,
) -> Result<(), ApiError> {
    let at = advertised(listening);
    let range = json!({
        "apiVersion": kinds::SERVICE_CIDRS.group_version(),
        "kind": kinds::SERVICE_CIDRS.kind,
        "metadata": {"name": NAME},
        "spec": {"cidrs": [network.addresses.to_string()]},
        "status": {"conditions": [{
            "type": "Ready",
            "status": "True",
            "lastTransitionTime": hull_api::time::to_seconds(jiff::Timestamp::now()),
            "reason": "",
            "message": "Kubernetes default Service CIDR is ready",
        }]},
    });
    write(storage, &kinds::SERVICE_CIDRS, range, false).await?;
    let address = network.addresses.first().to_string();
    let mut service = json!({
        "apiVersion": "v1",
        "kind": kinds::SERVICES.kind,
        "metadata": {
            "name": NAME,
            "namespace": NAMESPACE,
            "labels": {"component": "apiserver", "provider": "kubernetes"},
        },
        "spec": {
            "clusterIP": address,
            "clusterIPs": [address],
            "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack",
            "ports": [{"name": "https", "port": PORT, "targetPort": at.port(), "protocol": "TCP"}],
        },
        "status": {"loadBalancer": {}},
    });
    kinds::SERVICES.strategy.apply_defaults(&mut service);
    write(storage, &kinds::SERVICES, service, false).await?;
    let family = if at.is_ipv4() { "IPv4" } else { "IPv6" };
    let slice = json!({
        "apiVersion": kinds::ENDPOINT_SLICES.group_version(),
        "kind": kinds::ENDPOINT_SLICES.kind,
        "metadata": {
            "name": NAME,
            "namespace": NAMESPACE,
            "generation": 1,
            "labels": {"kubernetes.io/service-name": NAME},
        },
        "addressType": family,
        "endpoints": [{"addresses": [at.ip().to_string()], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": at.port(), "protocol": "TCP"}],
    });
    write(storage, &kinds::ENDPOINT_SLICES, slice, true).await?;
    let endpoints = json!({
        "apiVersion": "v1",
        "kind": kinds::ENDPOINTS.kind,
        "metadata": {
            "name": NAME,
            "namespace": NAMESPACE,
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
        },
        "subsets": [{
            "addresses": [{"ip": at.ip().to_string()}],
            "ports": [{"name": "https", "port": at.port(), "protocol": "TCP"}],
        }],
    });
    write(storage, &kinds::ENDPOINTS, endpoints, true).await
}

/// Creates the object, or brings the parts of it that are ours up to date.
async fn write(
    storage: &Storage,
    kind: &Kind,
    wanted: Value,
    replace: bool,
) -> Result<(), ApiError> {
    for _ in 0..TRIES {
        let found = storage.get(kind, wanted.namespace(), wanted.name()).await?;
        let outcome = match found {
            None => {
                let mut object = wanted.clone();
                let generation = object.pointer("/metadata/generation").cloned();
                meta::fill_on_create(
                    &mut object,
                    jiff::Timestamp::now(),
                    uuid::Uuid::new_v4().to_string(),
                );
                if let Some(generation) = generation {
                    object.set_at(&["metadata", "generation"], generation);
                }
                storage.create(kind, &mut object).await?
            }
            Some(_) if !replace => return Ok(()),
            Some(stored) => {
                let mut object = wanted.clone();
                let metadata = stored.object.get("metadata").cloned().unwrap_or_default();
                object.set_at(&["metadata"], metadata);
                if object == stored.object {
                    return Ok(());
                }
                storage.replace(kind, &mut object, stored.revision).await?
            }
        };
        if let Outcome::Done(_) = outcome {
            tracing::info!(kind = kind.kind, name = NAME, "written");
            return Ok(());
        }
    }
    Err(ApiError::modified(kind.resource(), wanted.name()))
}
