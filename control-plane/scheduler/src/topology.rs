//! How many pods match a term in each value of a topology key, kept up to date by events.
//!
//! ```text
//! term (key, selectors, namespaces, nodes that count) ─► value of the key ─► matching pods
//! ```
//!
//! A term is counted over all pods once, when a pod first asks for it; from then on each pod that
//! comes or goes changes the counts. So a pod's placement costs the number of distinct terms, not
//! of pods. What changes nodes or namespaces (rare) makes the counts start anew.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use hull_client::{node_affinity, taints::tolerates};
use k8s_openapi::{
    api::core::v1::{Node, PodSpec},
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use kube::core::{Selector, SelectorExt};
use serde_json::json;

use crate::pod::PodInfo;

/// Most terms counted at a time; the oldest goes first.
const MAX_TERMS: usize = 1024;

/// Labels by namespace.
pub type NamespaceLabels = HashMap<String, BTreeMap<String, String>>;

/// Which pods.
#[derive(Debug, Clone)]
pub struct Condition {
    selector: Option<Selector>,
    namespaces: BTreeSet<String>,
    namespace_selector: Option<Selector>,
    text: String,
}

fn parse(selector: Option<&LabelSelector>) -> Option<Selector> {
    Selector::try_from(selector?.clone()).ok()
}

impl Condition {
    /// An absent selector matches nothing; an absent namespace selector adds no namespaces.
    pub fn new(
        selector: Option<&LabelSelector>,
        namespaces: BTreeSet<String>,
        namespace_selector: Option<&LabelSelector>,
    ) -> Self {
        let text = json!([selector, namespaces, namespace_selector]).to_string();
        Condition {
            selector: parse(selector),
            namespaces,
            namespace_selector: parse(namespace_selector),
            text,
        }
    }

    /// Whether the pod is one of them.
    pub fn matches(&self, pod: &PodInfo, namespaces: &NamespaceLabels) -> bool {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        let there = self.namespaces.contains(pod.namespace())
            || self.namespace_selector.as_ref().is_some_and(|selector| {
                selector.matches(namespaces.get(pod.namespace()).unwrap_or(&NONE))
            });
        let labels = pod.pod.metadata.labels.as_ref().unwrap_or(&NONE);
        there
            && self
                .selector
                .as_ref()
                .is_some_and(|selector| selector.matches(labels))
    }
}

/// Which nodes count.
#[derive(Debug, Clone)]
pub struct Scope {
    /// Labels that they must have.
    pub keys: Vec<String>,
    /// The pod whose node affinity they must match.
    pub affinity_of: Option<Arc<PodSpec>>,
    /// The pod that must tolerate their taints.
    pub taints_of: Option<Arc<PodSpec>>,
}

impl Scope {
    fn text(&self) -> String {
        let affinity = self.affinity_of.as_ref().map(|spec| {
            let required = node_affinity::affinity(spec).and_then(|affinity| {
                affinity
                    .required_during_scheduling_ignored_during_execution
                    .clone()
            });
            json!([spec.node_selector, required])
        });
        let tolerations = self.taints_of.as_ref().map(|spec| &spec.tolerations);
        json!([self.keys, affinity, tolerations]).to_string()
    }

    fn has(&self, node: &Node) -> bool {
        let labels = node.metadata.labels.as_ref();
        let labelled = self
            .keys
            .iter()
            .all(|key| labels.is_some_and(|labels| labels.contains_key(key)));
        let liked = self
            .affinity_of
            .as_ref()
            .is_none_or(|spec| node_affinity::matches(spec, node));
        let borne = self.taints_of.as_ref().is_none_or(|spec| {
            let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
            taints.into_iter().flatten().all(|taint| {
                !matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute")
                    || tolerates(spec.tolerations.as_ref(), taint)
            })
        });
        labelled && liked && borne
    }
}

/// What is counted.
#[derive(Debug, Clone)]
pub struct Term {
    /// The label whose values are told apart.
    pub key: String,
    all: Vec<Condition>,
    scope: Option<Scope>,
    /// Pods that are being deleted count too.
    terminating: bool,
    /// Tells terms apart.
    id: Arc<str>,
}

impl Term {
    /// Counts pods that meet all conditions.
    pub fn new(key: &str, all: Vec<Condition>, scope: Option<Scope>, terminating: bool) -> Self {
        let conditions: Vec<&str> = all
            .iter()
            .map(|condition| condition.text.as_str())
            .collect();
        let scope_text = scope.as_ref().map(Scope::text);
        let id = json!([key, conditions, scope_text, terminating]).to_string();
        Term {
            key: key.to_owned(),
            all,
            scope,
            terminating,
            id: id.into(),
        }
    }

    /// Whether the pod meets the conditions.
    pub fn matches(&self, pod: &PodInfo, namespaces: &NamespaceLabels) -> bool {
        (self.terminating || pod.pod.metadata.deletion_timestamp.is_none())
            && self
                .all
                .iter()
                .all(|condition| condition.matches(pod, namespaces))
    }

    fn value_of<'n>(&self, node: &'n Node) -> Option<&'n String> {
        if self.scope.as_ref().is_some_and(|scope| !scope.has(node)) {
            return None;
        }
        value(node, &self.key)
    }
}

