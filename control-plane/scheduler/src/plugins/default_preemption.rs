//! DefaultPreemption: room for a pod that fits nowhere, at the cost of less important ones.
//!
//! On each node that could help, all pods of lower priority are taken away in thought; if the pod
//! then fits, they are put back one by one, the most important first, as long as it still does.
//! Those that stay away are the victims. Of all nodes the one is taken whose victims break the
//! fewest disruption budgets, then are least important, then fewest, then youngest.

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;

use crate::{
    cache::Cache,
    framework::{CycleState, Diagnosis, Framework, Plugin, PostFilter, Preemption, Sees},
    pod::PodInfo,
};

/// Fewest nodes tried, if there are as many.
const MIN_CANDIDATES: usize = 100;
/// Share of the nodes tried.
const MIN_CANDIDATES_PERCENT: usize = 10;

/// See the module.
pub struct DefaultPreemption;

/// A node and what it would cost.
struct Candidate {
    node: Arc<str>,
    victims: Vec<Arc<PodInfo>>,
    violations: usize,
}

impl Plugin for DefaultPreemption {
    fn name(&self) -> &'static str {
        "DefaultPreemption"
    }
}

impl PostFilter for DefaultPreemption {
    fn post_filter(
        &self,
        framework: &Framework,
        cache: &mut Cache,
        pod: &Arc<PodInfo>,
        diagnosis: &Diagnosis,
    ) -> Result<Preemption, String> {
        let total = cache.node_count();
        if pod.spec().preemption_policy.as_deref() == Some("Never") {
            return Err("not eligible due to preemptionPolicy=Never.".into());
        }
        if waits_for_victims(cache, pod) {
            return Err("not eligible due to a terminating pod on the nominated node.".into());
        }
        let helpful = &diagnosis.resolvable;
        let most = (total * MIN_CANDIDATES_PERCENT / 100).max(MIN_CANDIDATES);
        let mut candidates = Vec::new();
        let mut without_victims = 0;
        let mut state = CycleState::default();
        let prepared = framework.pre_filter(&mut state, pod, cache).is_ok();
        let alone = prepared && framework.sees(&state) < Sees::AllPods;
        for node in helpful {
            if candidates.len() >= most {
                break;
            }
            let found = if alone {
                draft_run(framework, cache, &state, pod, node)
            } else {
                dry_run(framework, cache, pod, node)
            };
            match found {
                Some(candidate) => candidates.push(candidate),
                None => without_victims += 1,
            }
        }
        let best = candidates.into_iter().min_by_key(cost);
        let Some(best) = best else {
            return Err(refusal(total, total - helpful.len(), without_victims));
        };
        Ok(Preemption {
            node: best.node,
            victims: best.victims,
        })
    }
}

fn refusal(total: usize, helpless: usize, without_victims: usize) -> String {
    let mut parts = Vec::new();
    if without_victims > 0 {
        parts.push(format!(
            "{without_victims} No preemption victims found for incoming pod"
        ));
    }
    if helpless > 0 {
        parts.push(format!(
            "{helpless} Preemption is not helpful for scheduling"
        ));
    }
    format!("0/{total} nodes are available: {}.", parts.join(", "))
}

/// Room is being made for it already.
fn waits_for_victims(cache: &Cache, pod: &PodInfo) -> bool {
    let Some(node) = cache
        .nominated_node(&pod.uid)
        .and_then(|name| cache.node(&name))
    else {
        return false;
    };
    node.pods.iter().any(|other| {
        other.priority() < pod.priority() && other.pod.metadata.deletion_timestamp.is_some()
    })
}

fn started(pod: &PodInfo) -> Timestamp {
    let status = pod.pod.status.as_ref();
    let since = status.and_then(|status| status.start_time.as_ref());
    since
        .or(pod.pod.metadata.creation_timestamp.as_ref())
        .map_or(Timestamp::MAX, |time| time.0)
}

