//! Which nodes a pod may go to by their labels and names: `nodeSelector` and node affinity. The
//! scheduler and the daemon controller must agree on it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Node, NodeAffinity, NodeSelectorRequirement, NodeSelectorTerm, PodSpec,
};

/// The pod's node affinity.
pub fn affinity(spec: &PodSpec) -> Option<&NodeAffinity> {
    spec.affinity.as_ref()?.node_affinity.as_ref()
}

fn labels(node: &Node) -> Option<&BTreeMap<String, String>> {
    node.metadata.labels.as_ref()
}

fn matches_expression(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let number = |text: &str| text.parse::<i64>().ok();
    match requirement.operator.as_str() {
        "In" => value.is_some_and(|value| values.iter().any(|wanted| wanted == value)),
        "NotIn" => !value.is_some_and(|value| values.iter().any(|wanted| wanted == value)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        operator @ ("Gt" | "Lt") => {
            let bound = values.first().and_then(|bound| number(bound));
            match (value.and_then(number), bound) {
                (Some(value), Some(bound)) if operator == "Gt" => value > bound,
                (Some(value), Some(bound)) => value < bound,
                _ => false,
            }
        }
        _ => false,
    }
}

/// Whether the node matches every requirement of the term; an empty term matches none.
pub fn matches_term(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    expressions.iter().all(|requirement| {
        let value = labels(node).and_then(|labels| labels.get(&requirement.key));
        matches_expression(requirement, value.map(String::as_str))
    }) && fields.iter().all(|requirement| {
        requirement.key == "metadata.name"
            && matches_expression(requirement, node.metadata.name.as_deref())
    })
}

/// Whether the pod's `nodeSelector` and required node affinity allow the node.
pub fn matches(spec: &PodSpec, node: &Node) -> bool {
    let selected = spec
        .node_selector
        .iter()
        .flatten()
        .all(|(key, value)| labels(node).and_then(|labels| labels.get(key)) == Some(value));
    let required = affinity(spec).and_then(|affinity| {
        affinity
            .required_during_scheduling_ignored_during_execution
            .as_ref()
    });
    selected
        && required.is_none_or(|required| {
            required
                .node_selector_terms
                .iter()
                .any(|term| matches_term(term, node))
        })
}
