//! What of the Nodes counts here.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// A node as others reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeModel {
    /// Its name.
    pub name: String,
    /// When it was registered: of two that claim one network the older has it.
    pub created: Option<Time>,
    /// Its pods' networks.
    pub networks: Vec<IpNet>,
    /// Its addresses inside of the cluster.
    pub addresses: Vec<IpAddr>,
}

impl NodeModel {
    /// Reads a Node; what cannot be read is not there.
    pub fn of(node: &Node) -> Self {
        let spec = node.spec.as_ref();
        let several = spec.and_then(|spec| spec.pod_cidrs.as_deref());
        let one = spec.and_then(|spec| spec.pod_cidr.as_ref());
        let texts = match several {
            Some(texts) if !texts.is_empty() => texts,
            _ => one.map_or(&[][..], std::slice::from_ref),
        };
        let networks = texts.iter().filter_map(|text| text.parse::<IpNet>().ok());
        let status = node.status.as_ref();
        let addresses = status.and_then(|status| status.addresses.as_deref());
        let internal = addresses
            .unwrap_or_default()
            .iter()
            .filter(|address| address.type_ == "InternalIP")
            .filter_map(|address| address.address.parse::<IpAddr>().ok())
            .filter(|address| !address.is_loopback() && !address.is_unspecified());
        NodeModel {
            name: node.metadata.name.clone().unwrap_or_default(),
            created: node.metadata.creation_timestamp.clone(),
            networks: networks.map(|network| network.trunc()).collect(),
            addresses: internal.collect(),
        }
    }
}

/// All nodes.
#[derive(Debug, Clone, Default)]
pub struct NodeIndex {
    nodes: BTreeMap<String, NodeModel>,
}

impl NodeIndex {
    /// A node is new or changed; whether anything here changed.
    pub fn set(&mut self, node: &Node) -> bool {
        let model = NodeModel::of(node);
        if self.nodes.get(&model.name) == Some(&model) {
            return false;
        }
        self.nodes.insert(model.name.clone(), model);
        true
    }

    /// A node is gone; whether anything here changed.
    pub fn remove(&mut self, name: &str) -> bool {
        self.nodes.remove(name).is_some()
    }

    /// One node.
    pub fn get(&self, name: &str) -> Option<&NodeModel> {
        self.nodes.get(name)
    }

    /// All nodes but this one, the oldest first.
    pub fn others(&self, own: &str) -> impl Iterator<Item = &NodeModel> {
        let mut others: Vec<&NodeModel> = self
            .nodes
            .values()
            .filter(|node| node.name != own)
            .collect();
        others.sort_by(|a, b| (&a.created, &a.name).cmp(&(&b.created, &b.name)));
        others.into_iter()
    }
}
