//! Policies and pods as the rules need them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::core::{Selector, SelectorExt};

use crate::services::model::Protocol;

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// A pod that policies select or name as a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodModel {
    /// Its namespace.
    pub namespace: String,
    /// Its labels.
    pub labels: Labels,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its ports that have names.
    pub named_ports: Vec<(String, Protocol, u16)>,
}

impl PodModel {
    /// The model of a pod with a network of its own that is not over.
    pub fn of(pod: &Pod) -> Option<Self> {
        let spec = pod.spec.as_ref()?;
        let status = pod.status.as_ref();
        let phase = status.and_then(|status| status.phase.as_deref());
        if spec.host_network == Some(true) || matches!(phase, Some("Succeeded" | "Failed")) {
            return None;
        }
        let ips = status.and_then(|status| status.pod_ips.as_ref());
        let init = spec.init_containers.iter().flatten();
        let ports = spec.containers.iter().chain(init);
        let named_ports = ports
            .flat_map(|container| container.ports.iter().flatten())
            .filter_map(|port| {
                let number = u16::try_from(port.container_port).ok()?;
                let protocol = Protocol::parse(port.protocol.as_deref())?;
                Some((port.name.clone()?, protocol, number))
            });
        Some(PodModel {
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            labels: pod.metadata.labels.clone().unwrap_or_default(),
            addresses: ips
                .into_iter()
                .flatten()
                .filter_map(|ip| ip.ip.parse().ok())
                .collect(),
            named_ports: named_ports.collect(),
        })
    }

    /// The number of a named port.
    pub fn port(&self, name: &str, protocol: Protocol) -> Option<u16> {
        let mut ports = self.named_ports.iter();
        let found = ports.find(|(own, transport, _)| own == name && *transport == protocol);
        found.map(|(_, _, number)| *number)
    }
}

/// Which ports a rule allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortModel {
    /// Every port of a protocol.
    All(Protocol),
    /// From the first to the last.
    Range(Protocol, u16, u16),
    /// What the receiving pod calls so.
    Named(Protocol, String),
}

/// Whom a rule allows.
#[derive(Debug, Clone)]
pub enum PeerModel {
    /// A network without some of its parts.
    Block(IpNet, Vec<IpNet>),
    /// Pods of the policy's namespace, or of namespaces that a selector picks.
    Pods {
        /// Which namespaces; `None`: the policy's own.
        namespaces: Option<Selector>,
        /// Which pods of them.
        pods: Selector,
    },
}

/// One rule. Empty lists mean everything.
#[derive(Debug, Clone)]
pub struct RuleModel {
    /// Whom; `None`: everybody.
    pub peers: Option<Vec<PeerModel>>,
    /// Which ports; `None`: all of all protocols.
    pub ports: Option<Vec<PortModel>>,
}

/// A policy.
#[derive(Debug, Clone)]
pub struct PolicyModel {
    /// Its namespace.
    pub namespace: String,
    /// Which pods it is about.
    pub pods: Selector,
    /// What may come in; `None`: it does not say.
    pub ingress: Option<Vec<RuleModel>>,
    /// What may go out; `None`: it does not say.
    pub egress: Option<Vec<RuleModel>>,
}

/// A selector that cannot be read selects nothing when it allows, which is the safe side.
fn selector(selector: Option<&LabelSelector>) -> Option<Selector> {
    selector.cloned().unwrap_or_default().try_into().ok()
}

fn port(port: &NetworkPolicyPort) -> Option<PortModel> {
    let protocol = Protocol::parse(port.protocol.as_deref())?;
    Some(match &port.port {
        None => PortModel::All(protocol),
        Some(IntOrString::String(name)) => PortModel::Named(protocol, name.clone()),
        Some(IntOrString::Int(first)) => {
            let first = u16::try_from(*first).ok()?;
            let last = match port.end_port {
                Some(last) => u16::try_from(last).ok().filter(|last| *last >= first)?,
                None => first,
            };
            PortModel::Range(protocol, first, last)
        }
    })
}

fn peer(peer: &NetworkPolicyPeer) -> Option<PeerModel> {
    if let Some(block) = &peer.ip_block {
        let excepts = block.except.iter().flatten();
        let excepts: Result<Vec<IpNet>, _> = excepts.map(|net| net.parse::<IpNet>()).collect();
        // An exception that cannot be read may be the important one: the block allows nothing.
        return Some(PeerModel::Block(
            block.cidr.parse::<IpNet>().ok()?.trunc(),
            excepts.ok()?,
        ));
    }
    Some(PeerModel::Pods {
        namespaces: match &peer.namespace_selector {
            Some(of) => Some(selector(Some(of))?),
            None => None,
        },
        pods: selector(peer.pod_selector.as_ref())?,
    })
}

fn rule(
    peers: Option<&Vec<NetworkPolicyPeer>>,
    ports: Option<&Vec<NetworkPolicyPort>>,
) -> RuleModel {
    let some_peers = peers.filter(|peers| !peers.is_empty());
    let some_ports = ports.filter(|ports| !ports.is_empty());
    RuleModel {
        peers: some_peers.map(|peers| peers.iter().filter_map(peer).collect()),
        ports: some_ports.map(|ports| ports.iter().filter_map(port).collect()),
    }
}

impl PolicyModel {
    /// The model of a policy. One whose own selector cannot be read is about every pod of its
    /// namespace, and so denies rather than allows.
    pub fn of(policy: &NetworkPolicy) -> Option<Self> {
        let spec = policy.spec.as_ref()?;
        let egress = spec.egress.as_ref();
        let types = spec.policy_types.as_ref().filter(|types| !types.is_empty());
        let says = |kind: &str, otherwise: bool| {
            types.map_or(otherwise, |types| types.iter().any(|t| t == kind))
        };
        let ingress_rules = spec.ingress.iter().flatten();
        let egress_rules = egress.into_iter().flatten();
        Some(PolicyModel {
            namespace: policy.metadata.namespace.clone().unwrap_or_default(),
            pods: selector(spec.pod_selector.as_ref()).unwrap_or_default(),
            ingress: says("Ingress", true).then(|| {
                ingress_rules
                    .map(|r| rule(r.from.as_ref(), r.ports.as_ref()))
                    .collect()
            }),
            egress: says("Egress", egress.is_some()).then(|| {
                egress_rules
                    .map(|r| rule(r.to.as_ref(), r.ports.as_ref()))
                    .collect()
            }),
        })
    }

    /// Whether it is about a pod.
    pub fn selects(&self, pod: &PodModel) -> bool {
        self.namespace == pod.namespace && self.pods.matches(&pod.labels)
    }
}
