//! NodeAffinity: `nodeSelector` and node affinity, required (filter) and preferred (score).

use hull_client::node_affinity::{affinity, matches, matches_term};

use crate::{
    cache::{Cache, NodeInfo},
    framework::{
        CycleState, Event, Filter, Plugin, PreFilter, Rejection, Score, Sees, normalize_linear,
    },
    pod::PodInfo,
};

/// See the module.
pub struct NodeAffinity;

const REASON: &str = "node(s) didn't match Pod's node affinity/selector";

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
        _: &Cache,
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
        if node
            .node
            .as_ref()
            .is_some_and(|node| matches(pod.spec(), node))
        {
            Ok(())
        } else {
            Err(Rejection::for_good(REASON))
        }
    }

    fn sees(&self, _: &CycleState) -> Sees {
        Sees::NoPods
    }

    fn ignores(&self, event: &Event<'_>) -> bool {
        matches!(event, Event::PodAdded(_) | Event::PodRemoved { .. })
    }

    fn is_cured_by(&self, pod: &PodInfo, event: &Event<'_>) -> bool {
        let node = match event {
            Event::NodeAdded(node) => node,
            Event::NodeUpdated { node, changes } if changes.labels => node,
            _ => return false,
        };
        node.node
            .as_ref()
            .is_some_and(|node| matches(pod.spec(), node))
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
            .filter(|term| {
                node.node
                    .as_ref()
                    .is_some_and(|node| matches_term(&term.preference, node))
            })
            .map(|term| i64::from(term.weight))
            .sum()
    }

    fn normalize(&self, _: &CycleState, scores: &mut [i64]) {
        normalize_linear(scores, false);
    }
}
