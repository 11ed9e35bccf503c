//! What a pod says about other pods: affinity, anti-affinity and spreading, prepared once.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::{
    api::core::v1::{Pod, PodAffinityTerm, PodSpec, TopologySpreadConstraint},
    apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement},
};

use crate::topology::{Condition, Scope, Term, Wish};

/// A spread constraint.
#[derive(Debug)]
pub struct Spread {
    /// What is counted.
    pub term: Term,
    /// Largest difference allowed.
    pub max_skew: i64,
    /// With fewer domains the smallest count is taken as 0.
    pub min_domains: Option<i64>,
    /// `DoNotSchedule`.
    pub required: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Constraints {
    /// One term per topology key; each counts the pods that match all required terms.
    pub affinity: Vec<Term>,
    /// Required anti-affinity.
    pub anti_affinity: Vec<Term>,
    /// Preferred terms with their weights, those of anti-affinity below zero.
    pub preferred: Vec<(i64, Term)>,
    /// What others should know once the pod is placed.
    pub wishes: Vec<(Wish, Term)>,
    /// Spread constraints.
    pub spread: Vec<Spread>,
}

/// The selector with what `matchLabelKeys` and `mismatchLabelKeys` add.
fn selector(
    pod: &Pod,
    base: Option<&LabelSelector>,
    same: Option<&Vec<String>>,
    different: Option<&Vec<String>>,
) -> Option<LabelSelector> {
    let mut selector = base?.clone();
    let labels = pod.metadata.labels.as_ref();
    for (keys, operator) in [(same, "In"), (different, "NotIn")] {
        for key in keys.into_iter().flatten() {
            let Some(value) = labels.and_then(|labels| labels.get(key)) else {
                continue;
            };
            let requirement = LabelSelectorRequirement {
                key: key.clone(),
                operator: operator.into(),
                values: Some(vec![value.clone()]),
            };
            let list = selector.match_expressions.get_or_insert_default();
            if !list.contains(&requirement) {
                list.push(requirement);
            }
        }
    }
    Some(selector)
}

fn condition(pod: &Pod, term: &PodAffinityTerm) -> Condition {
    let own = pod.metadata.namespace.clone().unwrap_or_default();
    let mut namespaces: BTreeSet<String> = term.namespaces.iter().flatten().cloned().collect();
    if namespaces.is_empty() && term.namespace_selector.is_none() {
        namespaces.insert(own);
    }
    let selector = selector(
        pod,
        term.label_selector.as_ref(),
        term.match_label_keys.as_ref(),
        term.mismatch_label_keys.as_ref(),
    );
    Condition::new(
        selector.as_ref(),
        namespaces,
        term.namespace_selector.as_ref(),
    )
}

fn single(pod: &Pod, term: &PodAffinityTerm) -> Term {
    Term::new(&term.topology_key, vec![condition(pod, term)], None, true)
}

impl Constraints {
    /// Of a pod.
    pub fn of(pod: &Pod, spec: &PodSpec) -> Self {
        let mut constraints = Constraints::default();
        let affinity = spec.affinity.as_ref();
        if let Some(near) = affinity.and_then(|affinity| affinity.pod_affinity.as_ref()) {
            let required = near
                .required_during_scheduling_ignored_during_execution
                .as_deref()
                .unwrap_or_default();
            let all: Vec<Condition> = required.iter().map(|term| condition(pod, term)).collect();
            for term in required {
                let compound = Term::new(&term.topology_key, all.clone(), None, true);
                constraints.affinity.push(compound);
                constraints.wishes.push((Wish::Requires, single(pod, term)));
            }
            for term in near
                .preferred_during_scheduling_ignored_during_execution
                .iter()
                .flatten()
            {
                let weight = i64::from(term.weight);
                constraints.prefer(weight, single(pod, &term.pod_affinity_term));
            }
        }
        if let Some(apart) = affinity.and_then(|affinity| affinity.pod_anti_affinity.as_ref()) {
            for term in apart
                .required_during_scheduling_ignored_during_execution
                .iter()
                .flatten()
            {
                let term = single(pod, term);
                constraints.anti_affinity.push(term.clone());
                constraints.wishes.push((Wish::Forbids, term));
            }
            for term in apart
                .preferred_during_scheduling_ignored_during_execution
                .iter()
                .flatten()
            {
                let weight = -i64::from(term.weight);
                constraints.prefer(weight, single(pod, &term.pod_affinity_term));
            }
        }
        let spread = spec
            .topology_spread_constraints
            .as_deref()
            .unwrap_or_default();
        constraints.spread = spread_constraints(pod, spec, spread);
        constraints
    }

    fn prefer(&mut self, weight: i64, term: Term) {
        self.wishes.push((Wish::Likes(weight), term.clone()));
        self.preferred.push((weight, term));
    }
}

fn spread_constraints(
    pod: &Pod,
    spec: &PodSpec,
    constraints: &[TopologySpreadConstraint],
) -> Vec<Spread> {
    if constraints.is_empty() {
        return Vec::new();
    }
    let spec = Arc::new(PodSpec {
        node_selector: spec.node_selector.clone(),
        affinity: spec.affinity.clone(),
        tolerations: spec.tolerations.clone(),
        ..PodSpec::default()
    });
    let is_required = |one: &TopologySpreadConstraint| one.when_unsatisfiable == "DoNotSchedule";
    constraints
        .iter()
        .map(|one| {
            let required = is_required(one);
            // Only nodes with all keys of the same kind of constraint take part.
            let keys = constraints
                .iter()
                .filter(|other| is_required(other) == required)
                .map(|other| other.topology_key.clone());
            let scope = Scope {
                keys: keys.collect(),
                affinity_of: (one.node_affinity_policy.as_deref() != Some("Ignore"))
                    .then(|| spec.clone()),
                taints_of: (one.node_taints_policy.as_deref() == Some("Honor"))
                    .then(|| spec.clone()),
            };
            let selector = selector(
                pod,
                one.label_selector.as_ref(),
                one.match_label_keys.as_ref(),
                None,
            );
            let own = pod.metadata.namespace.clone().unwrap_or_default();
            let condition = Condition::new(selector.as_ref(), BTreeSet::from([own]), None);
            Spread {
                term: Term::new(&one.topology_key, vec![condition], Some(scope), false),
                max_skew: i64::from(one.max_skew),
                min_domains: one.min_domains.map(i64::from),
                required,
            }
        })
        .collect()
}
