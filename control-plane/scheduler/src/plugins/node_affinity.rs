//! NodeAffinity: `nodeSelector` and node affinity, required (filter) and preferred (score).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    NodeAffinity as Affinity, NodeSelectorRequirement, NodeSelectorTerm, PodSpec,
};

use crate::{
    cache::NodeInfo,
    framework::{
        ClusterEvent, CycleState, Filter, Plugin, PreFilter, Rejection, Score, normalize_linear,
    },
    pod::PodInfo,
};

/// See the module.
pub struct NodeAffinity;

const REASON: &str = "node(s) didn't match Pod's node affinity/selector";

fn affinity(spec: &PodSpec) -> Option<&Affinity> {
    spec.affinity.as_ref()?.node_affinity.as_ref()
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

fn matches_term(term: &NodeSelectorTerm, node: &NodeInfo) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    expressions.iter().all(|requirement| {
        let value = labels(node).and_then(|labels| labels.get(&requirement.key));
        matches_expression(requirement, value.map(String::as_str))
    }) && fields.iter().all(|requirement| {
        requirement.key == "metadata.name" && matches_expression(requirement, Some(node.name()))
    })
}

fn labels(node: &NodeInfo) -> Option<&BTreeMap<String, String>> {
    node.node.as_ref()?.metadata.labels.as_ref()
}

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }
}

impl PreFilter for NodeAffinity {
    /// Terms that all name nodes by `metadata.name` (as those of daemon pods do) narrow the
    /// search down to these nodes.
    fn pre_filter(
        &self,
        _: &mut CycleState,
        pod: &PodInfo,
    ) -> Result<Option<Vec<String>>, Rejection> {
        let required = affinity(pod.spec()).and_then(|affinity| {
            affinity
                .required_during_scheduling_ignored_during_execution
                .as_ref()
        });
        let Some(required) = required else {
            return Ok(None);
        };
        let mut names = Vec::new();
        for term in &required.node_selector_terms {
            let by_name = term.match_fields.iter().flatten().find(|requirement| {
                requirement.key == "metadata.name" && requirement.operator == "In"
            });
            match by_name {
                Some(requirement) => names.extend(requirement.values.iter().flatten().cloned()),
                None => return Ok(None),
            }
        }
        Ok(Some(names))
    }
}

impl Filter for NodeAffinity {
    fn filter(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        let spec = pod.spec();
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
        let liked = required.is_none_or(|required| {
            required
                .node_selector_terms
                .iter()
                .any(|term| matches_term(term, node))
        });
        if selected && liked {
            Ok(())
        } else {
            Err(Rejection::because(REASON))
        }
    }

    fn is_cured_by(&self, event: ClusterEvent) -> bool {
        matches!(event, ClusterEvent::NodeAdded | ClusterEvent::NodeUpdated)
    }
}

impl Score for NodeAffinity {
    fn weight(&self) -> i64 {
        2
    }

    fn score(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> i64 {
        affinity(pod.spec())
            .and_then(|affinity| {
                affinity
                    .preferred_during_scheduling_ignored_during_execution
                    .as_ref()
            })
            .into_iter()
            .flatten()
            .filter(|term| matches_term(&term.preference, node))
            .map(|term| i64::from(term.weight))
            .sum()
    }

    fn normalize(&self, scores: &mut [i64]) {
        normalize_linear(scores, false);
    }
}
