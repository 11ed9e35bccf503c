//! Which pods to delete first.

use std::{cmp::Ordering, collections::HashMap, sync::Arc};

use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};

use crate::pods;

/// Says how costly a pod's deletion is compared with its siblings'; 0 if absent.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// What decides, in this order; smaller goes first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Worth {
    assigned: bool,
    phase: u8,
    ready: bool,
    cost: i32,
    /// More siblings on the node: less loss.
    few_siblings: i64,
    /// Ages compare by their order of magnitude, so that near equals are not all one node's.
    ready_age: i64,
    few_restarts: i32,
    age: i64,
    uid: String,
}

fn magnitude(seconds: i64) -> i64 {
    i64::from(64 - u64::try_from(seconds.max(0)).unwrap_or(0).leading_zeros())
}

fn worth(pod: &Pod, siblings: i64, now: Timestamp) -> Worth {
    let meta = &pod.metadata;
    let seconds = |since: Option<Timestamp>| {
        since.map_or(0, |since| now.as_second().saturating_sub(since.as_second()))
    };
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    Worth {
        assigned: node.is_some_and(|node| !node.is_empty()),
        phase: match pods::phase(pod) {
            "Running" => 2,
            "Unknown" => 1,
            _ => 0,
        },
        ready: pods::is_ready(pod),
        cost: meta
            .annotations
            .as_ref()
            .and_then(|annotations| annotations.get(DELETION_COST)?.parse().ok())
            .unwrap_or(0),
        few_siblings: -siblings,
        ready_age: magnitude(seconds(pods::ready_since(pod))),
        few_restarts: -pods::restarts(pod),
        age: magnitude(seconds(meta.creation_timestamp.as_ref().map(|time| time.0))),
        uid: meta.uid.clone().unwrap_or_default(),
    }
}

/// The `count` least useful pods.
pub(super) fn least_useful(pods: &[Arc<Pod>], count: usize, now: Timestamp) -> Vec<Arc<Pod>> {
    let node_of = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    let mut on_node: HashMap<Option<String>, i64> = HashMap::new();
    for pod in pods {
        *on_node.entry(node_of(pod)).or_default() += 1;
    }
    let mut ranked: Vec<_> = pods
        .iter()
        .map(|pod| {
            let siblings = on_node.get(&node_of(pod)).copied().unwrap_or(0);
            (worth(pod, siblings, now), pod.clone())
        })
        .collect();
    ranked.sort_by(|(a, _), (b, _)| -> Ordering { a.cmp(b) });
    ranked.into_iter().take(count).map(|(_, pod)| pod).collect()
}
