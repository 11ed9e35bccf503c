//! The settings of the pods' networks: the cluster's, and the nodes' shares of it.

use std::fmt;

use anyhow::{Context, bail};
use hull_controllers::node_ipam::{DEFAULT_MASK, DEFAULT_MASK_IPV6, NodeCidrs};
use hull_netd::NodeLinks;
use ipnet::IpNet;

use crate::settings::Settings;

/// The cluster's network for pods.
const DEFAULT_NETWORK: &str = "10.42.0.0/16";

/// See the module.
#[derive(Debug, Clone)]
pub struct ClusterNetwork {
    /// The cluster's networks, with the prefix length of the nodes' shares.
    clusters: Vec<(IpNet, u8)>,
    /// Nodes are given their shares.
    allocate: bool,
    /// This node's own, where they are configured.
    pub own: Vec<IpNet>,
    /// How pods of different nodes reach each other.
    pub links: NodeLinks,
}

impl ClusterNetwork {
    /// From what is written.
    pub fn of(settings: &Settings) -> anyhow::Result<Self> {
        let default = [DEFAULT_NETWORK.to_owned()];
        let written = match settings.cluster_cidr.is_empty() {
            true => &default[..],
            false => &settings.cluster_cidr,
        };
        let mask = |network: &IpNet| match network {
            IpNet::V4(_) => settings.node_cidr_mask_size.unwrap_or(DEFAULT_MASK),
            IpNet::V6(_) => settings
                .node_cidr_mask_size_ipv6
                .unwrap_or(DEFAULT_MASK_IPV6),
        };
        let clusters: Vec<(IpNet, u8)> = networks("cluster_cidr", written)?
            .into_iter()
            .map(|network| (network, mask(&network)))
            .collect();
        let network = ClusterNetwork {
            clusters,
            allocate: settings.allocate_node_cidrs.unwrap_or(true),
            own: networks("pod_cidr", &settings.pod_cidr)?,
            links: match &settings.pod_network {
                Some(text) => text.parse().context("pod_network")?,
                None => NodeLinks::default(),
            },
        };
        NodeCidrs::new(&network.clusters, Vec::new()).context("cluster_cidr")?;
        Ok(network)
    }

    /// Everything that pods' addresses are from.
    pub fn all(&self) -> Vec<IpNet> {
        let clusters = self.clusters.iter().map(|(network, _)| *network);
        clusters.chain(self.own.iter().copied()).collect()
    }

    /// What the controllers give to nodes; `None`: nothing.
    pub fn node_cidrs(&self, service_networks: &[IpNet]) -> anyhow::Result<Option<NodeCidrs>> {
        if !self.allocate {
            return Ok(None);
        }
        let cidrs = NodeCidrs::new(&self.clusters, service_networks.to_vec());
        Ok(Some(cidrs.context("cluster_cidr")?))
    }
}

impl fmt::Display for ClusterNetwork {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.all().iter().map(ToString::to_string).collect();
        formatter.write_str(&all.join(", "))
    }
}

/// At most one network per IP version.
pub fn networks(key: &str, texts: &[String]) -> anyhow::Result<Vec<IpNet>> {
    let mut networks: Vec<IpNet> = Vec::new();
    for text in texts {
        let network: IpNet = text.parse().with_context(|| format!("{key} {text:?}"))?;
        let version = network.addr().is_ipv6();
        if networks
            .iter()
            .any(|other| other.addr().is_ipv6() == version)
        {
            bail!("{key} {text:?}: there is another network of the same IP version");
        }
        networks.push(network.trunc());
    }
    Ok(networks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(settings: Settings) -> anyhow::Result<ClusterNetwork> {
        ClusterNetwork::of(&settings)
    }

    #[test]
    fn each_ip_version_has_a_network_and_a_share() {
        let network = of(Settings {
            cluster_cidr: vec!["10.0.0.0/12".into(), "fd42::/48".into()],
            node_cidr_mask_size: Some(26),
            ..Default::default()
        })
        .unwrap();
        let clusters = [("10.0.0.0/12", 26), ("fd42::/48", 64)];
        let clusters = clusters.map(|(text, mask)| (text.parse().unwrap(), mask));
        assert_eq!(network.clusters, clusters);
        assert!(network.node_cidrs(&[]).unwrap().is_some());
    }

    #[test]
    fn a_nodes_own_network_counts_beside_the_clusters() {
        let network = of(Settings {
            pod_cidr: vec!["10.50.0.0/24".into()],
            allocate_node_cidrs: Some(false),
            ..Default::default()
        })
        .unwrap();
        let all = ["10.42.0.0/16", "10.50.0.0/24"].map(|text| text.parse().unwrap());
        assert_eq!(network.all(), all);
        assert!(network.node_cidrs(&[]).unwrap().is_none());
    }

    #[test]
    fn impossible_networks_are_refused() {
        let refused = |cluster: &[&str], mask| {
            let settings = Settings {
                cluster_cidr: cluster.iter().map(ToString::to_string).collect(),
                node_cidr_mask_size: mask,
                ..Default::default()
            };
            format!("{:#}", of(settings).unwrap_err())
        };
        assert!(refused(&["10.42.0.0"], None).contains("cluster_cidr"));
        assert!(refused(&["10.42.0.0/16", "10.43.0.0/16"], None).contains("same IP version"));
        assert!(refused(&["10.42.0.0/16"], Some(8)).contains("cannot be cut"));
        assert!(refused(&["10.0.0.0/8"], Some(28)).contains("2^16"));
    }
}
