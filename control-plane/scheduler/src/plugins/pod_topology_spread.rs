//! PodTopologySpread: equal pods spread over zones, hosts or other domains.

use std::sync::Arc;

use crate::{
    cache::{Cache, NodeInfo},
    framework::{CycleState, Event, Filter, MAX_SCORE, Plugin, PreFilter, Rejection, Score, Sees},
    pod::PodInfo,
    topology::{Counts, value},
};

/// See the module.
pub struct PodTopologySpread;

const REASON: &str = "node(s) didn't match pod topology spread constraints";
const NO_LABEL: &str =
    "node(s) didn't match pod topology spread constraints (missing required label)";
/// The key by which every node is its own domain.
const HOSTNAME: &str = "kubernetes.io/hostname";

struct Hard {
    key: String,
    counts: Arc<Counts>,
    /// Pods of the emptiest domain.
    least: i64,
    max_skew: i64,
    /// What the pod itself adds.
    own: i64,
}

struct HardConstraints(Vec<Hard>);

struct Soft {
    key: String,
    counts: Arc<Counts>,
    weight: f64,
    max_skew: i64,
}

struct SoftConstraints(Vec<Soft>);

/// Score of a node without the labels, before normalising.
const IGNORED: i64 = -1;

impl Plugin for PodTopologySpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }
}

impl PreFilter for PodTopologySpread {
    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        cache: &Cache,
    ) -> Result<Option<Vec<String>>, Rejection> {
        let required = pod.constraints.spread.iter().filter(|one| one.required);
        let hard = required.map(|one| {
            let counts = cache.counts(&one.term);
            let too_few = one
                .min_domains
                .is_some_and(|domains| i64::try_from(counts.nodes.len()).unwrap_or(0) < domains);
            let least = counts.nodes.keys().map(|value| counts.of(value)).min();
            Hard {
                key: one.term.key.clone(),
                least: if too_few { 0 } else { least.unwrap_or(0) },
                counts,
                max_skew: one.max_skew,
                own: i64::from(one.term.matches(pod, cache.namespaces())),
            }
        });
        state.put(HardConstraints(hard.collect()));
        Ok(None)
    }
}

impl Filter for PodTopologySpread {
    fn filter(&self, state: &CycleState, _: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        let Some(HardConstraints(hard)) = state.get() else {
            return Ok(());
        };
        for one in hard {
            let here = node.node.as_ref().and_then(|node| value(node, &one.key));
            let Some(here) = here else {
                return Err(Rejection::for_good(NO_LABEL));
            };
            if one.counts.of(here) + one.own - one.least > one.max_skew {
                return Err(Rejection::because(REASON));
            }
        }
        Ok(())
    }

    fn sees(&self, state: &CycleState) -> Sees {
        match state.get() {
            Some(HardConstraints(hard)) if !hard.is_empty() => Sees::AllPods,
            _ => Sees::NoPods,
        }
    }

    fn is_cured_by(&self, pod: &PodInfo, event: &Event<'_>) -> bool {
        let mut spread = pod.constraints.spread.iter();
        if !spread.any(|one| one.required) {
            return false;
        }
        match event {
            Event::NodeAdded(_) | Event::PodRemoved { .. } | Event::PodAdded(_) => true,
            Event::NodeUpdated { changes, .. } => changes.labels || changes.taints,
        }
    }
}

impl Score for PodTopologySpread {
    fn weight(&self) -> i64 {
        2
    }

    fn pre_score(&self, state: &mut CycleState, pod: &PodInfo, cache: &Cache, nodes: &[usize]) {
        let preferred = pod.constraints.spread.iter().filter(|one| !one.required);
        let soft = preferred.map(|one| {
            let counts = cache.counts(&one.term);
            let domains = if one.term.key == HOSTNAME {
                nodes.len()
            } else {
                counts.nodes.len()
            };
            Soft {
                key: one.term.key.clone(),
                counts,
                // Few domains hold many pods each: their differences count for less.
                weight: ((domains + 2) as f64).ln(),
                max_skew: one.max_skew,
            }
        });
        state.put(SoftConstraints(soft.collect()));
    }

    fn score(&self, state: &CycleState, _: &PodInfo, node: &NodeInfo) -> i64 {
        let Some(SoftConstraints(soft)) = state.get() else {
            return 0;
        };
        let mut score = 0.0;
        for one in soft {
            let here = node.node.as_ref().and_then(|node| value(node, &one.key));
            let Some(here) = here else { return IGNORED };
            score += one.counts.of(here) as f64 * one.weight + (one.max_skew - 1) as f64;
        }
        score.round() as i64
    }

    fn normalize(&self, state: &CycleState, scores: &mut [i64]) {
        let none = state
            .get::<SoftConstraints>()
            .is_none_or(|constraints| constraints.0.is_empty());
        if none {
            return scores.fill(0);
        }
        let counted = || scores.iter().copied().filter(|score| *score != IGNORED);
        let (min, max) = (counted().min().unwrap_or(0), counted().max().unwrap_or(0));
        for score in scores {
            *score = match *score {
                IGNORED => 0,
                _ if max == 0 => MAX_SCORE,
                own => MAX_SCORE * (max + min - own) / max,
            };
        }
    }
}
