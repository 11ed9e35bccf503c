//! Which nodes a daemon's pods belong on, and tying a pod to its node.

use hull_client::{node_affinity, taints::tolerates};
use k8s_openapi::api::core::v1::{
    Affinity, Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod,
    PodSpec, Taint, Toleration,
};

use super::View;

/// Whether a pod should be on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fit {
    /// A new one.
    pub should_run: bool,
    /// One that is there.
    pub should_continue: bool,
}

/// Taints that daemons bear whatever the template says: (key, effect).
const BORNE: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
/// The same for daemons in the host's network.
const NETWORK_UNAVAILABLE: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");

fn add_tolerations(spec: &mut PodSpec) {
    let host_network = spec.host_network == Some(true);
    let tolerations = spec.tolerations.get_or_insert_default();
    let network = host_network.then_some(NETWORK_UNAVAILABLE);
    for (key, effect) in BORNE.into_iter().chain(network) {
        let wanted = Toleration {
            key: Some(key.into()),
            operator: Some("Exists".into()),
            effect: Some(effect.into()),
            ..Toleration::default()
        };
        if !tolerations.contains(&wanted) {
            tolerations.push(wanted);
        }
    }
}

fn name_requirement(node: &str) -> NodeSelectorRequirement {
    NodeSelectorRequirement {
        key: "metadata.name".into(),
        operator: "In".into(),
        values: Some(vec![node.to_owned()]),
    }
}

/// Ties the pod to the node: every term of its required affinity names it too.
pub(super) fn pin(spec: &mut PodSpec, node: &str) {
    add_tolerations(spec);
    let affinity: &mut Affinity = spec.affinity.get_or_insert_default();
    let affinity: &mut NodeAffinity = affinity.node_affinity.get_or_insert_default();
    // The terms of the template decided whether the node fits; the pod need only name it.
    affinity.required_during_scheduling_ignored_during_execution = Some(NodeSelector {
        node_selector_terms: vec![NodeSelectorTerm {
            match_fields: Some(vec![name_requirement(node)]),
            ..NodeSelectorTerm::default()
        }],
    });
}

/// The node that a pod without one is tied to.
pub(crate) fn intended(pod: &Pod) -> Option<&str> {
    let affinity = pod
        .spec
        .as_ref()?
        .affinity
        .as_ref()?
        .node_affinity
        .as_ref()?;
    let required = affinity
        .required_during_scheduling_ignored_during_execution
        .as_ref()?;
    let [term] = required.node_selector_terms.as_slice() else {
        return None;
    };
    let [field] = term.match_fields.as_deref()? else {
        return None;
    };
    match field.values.as_deref() {
        Some([node]) if field.key == "metadata.name" && field.operator == "In" => Some(node),
        _ => None,
    }
}

/// What the answer of [`fit`] depends on changed.
pub(super) fn differs(old: &Node, new: &Node) -> bool {
    let of = |node: &Node| {
        node.spec
            .as_ref()
            .map(|spec| (spec.taints.clone(), spec.unschedulable))
    };
    old.metadata.labels != new.metadata.labels || of(old) != of(new)
}

/// Whether a pod of the set belongs on the node.
pub(super) fn fit(view: &View<'_>, node: &Node) -> Fit {
    let mut spec = view.spec.template.spec.clone().unwrap_or_default();
    add_tolerations(&mut spec);
    let named = spec.node_name.as_deref().filter(|name| !name.is_empty());
    let elsewhere = named.is_some_and(|name| name != view.name(node));
    if elsewhere || !node_affinity::matches(&spec, node) {
        return Fit {
            should_run: false,
            should_continue: false,
        };
    }
    let taints: Vec<Taint> = node
        .spec
        .as_ref()
        .and_then(|spec| spec.taints.clone())
        .unwrap_or_default();
    let borne = |effects: &[&str]| {
        taints
            .iter()
            .filter(|taint| effects.contains(&taint.effect.as_str()))
            .all(|taint| tolerates(spec.tolerations.as_ref(), taint))
    };
    Fit {
        should_run: borne(&["NoSchedule", "NoExecute"]),
        should_continue: borne(&["NoExecute"]),
    }
}
