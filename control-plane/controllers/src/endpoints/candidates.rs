//! What a pod offers to a service.

use std::net::IpAddr;

use k8s_openapi::{
    api::{
        core::v1::{ObjectReference, Pod, Service, ServicePort, ServiceSpec},
        discovery::v1::EndpointPort,
    },
    apimachinery::pkg::util::intstr::IntOrString,
};

use crate::pods;

/// The label of services without a cluster address.
pub(crate) const HEADLESS: &str = "service.kubernetes.io/headless";

/// IPv4 or IPv6, by the name that slices use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) fn of(address: &str) -> Option<Self> {
        match address.parse().ok()? {
            IpAddr::V4(_) => Some(Family::V4),
            IpAddr::V6(_) => Some(Family::V6),
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        }
    }
}

pub(crate) fn spec(service: &Service) -> ServiceSpec {
    service.spec.clone().unwrap_or_default()
}

/// The service finds its endpoints by its selector.
pub(crate) fn selects_pods(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    let named = spec.and_then(|spec| spec.type_.as_deref()) == Some("ExternalName");
    let selector = spec.and_then(|spec| spec.selector.as_ref());
    !named && selector.is_some_and(|selector| !selector.is_empty())
}

/// The service selects the pod.
pub(crate) fn selects(service: &Service, pod: &Pod) -> bool {
    let selector = service
        .spec
        .as_ref()
        .and_then(|spec| spec.selector.as_ref());
    let labels = pod.metadata.labels.as_ref();
    selects_pods(service)
        && selector
            .into_iter()
            .flatten()
            .all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
}

pub(crate) fn is_headless(service: &Service) -> bool {
    let address = service
        .spec
        .as_ref()
        .and_then(|spec| spec.cluster_ip.as_deref());
    matches!(address, Some("None"))
}

/// The families that the service serves, the first one first.
pub(crate) fn families(service: &Service) -> Vec<Family> {
    let spec = spec(service);
    let families: Vec<Family> = spec
        .ip_families
        .iter()
        .flatten()
        .filter_map(|family| match family.as_str() {
            "IPv4" => Some(Family::V4),
            "IPv6" => Some(Family::V6),
            _ => None,
        })
        .collect();
    if !families.is_empty() {
        return families;
    }
    let address = spec.cluster_ip.as_deref().and_then(Family::of);
    vec![address.unwrap_or(Family::V4)]
}

/// The pod's addresses.
pub(crate) fn addresses(pod: &Pod) -> Vec<&str> {
    let Some(status) = &pod.status else {
        return Vec::new();
    };
    let all: Vec<&str> = status
        .pod_ips
        .iter()
        .flatten()
        .map(|address| address.ip.as_str())
        .collect();
    if all.is_empty() {
        status.pod_ip.as_deref().into_iter().collect()
    } else {
        all
    }
}

/// Whether the pod can be an endpoint at all.
pub(crate) fn counts(pod: &Pod, also_terminating: bool) -> bool {
    !pods::is_terminal(pod)
        && !addresses(pod).is_empty()
        && (also_terminating || pod.metadata.deletion_timestamp.is_none())
}

/// The number that the service's port has in the pod; `None` if the pod has no such port.
fn target(port: &ServicePort, pod: &Pod) -> Option<i32> {
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            let spec = pod.spec.as_ref()?;
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let restartable = spec
                .init_containers
                .iter()
                .flatten()
                .filter(|container| container.restart_policy.as_deref() == Some("Always"));
            spec.containers
                .iter()
                .chain(restartable)
                .flat_map(|container| container.ports.iter().flatten())
                .find(|own| {
                    own.name.as_ref() == Some(name)
                        && own.protocol.as_deref().unwrap_or("TCP") == protocol
                })
                .map(|own| own.container_port)
        }
    }
}

/// The service's ports in this pod.
pub(crate) fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let spec = service.spec.as_ref();
    spec.and_then(|spec| spec.ports.as_ref())
        .into_iter()
        .flatten()
        .filter_map(|port| {
            Some(EndpointPort {
                name: Some(port.name.clone().unwrap_or_default()),
                port: Some(target(port, pod)?),
                protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect()
}

/// The pod, as an endpoint names it.
pub(crate) fn reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".into()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// The pod's name in the service's domain, if it has one.
pub(crate) fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let hostname = spec.hostname.clone().filter(|name| !name.is_empty())?;
    (spec.subdomain == service.metadata.name
        && service.metadata.namespace == pod.metadata.namespace)
        .then_some(hostname)
}

/// The pod's node.
pub(crate) fn node(pod: &Pod) -> Option<&str> {
    let spec = pod.spec.as_ref()?;
    spec.node_name.as_deref().filter(|name| !name.is_empty())
}

/// What of a pod its services' endpoints depend on.
pub(crate) fn differs(old: &Pod, new: &Pod) -> bool {
    let of = |pod: &Pod| {
        let spec = pod.spec.as_ref();
        (
            addresses(pod)
                .into_iter()
                .map(str::to_owned)
                .collect::<Vec<_>>(),
            pods::is_ready(pod),
            pods::is_terminal(pod),
            pod.metadata.deletion_timestamp.is_some(),
            node(pod).map(str::to_owned),
            spec.and_then(|spec| spec.hostname.clone()),
            spec.and_then(|spec| spec.subdomain.clone()),
        )
    };
    old.metadata.labels != new.metadata.labels || of(old) != of(new)
}
