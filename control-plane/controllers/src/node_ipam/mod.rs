//! Gives each node a network for its pods: `spec.podCIDR`, `spec.podCIDRs`.
//!
//! ```text
//!  cluster networks ─► cidr_set: blocks of one size
//!                         ▲ take, occupy, release
//!  Node with networks ──► assignments (by uid) ──► Node without: patch of its spec
//!  Node gone ───────────►   released
//! ```
//! What nodes have already is adopted as the informer tells of it, before the first block is
//! given out. A block that was meant for a node stays its own until the node is seen with it, is
//! seen with another, or is gone: an answer that got lost gives nothing away twice.
//!
//! A node that came with a network larger than its share does not get it reserved: it could have
//! the whole cluster's. The parts of such a network go to other nodes last.

mod assignments;
mod cidr_set;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use hull_client::events::{EventType, Recorder, reference};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use parking_lot::Mutex;
use serde_json::json;

use crate::runtime::{Action, Controller, Delta, Informer, Key, ReconcileError, WorkQueue, Writer};
use assignments::{Allotment, Assignments};
use cidr_set::CidrSet;

pub use cidr_set::CidrSetError;

/// The nodes' share of an IPv4 network, prefix length, as in Kubernetes.
pub const DEFAULT_MASK: u8 = 24;
/// The nodes' share of an IPv6 network.
pub const DEFAULT_MASK_IPV6: u8 = 64;

/// When a node that got nothing is looked at again, though nobody went.
const RECHECK: Duration = Duration::from_secs(600);

/// The networks that nodes get theirs from.
#[derive(Debug, Clone)]
pub struct NodeCidrs {
    sets: Vec<CidrSet>,
    reserved: Vec<IpNet>,
}

impl NodeCidrs {
    /// Each cluster network with the prefix length of the nodes' shares. `reserved` networks
    /// (those of Services) are left out.
    ///
    /// # Errors
    /// [`CidrSetError`] when a network cannot be cut so.
    pub fn new(clusters: &[(IpNet, u8)], reserved: Vec<IpNet>) -> Result<Self, CidrSetError> {
        let sets = clusters
            .iter()
            .map(|(cluster, mask)| CidrSet::new(*cluster, *mask))
            .collect::<Result<_, _>>()?;
        Ok(NodeCidrs { sets, reserved })
    }
}

/// See the module.
pub struct NodeIpamController {
    writer: Arc<dyn Writer>,
    recorder: Recorder,
    nodes: Arc<Informer<Node>>,
    queue: Arc<WorkQueue>,
    assignments: Arc<Mutex<Assignments>>,
}

impl NodeIpamController {
    /// Connects the controller to its informer.
    pub fn new(
        writer: Arc<dyn Writer>,
        recorder: Recorder,
        cidrs: &NodeCidrs,
        nodes: Arc<Informer<Node>>,
    ) -> Arc<Self> {
        let controller = Arc::new(NodeIpamController {
            writer,
            recorder: recorder.clone(),
            nodes: nodes.clone(),
            queue: Arc::default(),
            assignments: Arc::new(Mutex::new(Assignments::new(cidrs))),
        });
        // Without the informer, which would hold itself.
        let (queue, assignments) = (controller.queue.clone(), controller.assignments.clone());
        nodes.on_change(move |delta| observe(delta, &queue, &assignments, &recorder));
        controller
    }

