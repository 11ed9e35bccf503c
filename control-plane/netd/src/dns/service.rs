//! The Service `kube-dns`: it holds the cluster DNS address, so that no other Service is given it,
//! and tells where cluster DNS is.
//!
//! It has no endpoints: every node answers on the address itself (see [`super::server`]).

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::json;

use super::forward::PORT;

/// Where clients look for it.
pub const NAMESPACE: &str = "kube-system";
/// What they call it.
pub const NAME: &str = "kube-dns";
/// Pause between two tries.
const RETRY: Duration = Duration::from_secs(5);
const CONFLICT: u16 = 409;
const UNPROCESSABLE: u16 = 422;

fn object(address: IpAddr) -> Result<Service, serde_json::Error> {
    serde_json::from_value(json!({
        "metadata": {
            "name": NAME,
            "namespace": NAMESPACE,
            "labels": {"k8s-app": NAME, "kubernetes.io/cluster-service": "true"},
        },
        "spec": {
            "clusterIP": address,
            "ports": [
                {"name": "dns", "port": PORT, "protocol": "UDP"},
                {"name": "dns-tcp", "port": PORT, "protocol": "TCP"},
            ],
        },
    }))
}

/// Creates the Service unless there is one of its name; tries until that is known.
pub async fn publish(client: Client, address: IpAddr) {
    let api: Api<Service> = Api::namespaced(client, NAMESPACE);
    let service = match object(address) {
        Ok(service) => service,
        Err(error) => return tracing::error!(%error, "the Service of cluster DNS"),
    };
    loop {
        match api.create(&PostParams::default(), &service).await {
            Ok(_) => return tracing::info!(%address, "the Service of cluster DNS is there"),
            Err(kube::Error::Api(status)) if status.code == CONFLICT => return,
            // Somebody else has the address.
            Err(kube::Error::Api(status)) if status.code == UNPROCESSABLE => {
                return tracing::warn!(%address, error = %status.message, "no Service of cluster DNS");
            }
            Err(error) => tracing::debug!(%error, "the Service of cluster DNS; trying again"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_asks_for_the_dns_address() {
        let spec = object("10.43.0.10".parse().unwrap()).unwrap().spec.unwrap();
        assert_eq!(spec.cluster_ip.as_deref(), Some("10.43.0.10"));
        assert_eq!(spec.selector, None);
        assert_eq!(spec.ports.unwrap().len(), 2);
    }
}