/// Smaller is better.
fn cost(candidate: &Candidate) -> (usize, i32, i64, usize, std::cmp::Reverse<Timestamp>) {
    let priorities = candidate.victims.iter().map(|pod| pod.priority());
    let highest = priorities.clone().max().unwrap_or(i32::MIN);
    // Shifted, so that a victim of negative priority does not make the sum smaller.
    let sum = priorities
        .map(|priority| i64::from(priority) - i64::from(i32::MIN))
        .sum();
    let important = candidate
        .victims
        .iter()
        .filter(|pod| pod.priority() == highest);
    let earliest = important.map(|pod| started(pod)).min();
    (
        candidate.violations,
        highest,
        sum,
        candidate.victims.len(),
        std::cmp::Reverse(earliest.unwrap_or(Timestamp::MAX)),
    )
}

fn fits(framework: &Framework, cache: &Cache, pod: &PodInfo, node: &str) -> bool {
    let mut state = CycleState::default();
    let prepared = framework.pre_filter(&mut state, pod, cache);
    prepared.is_ok()
        && cache
            .node(node)
            .is_some_and(|node| framework.passes(cache, &state, pod, node))
}

/// For a pod whose place does not depend on pods of other nodes: on a draft of the node, without
/// preparing the pod anew for each pod put back.
fn draft_run(
    framework: &Framework,
    cache: &Cache,
    state: &CycleState,
    pod: &Arc<PodInfo>,
    node: &Arc<str>,
) -> Option<Candidate> {
    let mut draft = cache.draft(node, pod)?;
    let mut lesser = draft.take_all(|other| other.priority() < pod.priority());
    if lesser.is_empty() || !framework.passes_draft(state, pod, &draft) {
        return None;
    }
    sort_by_importance(&mut lesser);
    let (breaking, others) = cache.budgets().split(lesser);
    let mut victims = Vec::new();
    let mut violations = 0;
    for (pods, breaks) in [(breaking, true), (others, false)] {
        for other in pods {
            draft.put(&other);
            if framework.still_passes(state, pod, &draft) {
                continue;
            }
            draft.take_last();
            violations += usize::from(breaks);
            victims.push(other);
        }
    }
    sort_by_importance(&mut victims);
    (!victims.is_empty()).then(|| Candidate {
        node: node.clone(),
        victims,
        violations,
    })
}

/// The most important first.
fn sort_by_importance(pods: &mut [Arc<PodInfo>]) {
    pods.sort_by_key(|pod| (std::cmp::Reverse(pod.priority()), started(pod)));
}

/// For a pod whose place depends on pods anywhere: in the cache, which is put right again.
fn dry_run(
    framework: &Framework,
    cache: &mut Cache,
    pod: &Arc<PodInfo>,
    node: &Arc<str>,
) -> Option<Candidate> {
    let mut lesser: Vec<Arc<PodInfo>> = cache
        .node(node)?
        .pods
        .iter()
        .filter(|other| other.priority() < pod.priority())
        .cloned()
        .collect();
    if lesser.is_empty() {
        return None;
    }
    sort_by_importance(&mut lesser);
    let (breaking, others) = cache.budgets().split(lesser.clone());
    let placed: Vec<_> = lesser
        .iter()
        .filter_map(|pod| cache.take(&pod.uid))
        .collect();
    let mut found = None;
    if fits(framework, cache, pod, node) {
        let mut victims = Vec::new();
        let mut violations = 0;
        for (pods, breaks) in [(breaking, true), (others, false)] {
            for other in pods {
                cache.lend(&other, node);
                if fits(framework, cache, pod, node) {
                    continue;
                }
                cache.take(&other.uid);
                violations += usize::from(breaks);
                victims.push(other);
            }
        }
        if !victims.is_empty() {
            sort_by_importance(&mut victims);
            found = Some(Candidate {
                node: node.clone(),
                victims,
                violations,
            });
        }
    }
    // Everything back as it was.
    for one in placed {
        cache.give_back(one);
    }
    found
}
