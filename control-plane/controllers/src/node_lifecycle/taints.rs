//! Which taints a node's conditions ask for.

use k8s_openapi::{
    api::core::v1::{Node, Taint},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};

pub(super) const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub(super) const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Condition, its status, the taint's key.
const BY_CONDITION: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    (
        "MemoryPressure",
        "True",
        "node.kubernetes.io/memory-pressure",
    ),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
    (
        "NetworkUnavailable",
        "True",
        "node.kubernetes.io/network-unavailable",
    ),
];

fn has(node: &Node, kind: &str, status: &str) -> bool {
    let conditions = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == kind && condition.status == status)
}

/// The taints that the node should have: others' as they are, ours by its conditions. Those
/// that stay keep their time. `evict`: whether `NoExecute` may be used.
pub(super) fn wanted(node: &Node, current: &[Taint], evict: bool, now: Timestamp) -> Vec<Taint> {
    let mut ours: Vec<(&str, &str, bool)> = Vec::new();
    for (kind, status, key) in BY_CONDITION {
        let holds = has(node, kind, status);
        ours.push((key, "NoSchedule", holds));
        if kind == "Ready" {
            ours.push((key, "NoExecute", holds && evict));
        }
    }
    let cordoned = node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true);
    ours.push((UNSCHEDULABLE, "NoSchedule", cordoned));

    let is = |taint: &Taint, key: &str, effect: &str| taint.key == key && taint.effect == effect;
    let mut taints: Vec<Taint> = current
        .iter()
        .filter(|taint| {
            !ours
                .iter()
                .any(|(key, effect, holds)| !holds && is(taint, key, effect))
        })
        .cloned()
        .collect();
    for (key, effect, holds) in ours {
        if holds && !taints.iter().any(|taint| is(taint, key, effect)) {
            taints.push(Taint {
                key: key.into(),
                effect: effect.into(),
                value: None,
                time_added: Some(Time(now)),
            });
        }
    }
    taints
}
