//! A Service's port as netd sees it, out of API objects that are not trusted to be well formed:
//! what cannot be read is left out.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Service, ServicePort as ApiPort};
use k8s_openapi::api::discovery::v1::EndpointSlice;

/// Kubernetes' default of `sessionAffinityConfig.clientIP.timeoutSeconds`.
const DEFAULT_AFFINITY_TIMEOUT_S: i32 = 10_800;
/// A Service that another proxy serves.
const OTHER_PROXY_LABEL: &str = "service.kubernetes.io/service-proxy-name";
/// Names the Service of an EndpointSlice.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// Transport protocols of Services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// From the API's word; absent means TCP.
    pub fn parse(text: Option<&str>) -> Option<Self> {
        match text {
            None | Some("TCP") => Some(Protocol::Tcp),
            Some("UDP") => Some(Protocol::Udp),
            Some("SCTP") => Some(Protocol::Sctp),
            Some(_) => None,
        }
    }

    /// nft's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

/// Namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceKey {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl std::fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl ServiceKey {
    /// Of a Service.
    pub fn of(service: &Service) -> Self {
        ServiceKey {
            namespace: service.metadata.namespace.clone().unwrap_or_default(),
            name: service.metadata.name.clone().unwrap_or_default(),
        }
    }

    /// Of the Service that an EndpointSlice belongs to.
    pub fn of_slice(slice: &EndpointSlice) -> Option<Self> {
        Some(ServiceKey {
            namespace: slice.metadata.namespace.clone().unwrap_or_default(),
            name: slice
                .metadata
                .labels
                .as_ref()?
                .get(SERVICE_NAME_LABEL)?
                .clone(),
        })
    }
}

/// One port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// `ports[].name`, empty for the only port.
    pub name: String,
    /// The protocol.
    pub protocol: Protocol,
    /// The port that clients use.
    pub port: u16,
    /// The port on every node, if any.
    pub node_port: Option<u16>,
}

/// A Service with addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceModel {
    /// Which.
    pub key: ServiceKey,
    /// Its cluster addresses.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// `status.loadBalancer.ingress[].ip`, those of mode VIP.
    pub load_balancer_ips: Vec<IpAddr>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// How long a client keeps its endpoint.
    pub affinity: Option<Duration>,
    /// `internalTrafficPolicy: Local`.
    pub internal_local: bool,
    /// `externalTrafficPolicy: Local`.
    pub external_local: bool,
    /// `loadBalancerSourceRanges`; empty means everyone.
    pub source_ranges: Vec<IpNet>,
    /// Where the load balancer asks whether this node has endpoints.
    pub health_check_port: Option<u16>,
}

fn addresses<'a>(texts: impl IntoIterator<Item = &'a String>) -> Vec<IpAddr> {
    texts.into_iter().filter_map(|ip| ip.parse().ok()).collect()
}

fn positive_port(port: Option<i32>) -> Option<u16> {
    port.and_then(|port| u16::try_from(port).ok())
        .filter(|port| *port != 0)
}

fn service_port(port: &ApiPort) -> Option<ServicePort> {
    Some(ServicePort {
        name: port.name.clone().unwrap_or_default(),
        protocol: Protocol::parse(port.protocol.as_deref())?,
        port: positive_port(Some(port.port))?,
        node_port: positive_port(port.node_port),
    })
}

impl ServiceModel {
    /// The model of a Service, unless it has no addresses (headless, ExternalName) or belongs to
    /// another proxy.
    pub fn of(service: &Service) -> Option<Self> {
        let spec = service.spec.as_ref()?;
        let labels = service.metadata.labels.as_ref();
        if spec.type_.as_deref() == Some("ExternalName")
            || labels.is_some_and(|labels| labels.contains_key(OTHER_PROXY_LABEL))
        {
            return None;
        }
        let mut cluster_ips = addresses(spec.cluster_ips.iter().flatten());
        if cluster_ips.is_empty() {
            cluster_ips = addresses(&spec.cluster_ip);
        }
        if cluster_ips.is_empty() {
            return None;
        }
        let client_ip = spec.session_affinity.as_deref() == Some("ClientIP");
        let timeout = spec
            .session_affinity_config
            .as_ref()
            .and_then(|config| config.client_ip.as_ref()?.timeout_seconds)
            .unwrap_or(DEFAULT_AFFINITY_TIMEOUT_S);
        let external_local = spec.external_traffic_policy.as_deref() == Some("Local");
        Some(ServiceModel {
            key: ServiceKey::of(service),
            cluster_ips,
            external_ips: addresses(spec.external_ips.iter().flatten()),
            load_balancer_ips: load_balancer_ips(service),
            ports: spec
                .ports
                .iter()
                .flatten()
                .filter_map(service_port)
                .collect(),
            affinity: client_ip.then(|| Duration::from_secs(timeout.max(1).unsigned_abs().into())),
            internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
            external_local,
            source_ranges: source_ranges(spec.load_balancer_source_ranges.as_deref()),
            health_check_port: positive_port(spec.health_check_node_port)
                .filter(|_| external_local),
        })
    }

    /// Whether it serves the address' family.
    pub fn serves(&self, ipv6: bool) -> bool {
        self.cluster_ips.iter().any(|ip| ip.is_ipv6() == ipv6)
    }
}

fn load_balancer_ips(service: &Service) -> Vec<IpAddr> {
    let status = service.status.as_ref();
    let ingress = status.and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
    ingress
        .into_iter()
        .flatten()
        .filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"))
        .filter_map(|ingress| ingress.ip.as_ref()?.parse().ok())
        .collect()
}

