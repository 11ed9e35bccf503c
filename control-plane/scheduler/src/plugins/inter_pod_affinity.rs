//! InterPodAffinity: near some pods, away from others.
//!
//! Required terms filter, also those that placed pods have against newcomers; preferred terms
//! score, both ways.

use std::{collections::HashMap, sync::Arc};

use crate::{
    cache::{Cache, NodeInfo},
    framework::{CycleState, Event, Filter, MAX_SCORE, Plugin, PreFilter, Rejection, Score, Sees},
    pod::PodInfo,
    topology::{Counts, Wish, value},
};

/// See the module.
pub struct InterPodAffinity;

const AFFINITY: &str = "node(s) didn't match pod affinity rules";
const ANTI_AFFINITY: &str = "node(s) didn't match pod anti-affinity rules";
const EXISTING: &str = "node(s) didn't satisfy existing pods anti-affinity rules";
/// What a placed pod's required affinity adds to the score of a newcomer that matches it.
const HARD_AFFINITY_WEIGHT: i64 = 1;

type Counted = (String, Arc<Counts>);

struct Required {
    near: Vec<Counted>,
    /// No pod matches anywhere, but the pod itself does: it may be the first.
    first_of_its_kind: bool,
    apart: Vec<Counted>,
    forbidden: Vec<Counted>,
}

struct Preferred {
    by_key: HashMap<String, HashMap<String, i64>>,
}

fn label<'n>(node: &'n NodeInfo, key: &str) -> Option<&'n String> {
    value(node.node.as_ref()?, key)
}

fn count(node: &NodeInfo, (key, counts): &Counted) -> i64 {
    label(node, key).map_or(0, |value| counts.of(value))
}

impl Plugin for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }
}

impl PreFilter for InterPodAffinity {
    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        cache: &Cache,
    ) -> Result<Option<Vec<String>>, Rejection> {
        let constraints = &pod.constraints;
        let counted = |term: &crate::topology::Term| (term.key.clone(), cache.counts(term));
        let near: Vec<Counted> = constraints.affinity.iter().map(counted).collect();
        let none = near.iter().all(|(_, counts)| counts.total == 0);
        let itself = constraints
            .affinity
            .iter()
            .all(|term| term.matches(pod, cache.namespaces()));
        let forbidden = cache
            .wishes_about(pod, |wish| wish == Wish::Forbids)
            .into_iter()
            .map(|(key, _, counts)| (key, counts));
        state.put(Required {
            first_of_its_kind: !near.is_empty() && none && itself,
            near,
            apart: constraints.anti_affinity.iter().map(counted).collect(),
            forbidden: forbidden.collect(),
        });
        Ok(None)
    }
}

impl Filter for InterPodAffinity {
    fn filter(&self, state: &CycleState, _: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        let Some(required) = state.get::<Required>() else {
            return Ok(());
        };
        let near = required.near.iter().all(|term| {
            count(node, term) > 0 || (required.first_of_its_kind && label(node, &term.0).is_some())
        });
        if !near {
            return Err(Rejection::for_good(AFFINITY));
        }
        if required.apart.iter().any(|term| count(node, term) > 0) {
            return Err(Rejection::because(ANTI_AFFINITY));
        }
        if required.forbidden.iter().any(|term| count(node, term) > 0) {
            return Err(Rejection::because(EXISTING));
        }
        Ok(())
    }

    fn sees(&self, state: &CycleState) -> Sees {
        let free = state.get::<Required>().is_none_or(|required| {
            required.near.is_empty() && required.apart.is_empty() && required.forbidden.is_empty()
        });
        if free { Sees::NoPods } else { Sees::AllPods }
    }

    fn is_cured_by(&self, pod: &PodInfo, event: &Event<'_>) -> bool {
        match event {
            Event::NodeAdded(_) => true,
            Event::NodeUpdated { changes, .. } => changes.labels,
            // It may have been in the way, by its terms or by ours.
            Event::PodRemoved { pod: gone, .. } => {
                !pod.constraints.anti_affinity.is_empty() || !gone.constraints.wishes.is_empty()
            }
            Event::PodAdded(_) => !pod.constraints.affinity.is_empty(),
        }
    }
}

impl Score for InterPodAffinity {
    fn weight(&self) -> i64 {
        2
    }

    fn pre_score(&self, state: &mut CycleState, pod: &PodInfo, cache: &Cache, _: &[usize]) {
        let mut by_key: HashMap<String, HashMap<String, i64>> = HashMap::new();
        let mut add = |key: &str, counts: &Counts, weight: i64| {
            let scores = by_key.entry(key.to_owned()).or_default();
            for (value, count) in &counts.pods {
                *scores.entry(value.clone()).or_default() += count * weight;
            }
        };
        for (weight, term) in &pod.constraints.preferred {
            add(&term.key, &cache.counts(term), *weight);
        }
        for (key, wish, counts) in cache.wishes_about(pod, |wish| wish != Wish::Forbids) {
            let weight = match wish {
                Wish::Likes(weight) => weight,
                Wish::Requires => HARD_AFFINITY_WEIGHT,
                Wish::Forbids => 0,
            };
            add(&key, &counts, weight);
        }
        state.put(Preferred { by_key });
    }

    fn score(&self, state: &CycleState, _: &PodInfo, node: &NodeInfo) -> i64 {
        let Some(preferred) = state.get::<Preferred>() else {
            return 0;
        };
        let scores = preferred.by_key.iter();
        scores
            .filter_map(|(key, scores)| scores.get(label(node, key)?).copied())
            .sum()
    }

    fn normalize(&self, _: &CycleState, scores: &mut [i64]) {
        let (Some(min), Some(max)) = (scores.iter().min().copied(), scores.iter().max().copied())
        else {
            return;
        };
        for score in scores {
            *score = if max == min {
                0
            } else {
                MAX_SCORE * (*score - min) / (max - min)
            };
        }
    }
}
