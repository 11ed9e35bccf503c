//! A pod with what the plugins ask of it, worked out once.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodSpec};

use crate::{
    constraints::Constraints,
    resources::{Resources, pod_requests},
    topology::{Term, Wish},
};

/// A port on the node that a container wants.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// Address; `0.0.0.0` is all of them.
    pub address: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// Number.
    pub port: i32,
}

impl HostPort {
    /// Both cannot be had on one node.
    pub fn conflicts(&self, other: &HostPort) -> bool {
        const ALL: &str = "0.0.0.0";
        self.port == other.port
            && self.protocol == other.protocol
            && (self.address == other.address || self.address == ALL || other.address == ALL)
    }
}

/// A claim that a pod mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedClaim {
    /// Its name.
    pub name: String,
    /// It is made for the pod.
    pub is_ephemeral: bool,
}

/// A pod, prepared.
#[derive(Debug)]
pub struct PodInfo {
    /// The object.
    pub pod: Pod,
    /// `metadata.uid`.
    pub uid: Arc<str>,
    /// What it asks for.
    pub requests: Resources,
    /// The same with defaults, to compare nodes by.
    pub compared_requests: Resources,
    /// Ports on the node.
    pub host_ports: Vec<HostPort>,
    /// Claims that it mounts.
    pub claims: Vec<WantedClaim>,
    /// What it says about other pods.
    pub constraints: Constraints,
}

impl PodInfo {
    /// Prepares a pod; `None` if it has no uid or spec, which no API server sends.
    pub fn new(pod: Pod) -> Option<Self> {
        let uid: Arc<str> = pod.metadata.uid.as_deref()?.into();
        let spec = pod.spec.as_ref()?;
        let requests = pod_requests(spec, false);
        let compared_requests = pod_requests(spec, true);
        let host_ports = host_ports(spec);
        let claims = wanted_claims(&pod, spec);
        let constraints = Constraints::of(&pod, spec);
        Some(PodInfo {
            pod,
            uid,
            requests,
            compared_requests,
            host_ports,
            claims,
            constraints,
        })
    }

    /// What others should know once the pod is placed.
    pub fn wishes(&self) -> impl Iterator<Item = (Wish, &Term)> {
        self.constraints
            .wishes
            .iter()
            .map(|(wish, term)| (*wish, term))
    }

    /// The spec.
    pub fn spec(&self) -> &PodSpec {
        static EMPTY: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);
        self.pod.spec.as_ref().unwrap_or(&EMPTY)
    }

    /// Namespace.
    pub fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or("default")
    }

    /// Name.
    pub fn name(&self) -> &str {
        self.pod.metadata.name.as_deref().unwrap_or_default()
    }

    /// `spec.priority`.
    pub fn priority(&self) -> i32 {
        self.spec().priority.unwrap_or(0)
    }

    /// Where it is bound to.
    pub fn node_name(&self) -> Option<&str> {
        self.spec()
            .node_name
            .as_deref()
            .filter(|name| !name.is_empty())
    }

    /// Whether it has ended for good and uses nothing any more.
    pub fn is_terminal(&self) -> bool {
        let phase = self
            .pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        matches!(phase, Some("Succeeded" | "Failed"))
    }
}

fn wanted_claims(pod: &Pod, spec: &PodSpec) -> Vec<WantedClaim> {
    let volumes = spec.volumes.iter().flatten();
    let pod_name = pod.metadata.name.as_deref().unwrap_or_default();
    volumes
        .filter_map(|volume| match &volume.persistent_volume_claim {
            Some(source) => Some(WantedClaim {
                name: source.claim_name.clone(),
                is_ephemeral: false,
            }),
            None => volume.ephemeral.as_ref().map(|_| WantedClaim {
                name: format!("{pod_name}-{}", volume.name),
                is_ephemeral: true,
            }),
        })
        .collect()
}

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    spec.containers
        .iter()
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(|port| {
            Some(HostPort {
                address: match port.host_ip.as_deref() {
                    None | Some("") => "0.0.0.0".into(),
                    Some(address) => address.into(),
                },
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
                port: port.host_port.filter(|port| *port != 0)?,
            })
        })
        .collect()
}
