//! Which pod goes first.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use hull_cri_api::v1 as cri;
use k8s_openapi::api::core::v1::{Container, Pod};

use super::signals::{Level, Signal};
use super::thresholds::Threshold;
use crate::pod::plan::api_finished;
use crate::quantity;
use crate::static_pods::is_static;
use crate::stats::{container_name, containers, number, pod_of};

/// From this priority on a pod is critical (`system-cluster-critical`): it is never evicted.
const CRITICAL_PRIORITY: i32 = 2_000_000_000;

/// What the runtime reports of each pod, by UID.
pub type Usages<'s> = HashMap<&'s str, &'s cri::PodSandboxStats>;

/// The reports by UID.
pub fn usages(stats: &[cri::PodSandboxStats]) -> Usages<'_> {
    let with_uid = stats.iter().filter_map(|s| Some((pod_of(s)?.2, s)));
    with_uid.collect()
}

/// Whether a pod may be evicted.
pub fn evictable(pod: &Pod) -> bool {
    let spec = pod.spec.as_ref();
    let priority = spec.and_then(|spec| spec.priority).unwrap_or(0);
    // The node cannot do without its static pods.
    let fixed = is_static(pod);
    let ending = pod.metadata.deletion_timestamp.is_some() || api_finished(pod);
    priority < CRITICAL_PRIORITY && !fixed && !ending
}

/// Pods in the order in which they go: those that use more than they requested, then by priority,
/// then by how much more they use. Of process ids, and where the runtime reports nothing, by
/// priority alone.
pub fn rank(mut pods: Vec<Arc<Pod>>, signal: Signal, usages: &Usages<'_>) -> Vec<Arc<Pod>> {
    pods.retain(|pod| evictable(pod));
    pods.sort_by_cached_key(|pod| {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let used = usages.get(uid).map_or(0, |stats| used(stats, signal));
        let over = i128::from(used) - requested(pod, signal);
        let priority = pod.spec.as_ref().and_then(|spec| spec.priority);
        let exceeds = signal != Signal::PidAvailable && over > 0;
        (Reverse(exceeds), priority.unwrap_or(0), Reverse(over))
    });
    pods
}

/// What a pod uses of what is short.
fn used(stats: &cri::PodSandboxStats, signal: Signal) -> u64 {
    let linux = stats.linux.as_ref();
    match signal {
        Signal::MemoryAvailable => linux
            .and_then(|linux| linux.memory.as_ref())
            .and_then(|memory| number(memory.working_set_bytes.as_ref()))
            .unwrap_or(0),
        Signal::PidAvailable => linux
            .and_then(|linux| linux.process.as_ref())
            .and_then(|process| number(process.process_count.as_ref()))
            .unwrap_or(0),
        signal => containers(stats)
            .iter()
            .map(|container| container_used(container, signal))
            .sum(),
    }
}

fn container_used(container: &cri::ContainerStats, signal: Signal) -> u64 {
    let layer = container.writable_layer.as_ref();
    let found = match signal {
        Signal::MemoryAvailable => container
            .memory
            .as_ref()
            .and_then(|memory| number(memory.working_set_bytes.as_ref())),
        Signal::NodeFsInodes | Signal::ImageFsInodes => {
            layer.and_then(|layer| number(layer.inodes_used.as_ref()))
        }
        Signal::PidAvailable => None,
        _ => layer.and_then(|layer| number(layer.used_bytes.as_ref())),
    };
    found.unwrap_or(0)
}

/// The request that protects a pod, by the resource's name.
fn request_name(signal: Signal) -> Option<&'static str> {
    match signal {
        Signal::MemoryAvailable => Some("memory"),
        Signal::NodeFsAvailable | Signal::ImageFsAvailable => Some("ephemeral-storage"),
        _ => None,
    }
}

fn container_requested(container: &Container, signal: Signal) -> i128 {
    let requests = container
        .resources
        .as_ref()
        .and_then(|r| r.requests.as_ref());
    request_name(signal)
        .and_then(|name| requests?.get(name))
        .and_then(quantity::value)
        .map_or(0, i128::from)
}

fn requested(pod: &Pod, signal: Signal) -> i128 {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    containers
        .map(|container| container_requested(container, signal))
        .sum()
}

/// The message of an evicted pod, in kubelet's words.
pub fn message(pod: &Pod, met: (Threshold, Level), usages: &Usages<'_>) -> String {
    let (threshold, level) = met;
    let signal = threshold.signal;
    let short = |amount: u64| match signal {
        Signal::MemoryAvailable | Signal::NodeFsAvailable | Signal::ImageFsAvailable => {
            format!("{}Ki", amount / 1024)
        }
        _ => amount.to_string(),
    };
    let resource = signal.resource();
    let mut text = format!(
        "The node was low on resource: {resource}. Threshold quantity: {}, available: {}. ",
        short(threshold.minimum.amount(level.capacity)),
        short(level.available)
    );
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let stats = usages.get(uid).map_or(&[][..], |stats| containers(stats));
    for container in pod.spec.iter().flat_map(|spec| &spec.containers) {
        let found = stats
            .iter()
            .find(|stats| container_name(stats) == Some(&container.name));
        let used = found.map_or(0, |stats| container_used(stats, signal));
        let requested = container_requested(container, signal);
        if i128::from(used) > requested {
            text.push_str(&format!(
                "Container {} was using {}, request is {}, has larger consumption of {resource}. ",
                container.name,
                short(used),
                short(u64::try_from(requested).unwrap_or(0)),
            ));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::testing::pod_stats;
    use serde_json::json;

    fn pod(uid: &str, priority: i32, request: &str) -> Arc<Pod> {
        let pod = json!({"metadata": {"name": uid, "namespace": "d", "uid": uid},
            "spec": {"priority": priority, "containers": [
                {"name": "c", "resources": {"requests": {"memory": request}}}]}});
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn stats(uid: &str) -> cri::PodSandboxStats {
        let mut stats = pod_stats();
        let attributes = stats.attributes.as_mut().unwrap();
        attributes.metadata.as_mut().unwrap().uid = uid.into();
        stats
    }

    #[test]
    fn pods_above_their_requests_go_first_then_by_priority_then_by_excess() {
        let stats: Vec<_> = ["within", "bold", "greedy", "dear", "vital"]
            .iter()
            .map(|uid| stats(uid))
            .collect();
        // Each uses 2000 bytes.
        let pods = vec![
            pod("within", 0, "5000"),
            pod("dear", 10, "1"),
            pod("bold", 0, "1500"),
            pod("greedy", 0, "100"),
            pod("vital", CRITICAL_PRIORITY, "1"),
        ];
        let ranked = rank(pods, Signal::MemoryAvailable, &usages(&stats));
        let order: Vec<&str> = ranked
            .iter()
            .map(|pod| pod.metadata.uid.as_deref().unwrap())
            .collect();
        assert_eq!(order, ["greedy", "bold", "dear", "within"]);
    }

    #[test]
    fn message_names_what_was_short_and_who_used_it() {
        let stats = [stats("u")];
        let threshold = Threshold::parse("memory.available<100Mi").unwrap();
        let level = Level {
            available: 50 << 20,
            capacity: 1 << 30,
        };
        assert_eq!(
            message(&pod("u", 0, "10"), (threshold, level), &usages(&stats)),
            "The node was low on resource: memory. Threshold quantity: 102400Ki, available: 51200Ki. Container c was using 0Ki, request is 0Ki, has larger consumption of memory. "
        );
    }
}
