//! Which services a change concerns.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use kube::Resource;

use super::candidates::{differs, node, selects};
use crate::runtime::{Delta, Informer, Key, WorkQueue};

/// Where a node says in which zone it is.
pub(super) const ZONE: &str = "topology.kubernetes.io/zone";

/// Enqueues each service that changes.
pub(super) fn follow_services(services: &Informer<Service>, queue: &Arc<WorkQueue>) {
    let queue = queue.clone();
    services.on_change(move |delta| queue.add(Key::of(&**delta.newest())));
}

/// Enqueues the services that select a pod that changes.
pub(super) fn follow_pods(
    services: &Arc<Informer<Service>>,
    pods: &Informer<Pod>,
    queue: &Arc<WorkQueue>,
) {
    let (services, queue) = (services.clone(), queue.clone());
    pods.on_change(move |delta| {
        let states: Vec<&Arc<Pod>> = match delta {
            Delta::Added(pod) | Delta::Deleted(pod) => vec![pod],
            Delta::Updated { old, new } if differs(old, new) => vec![old, new],
            Delta::Updated { .. } => return,
        };
        let namespace = delta.newest().metadata.namespace.as_deref();
        for service in services.in_namespace(namespace.unwrap_or_default()) {
            if states.iter().any(|pod| selects(&service, pod)) {
                queue.add(Key::of(&*service));
            }
        }
    });
}

pub(super) fn zone_of(node: &Node) -> Option<&String> {
    node.metadata.labels.as_ref()?.get(ZONE)
}

/// Enqueues the services with pods on a node whose zone changes.
pub(super) fn follow_zones(
    services: &Arc<Informer<Service>>,
    pods: &Arc<Informer<Pod>>,
    nodes: &Informer<Node>,
    queue: &Arc<WorkQueue>,
) {
    let (services, pods, queue) = (services.clone(), pods.clone(), queue.clone());
    nodes.on_change(move |delta| {
        let before = match delta {
            Delta::Updated { old, .. } => zone_of(old),
            Delta::Added(_) => None,
            Delta::Deleted(_) => return,
        };
        let changed = delta.newest();
        if zone_of(changed) == before {
            return;
        }
        for pod in pods.all() {
            if node(&pod) != changed.meta().name.as_deref() {
                continue;
            }
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            for service in services.in_namespace(namespace) {
                if selects(&service, &pod) {
                    queue.add(Key::of(&*service));
                }
            }
        }
    });
}