/// A range that cannot be read lets nobody in, rather than everybody: when nothing is left of a
/// list that was not empty, an address that no client has stands for it.
fn source_ranges(ranges: Option<&[String]>) -> Vec<IpNet> {
    let ranges = ranges.unwrap_or_default();
    let read: Vec<IpNet> = ranges
        .iter()
        .filter_map(|range| range.trim().parse().ok())
        .map(|range: IpNet| range.trunc())
        .collect();
    if read.is_empty() && !ranges.is_empty() {
        return vec![IpNet::from(IpAddr::from([255, 255, 255, 255]))];
    }
    read
}

/// One endpoint of one port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Takes new connections.
    pub ready: bool,
    /// Would answer, even though it is going away.
    pub serving: bool,
    /// Is going away.
    pub terminating: bool,
    /// Runs on this node.
    pub local: bool,
    /// Nodes that are to use it; empty where nothing is said.
    pub hinted_nodes: Vec<String>,
    /// Zones that are to use it; empty where nothing is said.
    pub hinted_zones: Vec<String>,
}

/// The endpoints of one port of a Service in its slices.
pub fn endpoints<'a>(
    slices: impl IntoIterator<Item = &'a EndpointSlice>,
    port_name: &str,
    protocol: Protocol,
    node_name: &str,
) -> Vec<Endpoint> {
    let mut found = Vec::new();
    for slice in slices {
        // FQDN endpoints have no address to send to.
        if slice.address_type == "FQDN" {
            continue;
        }
        let ports = slice.ports.iter().flatten().filter(|port| {
            port.name.as_deref().unwrap_or_default() == port_name
                && Protocol::parse(port.protocol.as_deref()) == Some(protocol)
        });
        for port in ports.filter_map(|port| positive_port(port.port)) {
            for endpoint in slice.endpoints.iter().flatten() {
                // All addresses of an endpoint are the same one; the first is used.
                let Some(address) = endpoint.addresses.first().and_then(|ip| ip.parse().ok())
                else {
                    continue;
                };
                let conditions = endpoint.conditions.clone().unwrap_or_default();
                let ready = conditions.ready.unwrap_or(true);
                let hints = endpoint.hints.as_ref();
                let nodes = hints.and_then(|hints| hints.for_nodes.as_ref());
                let zones = hints.and_then(|hints| hints.for_zones.as_ref());
                found.push(Endpoint {
                    address,
                    port,
                    ready,
                    serving: conditions.serving.unwrap_or(ready),
                    terminating: conditions.terminating.unwrap_or(false),
                    local: endpoint.node_name.as_deref() == Some(node_name),
                    hinted_nodes: nodes
                        .into_iter()
                        .flatten()
                        .map(|n| n.name.clone())
                        .collect(),
                    hinted_zones: zones
                        .into_iter()
                        .flatten()
                        .map(|z| z.name.clone())
                        .collect(),
                });
            }
        }
    }
    // The same address in two slices, for a moment, while the controller moves it: the readier one.
    found.sort_by_key(|e| (e.address, e.port, !e.ready, !e.serving));
    found.dedup_by_key(|e| (e.address, e.port));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(spec: serde_json::Value) -> Service {
        serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "a"}, "spec": spec}))
            .unwrap()
    }

    #[test]
    fn headless_and_external_names_have_no_model() {
        for spec in [
            json!({"clusterIP": "None", "clusterIPs": ["None"]}),
            json!({"type": "ExternalName", "externalName": "example.org"}),
            json!({}),
        ] {
            assert_eq!(ServiceModel::of(&service(spec)), None);
        }
    }

    #[test]
    fn unreadable_source_ranges_let_nobody_in() {
        let of = |ranges: serde_json::Value| {
            let spec = json!({"clusterIP": "10.43.0.5", "loadBalancerSourceRanges": ranges});
            ServiceModel::of(&service(spec)).unwrap().source_ranges
        };
        assert!(of(json!([])).is_empty());
        assert_eq!(of(json!([" 10.1.2.3/8"])), ["10.0.0.0/8".parse().unwrap()]);
        assert_eq!(of(json!(["all"])), ["255.255.255.255/32".parse().unwrap()]);
    }

    #[test]
    fn conditions_default_as_the_api_says() {
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": {"name": "web-1"}, "addressType": "IPv4",
            "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
            "endpoints": [
                {"addresses": ["10.42.0.5"], "nodeName": "n1"},
                {"addresses": ["10.42.0.6"], "conditions": {"ready": false, "serving": true, "terminating": true}},
                {"addresses": ["nonsense"]},
            ],
        }))
        .unwrap();
        let found = endpoints([&slice], "", Protocol::Tcp, "n1");
        let flags: Vec<_> = found
            .iter()
            .map(|e| (e.ready, e.serving, e.terminating, e.local))
            .collect();
        assert_eq!(
            flags,
            [(true, true, false, true), (false, true, true, false)]
        );
        assert!(endpoints([&slice], "", Protocol::Udp, "n1").is_empty());
        assert!(endpoints([&slice], "http", Protocol::Tcp, "n1").is_empty());
    }

    #[test]
    fn an_address_in_two_slices_counts_once_and_ready() {
        let slice = |ready: bool| -> EndpointSlice {
            serde_json::from_value(json!({
                "metadata": {"name": "web-1"}, "addressType": "IPv4",
                "ports": [{"port": 8080}],
                "endpoints": [{"addresses": ["10.42.0.5"], "conditions": {"ready": ready}}],
            }))
            .unwrap()
        };
        let found = endpoints([&slice(false), &slice(true)], "", Protocol::Tcp, "n1");
        assert_eq!(found.len(), 1);
        assert!(found[0].ready);
    }
}