    async fn assign(&self, node: &Node, key: &Key) -> Result<Action, ReconcileError> {
        let uid = node.metadata.uid.clone().unwrap_or_default();
        let allotment = self.assignments.lock().allot(&uid, key);
        let networks = match allotment {
            Allotment::Networks(networks) => networks,
            Allotment::NoneLeft { newly } => {
                if newly {
                    tracing::warn!(node = key.name, "no pod network is left for the node");
                    self.tell(node, "CIDRNotAvailable");
                }
                // Woken when a node goes.
                return Ok(Action::After(RECHECK));
            }
        };
        let texts: Vec<String> = networks.iter().map(ToString::to_string).collect();
        // With the version that had none: whoever gave it one meanwhile wins.
        let patch = json!({
            "metadata": {"uid": node.metadata.uid, "resourceVersion": node.metadata.resource_version},
            "spec": {"podCIDR": texts.first(), "podCIDRs": texts},
        });
        let patched = self.writer.patch_object(node, None, patch).await;
        if let Err(error) = &patched
            && error.is_refusal()
            && !error.is_conflict()
            && !error.is_not_found()
        {
            self.tell(node, "CIDRAssignmentFailed");
        }
        let gone = self
            .nodes
            .get(key)
            .is_none_or(|now| now.metadata.uid.as_deref() != Some(&*uid));
        if gone {
            // Nobody else would give back what a node got that went meanwhile.
            self.wake(&uid);
            return Ok(Action::Done);
        }
        patched?;
        tracing::info!(node = key.name, networks = ?texts, "node has a network for its pods");
        Ok(Action::Done)
    }

    fn wake(&self, uid: &str) {
        for waiting in self.assignments.lock().release(uid) {
            self.queue.add(waiting);
        }
    }

    /// An event in Kubernetes' words.
    fn tell(&self, node: &Node, reason: &'static str) {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        self.recorder.event(
            reference(node),
            EventType::Normal,
            reason,
            format!("Node {name} status is now: {reason}"),
        );
    }
}

/// The networks of a node, as far as they can be read.
fn networks_of(node: &Node) -> Vec<IpNet> {
    let spec = node.spec.as_ref();
    let several = spec.and_then(|spec| spec.pod_cidrs.as_deref());
    let one = spec.and_then(|spec| spec.pod_cidr.as_ref());
    let texts = match several {
        Some(texts) if !texts.is_empty() => texts,
        _ => one.map_or(&[][..], std::slice::from_ref),
    };
    texts
        .iter()
        .filter_map(|text| text.parse::<IpNet>().ok())
        .map(|network| network.trunc())
        .collect()
}

fn has_networks(node: &Node) -> bool {
    let spec = node.spec.as_ref();
    spec.is_some_and(|spec| {
        spec.pod_cidr.as_ref().is_some_and(|text| !text.is_empty())
            || spec.pod_cidrs.as_ref().is_some_and(|all| !all.is_empty())
    })
}

fn observe(
    delta: &Delta<'_, Node>,
    queue: &WorkQueue,
    assignments: &Mutex<Assignments>,
    recorder: &Recorder,
) {
    let node = delta.newest();
    let key = Key::of(&**node);
    let uid = node.metadata.uid.as_deref().unwrap_or_default();
    if let Delta::Deleted(_) = delta {
        let mut assignments = assignments.lock();
        assignments.forget(&key);
        for waiting in assignments.release(uid) {
            queue.add(waiting);
        }
        return;
    }
    if !has_networks(node) {
        queue.add(key);
        return;
    }
    let adopted = assignments.lock().adopt(uid, &key, networks_of(node));
    for network in adopted.refused {
        tracing::warn!(node = key.name, %network, "larger than a node's share, not counted");
        recorder.event(
            reference(&**node),
            EventType::Warning,
            "CIDRNotAvailable",
            format!(
                "The pod CIDR {network} is larger than a node's share and is not reserved: \
                 other nodes may get parts of it"
            ),
        );
    }
    if let Some(other) = adopted.shared_with {
        tracing::error!(
            node = key.name,
            other,
            "two nodes have the same pod network"
        );
        recorder.event(
            reference(&**node),
            EventType::Warning,
            "CIDRConflict",
            format!("Node {other} has a pod CIDR that overlaps with this node's"),
        );
    }
}

#[async_trait::async_trait]
impl Controller for NodeIpamController {
    fn name(&self) -> &'static str {
        "node-ipam"
    }

    fn queue(&self) -> &Arc<WorkQueue> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<Action, ReconcileError> {
        let node = self.nodes.get(key);
        match node.filter(|node| !has_networks(node)) {
            Some(node) if node.metadata.deletion_timestamp.is_none() => {
                self.assign(&node, key).await
            }
            _ => Ok(Action::Done),
        }
    }
}
