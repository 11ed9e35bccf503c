//! Nodes with what is on them, kept up to date by events.

use std::{collections::HashMap, sync::Arc};

use indexmap::IndexMap;
use k8s_openapi::api::core::v1::Node;

use crate::{
    pod::{HostPort, PodInfo},
    resources::Resources,
};

/// A node and the sum of its pods.
#[derive(Debug, Default)]
pub struct NodeInfo {
    /// The object; `None` while only pods bound to it are known.
    pub node: Option<Node>,
    /// What it offers.
    pub allocatable: Resources,
    /// Sum of its pods' requests; `pods` counts them.
    pub requested: Resources,
    /// Sum with defaults, to compare nodes by.
    pub compared: Resources,
    /// Ports its pods have.
    pub host_ports: Vec<HostPort>,
    pods: usize,
}

impl NodeInfo {
    /// Name.
    pub fn name(&self) -> &str {
        self.node
            .as_ref()
            .and_then(|node| node.metadata.name.as_deref())
            .unwrap_or_default()
    }

    fn add(&mut self, pod: &PodInfo) {
        self.requested.add(&pod.requests);
        self.requested.pods += 1;
        self.compared.add(&pod.compared_requests);
        self.host_ports.extend(pod.host_ports.iter().cloned());
        self.pods += 1;
    }

    fn remove(&mut self, pod: &PodInfo) {
        self.requested.subtract(&pod.requests);
        self.requested.pods -= 1;
        self.compared.subtract(&pod.compared_requests);
        for port in &pod.host_ports {
            if let Some(index) = self.host_ports.iter().position(|own| own == port) {
                self.host_ports.swap_remove(index);
            }
        }
        self.pods -= 1;
    }
}

#[derive(Debug)]
struct Placed {
    info: Arc<PodInfo>,
    node: Arc<str>,
    /// We decided it and have not seen it written yet.
    assumed: bool,
}

/// What a change of a node means to pods that found no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeChange {
    /// Nothing that a plugin looks at.
    None,
    /// It is new.
    Added,
    /// Resources, labels, taints or schedulability differ.
    Updated,
}

/// All nodes and placed pods.
#[derive(Debug, Default)]
pub struct Cache {
    nodes: IndexMap<Arc<str>, NodeInfo>,
    pods: HashMap<Arc<str>, Placed>,
    real_nodes: usize,
}

impl Cache {
    /// Nodes that exist.
    pub fn node_count(&self) -> usize {
        self.real_nodes
    }

    /// All entries, also those of nodes that only pods name. For indexed walks.
    pub fn entries(&self) -> &IndexMap<Arc<str>, NodeInfo> {
        &self.nodes
    }

    /// One node.
    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.nodes.get(name).filter(|info| info.node.is_some())
    }

    /// Whether the pod has a place, assumed or written.
    pub fn is_placed(&self, uid: &str) -> bool {
        self.pods.contains_key(uid)
    }

    /// A node was created or changed.
    pub fn apply_node(&mut self, node: Node) -> NodeChange {
        let Some(name) = node.metadata.name.as_deref() else {
            return NodeChange::None;
        };
        let info = self.nodes.entry(name.into()).or_default();
        let allocatable = node
            .status
            .as_ref()
            .and_then(|status| status.allocatable.as_ref());
        let allocatable = Resources::from_list(allocatable);
        let change = match &info.node {
            None => {
                self.real_nodes += 1;
                NodeChange::Added
            }
            Some(old)
                if old.metadata.labels == node.metadata.labels
                    && old.spec == node.spec
                    && info.allocatable == allocatable =>
            {
                NodeChange::None
            }
            Some(_) => NodeChange::Updated,
        };
        info.allocatable = allocatable;
        info.node = Some(node);
        change
    }

    /// A node was deleted.
    pub fn delete_node(&mut self, name: &str) {
        let Some(info) = self.nodes.get_mut(name) else {
            return;
        };
        if info.node.take().is_some() {
            self.real_nodes -= 1;
        }
        info.allocatable = Resources::default();
        self.drop_if_unused(name);
    }

    /// Names of the nodes that exist.
    pub fn node_names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.nodes
            .iter()
            .filter(|(_, info)| info.node.is_some())
            .map(|(name, _)| name)
    }

    /// Uids of the placed pods.
    pub fn pod_uids(&self) -> impl Iterator<Item = &Arc<str>> {
        self.pods.keys()
    }

    fn drop_if_unused(&mut self, name: &str) {
        if self
            .nodes
            .get(name)
            .is_some_and(|info| info.node.is_none() && info.pods == 0)
        {
            self.nodes.swap_remove(name);
        }
    }

    /// A pod was created or changed. True when that gave room back.
    pub fn apply_pod(&mut self, info: &Arc<PodInfo>) -> bool {
        let target = info.node_name().filter(|_| !info.is_terminal());
        match target {
            Some(node) => {
                let smaller = self
                    .remove(&info.uid)
                    .is_some_and(|old| *old.node != *node || old.info.requests != info.requests);
                self.insert(info.clone(), node.into(), false);
                smaller
            }
            None if info.is_terminal() => self.remove(&info.uid).is_some(),
            // Not written yet: what we assumed stays.
            None => false,
        }
    }

    /// A pod was deleted. True when it had a place.
    pub fn delete_pod(&mut self, uid: &str) -> bool {
        self.remove(uid).is_some()
    }

    /// We decided that the pod goes there.
    pub fn assume(&mut self, info: Arc<PodInfo>, node: Arc<str>) {
        self.remove(&info.uid.clone());
        self.insert(info, node, true);
    }

    /// The decision came to nothing. A place that was meanwhile seen written stays.
    pub fn forget(&mut self, uid: &str) {
        if self.pods.get(uid).is_some_and(|placed| placed.assumed) {
            self.remove(uid);
        }
    }

    fn insert(&mut self, info: Arc<PodInfo>, node: Arc<str>, assumed: bool) {
        self.nodes.entry(node.clone()).or_default().add(&info);
        self.pods.insert(
            info.uid.clone(),
            Placed {
                info,
                node,
                assumed,
            },
        );
    }

    fn remove(&mut self, uid: &str) -> Option<Placed> {
        let placed = self.pods.remove(uid)?;
        if let Some(node) = self.nodes.get_mut(&placed.node) {
            node.remove(&placed.info);
        }
        self.drop_if_unused(&placed.node);
        Some(placed)
    }
}