/// The node's label.
pub fn value<'n>(node: &'n Node, key: &str) -> Option<&'n String> {
    node.metadata.labels.as_ref()?.get(key)
}

/// Matching pods by value.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Pods.
    pub pods: HashMap<String, i64>,
    /// Nodes that count, also without such a pod.
    pub nodes: HashMap<String, usize>,
    /// Pods of all values.
    pub total: i64,
}

impl Counts {
    /// Of one value.
    pub fn of(&self, value: &str) -> i64 {
        self.pods.get(value).copied().unwrap_or(0)
    }

    fn change(&mut self, value: &str, by: i64) {
        self.total += by;
        match self.pods.get_mut(value) {
            Some(count) => *count += by,
            None => {
                self.pods.insert(value.to_owned(), by);
            }
        }
        if self.pods.get(value) == Some(&0) {
            self.pods.remove(value);
        }
    }
}

/// What a placed pod's own term means to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wish {
    /// Nobody who matches near it.
    Forbids,
    /// It must have those who match near it, so more of them are welcome.
    Requires,
    /// It likes them (or, below zero, does not), this much.
    Likes(i64),
}

/// Placed pods with the same term and wish.
#[derive(Debug, Clone)]
pub struct Placed {
    /// Whom it is about.
    pub term: Term,
    /// What about them.
    pub wish: Wish,
    /// Where such pods are.
    pub counts: Arc<Counts>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct TopologyIndex {
    asked: HashMap<Arc<str>, (Term, Arc<Counts>)>,
    order: VecDeque<Arc<str>>,
    placed: HashMap<(Arc<str>, Wish), Placed>,
    stale: bool,
}

/// A node with its pods.
pub type Populated<'a> = (&'a Node, &'a [Arc<PodInfo>]);

impl TopologyIndex {
    /// Nodes or namespaces have changed.
    pub fn start_anew(&mut self) {
        self.stale = true;
    }

    /// A pod came to (`by` 1) or left (`by` -1) the node.
    pub fn change(&mut self, node: &Node, pod: &PodInfo, by: i64, namespaces: &NamespaceLabels) {
        if self.stale {
            return;
        }
        for (term, counts) in self.asked.values_mut() {
            if term.matches(pod, namespaces)
                && let Some(value) = term.value_of(node)
            {
                Arc::make_mut(counts).change(value, by);
            }
        }
        self.change_placed(node, pod, by);
    }

    fn change_placed(&mut self, node: &Node, pod: &PodInfo, by: i64) {
        for (wish, term) in pod.wishes() {
            let Some(value) = term.value_of(node) else {
                continue;
            };
            let id = (term.id.clone(), wish);
            let placed = self.placed.entry(id.clone()).or_insert_with(|| Placed {
                term: term.clone(),
                wish,
                counts: Arc::default(),
            });
            let counts = Arc::make_mut(&mut placed.counts);
            counts.change(value, by);
            if counts.total <= 0 {
                self.placed.remove(&id);
            }
        }
    }

    fn refresh<'a>(&mut self, cluster: impl Iterator<Item = Populated<'a>>) {
        if !std::mem::take(&mut self.stale) {
            return;
        }
        self.asked.clear();
        self.order.clear();
        self.placed.clear();
        for (node, pods) in cluster {
            for pod in pods {
                self.change_placed(node, pod, 1);
            }
        }
    }

    /// The counts of a term.
    pub fn counts<'a>(
        &mut self,
        term: &Term,
        cluster: impl Iterator<Item = Populated<'a>> + Clone,
        namespaces: &NamespaceLabels,
    ) -> Arc<Counts> {
        self.refresh(cluster.clone());
        if let Some((_, counts)) = self.asked.get(&term.id) {
            return counts.clone();
        }
        let mut counts = Counts::default();
        for (node, pods) in cluster {
            let Some(value) = term.value_of(node) else {
                continue;
            };
            *counts.nodes.entry(value.clone()).or_default() += 1;
            for pod in pods.iter().filter(|pod| term.matches(pod, namespaces)) {
                tracing::trace!(pod = pod.name(), "counted");
                counts.change(value, 1);
            }
        }
        if self.asked.len() >= MAX_TERMS
            && let Some(oldest) = self.order.pop_front()
        {
            self.asked.remove(&oldest);
        }
        let counts = Arc::new(counts);
        self.order.push_back(term.id.clone());
        self.asked
            .insert(term.id.clone(), (term.clone(), counts.clone()));
        counts
    }

    /// Wishes of placed pods that are about this pod.
    pub fn wishes_about<'a>(
        &mut self,
        pod: &PodInfo,
        cluster: impl Iterator<Item = Populated<'a>>,
        namespaces: &NamespaceLabels,
        interesting: impl Fn(Wish) -> bool,
    ) -> Vec<(String, Wish, Arc<Counts>)> {
        self.refresh(cluster);
        self.placed
            .values()
            .filter(|placed| interesting(placed.wish) && placed.term.matches(pod, namespaces))
            .map(|placed| (placed.term.key.clone(), placed.wish, placed.counts.clone()))
            .collect()
    }
}
