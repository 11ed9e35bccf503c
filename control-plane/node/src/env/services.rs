//! Service environment variables: `KUBERNETES_SERVICE_HOST` and its kin, for the Services of a
//! pod's namespace that exist when its container starts.

use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Pod, Service, ServicePort};
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;

use super::ConfigError;

/// Where the API server's own Service is: every pod is told of it.
const MASTER_NAMESPACE: &str = "default";
const MASTER_SERVICE: &str = "kubernetes";

/// The cluster's Services, followed by a watch.
#[derive(Clone)]
pub struct Services {
    store: Store<Service>,
    timeout: Duration,
}

impl Services {
    /// Follows the Services until `shutdown`; `timeout` bounds the wait for the first answer.
    pub fn start(client: Client, timeout: Duration, shutdown: CancellationToken) -> Self {
        let (store, writer) = reflector::store();
        let api: Api<Service> = Api::all(client);
        let stream = watcher(api, watcher::Config::default())
            .default_backoff()
            // Only addresses and ports are used: the rest would cost memory for each Service.
            .modify(|service| {
                service.metadata.managed_fields = None;
                service.metadata.annotations = None;
                service.status = None;
            });
        let stream = reflector::reflector(writer, stream);
        tokio::spawn(async move {
            let mut stream = std::pin::pin!(stream);
            loop {
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    event = stream.next() => match event {
                        Some(Ok(_)) => {}
                        Some(Err(error)) => {
                            tracing::warn!(%error, "service watch interrupted, trying again");
                        }
                        None => return,
                    }
                }
            }
        });
        Services { store, timeout }
    }

    /// The variables of a pod's containers, by name of their Service.
    pub async fn environment(&self, pod: &Pod) -> Result<Vec<(String, String)>, ConfigError> {
        let ready = tokio::time::timeout(self.timeout, self.store.wait_until_ready());
        if !matches!(ready.await, Ok(Ok(()))) {
            return Err(ConfigError::Invalid(
                "services have not yet been read at least once, cannot construct envvars".into(),
            ));
        }
        let services = self.store.state();
        Ok(variables(pod, services.iter().map(AsRef::as_ref)))
    }
}

/// The variables that a pod gets from these Services.
fn variables<'s>(pod: &Pod, services: impl Iterator<Item = &'s Service>) -> Vec<(String, String)> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let links = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.enable_service_links)
        .unwrap_or(true);
    let mut wanted: Vec<&Service> = services
        .filter(|service| {
            let found = service.metadata.namespace.as_deref().unwrap_or_default();
            let master = found == MASTER_NAMESPACE
                && service.metadata.name.as_deref() == Some(MASTER_SERVICE);
            master || (links && found == namespace)
        })
        .collect();
    // One of the pod's own namespace hides the API server's of the same name.
    wanted.sort_by_key(|service| {
        let own = service.metadata.namespace.as_deref() == Some(namespace);
        (service.metadata.name.clone(), links && own)
    });
    let mut found = Vec::new();
    for service in wanted {
        add_service(&mut found, service);
    }
    found
}

fn add_service(found: &mut Vec<(String, String)>, service: &Service) {
    let Some(spec) = &service.spec else { return };
    let address = spec.cluster_ip.as_deref().unwrap_or_default();
    let ports: &[ServicePort] = spec.ports.as_deref().unwrap_or_default();
    let (Some(name), Some(first)) = (&service.metadata.name, ports.first()) else {
        return;
    };
    if address.is_empty() || address == "None" {
        return;
    }
    let name = variable_name(name);
    let mut set = |suffix: &str, value: String| found.push((format!("{name}{suffix}"), value));
    set("_SERVICE_HOST", address.to_owned());
    set("_SERVICE_PORT", first.port.to_string());
    for port in ports {
        if let Some(port_name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            let suffix = format!("_SERVICE_PORT_{}", variable_name(port_name));
            set(&suffix, port.port.to_string());
        }
    }
    let host = if address.contains(':') {
        format!("[{address}]")
    } else {
        address.to_owned()
    };
    for (index, port) in ports.iter().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let (lower, number) = (protocol.to_lowercase(), port.port);
        let url = format!("{lower}://{host}:{number}");
        if index == 0 {
            set("_PORT", url.clone());
        }
        let prefix = format!("_PORT_{number}_{protocol}");
        set(&prefix, url);
        set(&format!("{prefix}_PROTO"), lower);
        set(&format!("{prefix}_PORT"), number.to_string());
        set(&format!("{prefix}_ADDR"), address.to_owned());
    }
}

fn variable_name(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(namespace: &str, name: &str, address: &str, ports: serde_json::Value) -> Service {
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": namespace},
            "spec": {"clusterIP": address, "ports": ports}}))
        .unwrap()
    }

    fn names_of(links: Option<bool>) -> Vec<(String, String)> {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"namespace": "d"},
            "spec": {"containers": [], "enableServiceLinks": links}}))
        .unwrap();
        let services = [
            service(
                "default",
                "kubernetes",
                "10.43.0.1",
                json!([{"name": "https", "port": 443}]),
            ),
            service(
                "d",
                "my-db",
                "10.43.0.9",
                json!([
                {"name": "sql", "port": 5432}, {"name": "stats", "port": 99, "protocol": "UDP"}]),
            ),
            service("d", "headless", "None", json!([{"port": 1}])),
            service("other", "web", "10.43.0.3", json!([{"port": 80}])),
            service("d", "six", "fd00::1", json!([{"port": 80}])),
        ];
        variables(&pod, services.iter())
    }

    #[test]
    fn services_of_the_namespace_and_the_api_server_are_variables() {
        let found = names_of(None);
        let value = |name: &str| {
            let found = found.iter().find(|(key, _)| key == name);
            found.map(|(_, value)| value.as_str())
        };
        assert_eq!(value("KUBERNETES_SERVICE_HOST"), Some("10.43.0.1"));
        assert_eq!(value("KUBERNETES_SERVICE_PORT_HTTPS"), Some("443"));
        assert_eq!(value("MY_DB_SERVICE_PORT"), Some("5432"));
        assert_eq!(value("MY_DB_PORT"), Some("tcp://10.43.0.9:5432"));
        assert_eq!(value("MY_DB_PORT_99_UDP_PROTO"), Some("udp"));
        assert_eq!(value("MY_DB_PORT_99_UDP_ADDR"), Some("10.43.0.9"));
        assert_eq!(value("SIX_PORT"), Some("tcp://[fd00::1]:80"));
        assert_eq!(value("HEADLESS_SERVICE_HOST"), None);
        assert_eq!(value("WEB_SERVICE_HOST"), None);
    }

    #[test]
    fn without_service_links_only_the_api_server_is_told() {
        let found = names_of(Some(false));
        assert!(!found.is_empty());
        assert!(
            found
                .iter()
                .all(|(name, _)| name.starts_with("KUBERNETES_"))
        );
    }
}
