//! What netd is told at its start.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;

use crate::nodes::NodeLinks;

/// The service range of a cluster that says nothing else.
pub const DEFAULT_SERVICE_NETWORK: &str = "10.43.0.0/16";
/// Where libcni (containerd, CRI-O) keeps its records.
const LIBCNI_RECORDS: &str = "/var/lib/cni/results";
/// The cluster's domain.
pub const DEFAULT_CLUSTER_DOMAIN: &str = "cluster.local";

/// Asked now and then, because it may change while netd runs.
#[derive(Clone)]
pub struct OwnNetwork(Arc<dyn Fn() -> bool + Send + Sync>);

impl OwnNetwork {
    /// From what answers.
    pub fn new(ask: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        OwnNetwork(Arc::new(ask))
    }

    pub(crate) fn ask(&self) -> bool {
        (self.0)()
    }
}

impl fmt::Debug for OwnNetwork {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("OwnNetwork")
    }
}

/// Settings of one node's netd.
#[derive(Debug, Clone)]
pub struct NetdConfig {
    /// The node's name in the API.
    pub node_name: String,
    /// The node's addresses.
    pub node_ips: Vec<IpAddr>,
    /// Networks of pods, on all nodes.
    pub pod_networks: Vec<IpNet>,
    /// Networks of Services.
    pub service_networks: Vec<IpNet>,
    /// Directories of the runtime's CNI records; each may be missing.
    pub cni_records: Vec<PathBuf>,
    /// Bridges of pods, guarded before the first pod is seen on them.
    pub bridges: Vec<String>,
    /// How pods of other nodes are reached.
    pub node_links: NodeLinks,
    /// Whether the pods' network is Hull's own; where it is not, `NodeLinks::Auto` leaves it
    /// alone.
    pub own_network: OwnNetwork,
    /// The cluster's domain.
    pub cluster_domain: String,
    /// Servers for the names below a domain.
    pub stub_domains: Vec<(String, Vec<SocketAddr>)>,
    /// Servers for names that are not the cluster's; empty: those of `resolv_conf`.
    pub dns_upstreams: Vec<SocketAddr>,
    /// The node's resolver configuration.
    pub resolv_conf: PathBuf,
    /// Where `/metrics`, `/healthz` and `/readyz` are served; `None`: nowhere.
    pub metrics_listen: Option<SocketAddr>,
    /// Multiplies every time-out that assumes a machine's speed.
    pub timeout_scale: f64,
}

impl NetdConfig {
    /// Defaults for a node.
    pub fn new(node_name: impl Into<String>, node_ips: Vec<IpAddr>) -> Self {
        NetdConfig {
            node_name: node_name.into(),
            node_ips,
            pod_networks: Vec::new(),
            service_networks: DEFAULT_SERVICE_NETWORK.parse().into_iter().collect(),
            cni_records: vec![LIBCNI_RECORDS.into()],
            bridges: Vec::new(),
            node_links: NodeLinks::default(),
            own_network: OwnNetwork::new(|| true),
            cluster_domain: DEFAULT_CLUSTER_DOMAIN.to_string(),
            stub_domains: Vec::new(),
            dns_upstreams: Vec::new(),
            resolv_conf: "/etc/resolv.conf".into(),
            metrics_listen: None,
            timeout_scale: 1.0,
        }
    }
}

/// The DNS address is this one, counted from the start of the service network.
const DNS_OFFSET: u32 = 10;

/// The cluster DNS address in a service network: its tenth.
pub fn dns_address(network: IpNet) -> Option<IpAddr> {
    let address = match network.network() {
        IpAddr::V4(base) => IpAddr::from(std::net::Ipv4Addr::from(
            u32::from(base).checked_add(DNS_OFFSET)?,
        )),
        IpAddr::V6(base) => IpAddr::from(std::net::Ipv6Addr::from(
            u128::from(base).checked_add(DNS_OFFSET.into())?,
        )),
    };
    network.contains(&address).then_some(address)
}

impl NetdConfig {
    /// Service addresses that this process answers itself: cluster DNS.
    pub fn own_addresses(&self) -> Vec<IpAddr> {
        self.service_networks
            .iter()
            .filter_map(|network| dns_address(*network))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_address_is_the_tenth_of_the_service_network() {
        let of = |text: &str| dns_address(text.parse().unwrap());
        assert_eq!(of("10.43.0.0/16"), Some("10.43.0.10".parse().unwrap()));
        assert_eq!(of("fd43::/108"), Some("fd43::a".parse().unwrap()));
        assert_eq!(of("10.43.0.0/30"), None);
    }
}
