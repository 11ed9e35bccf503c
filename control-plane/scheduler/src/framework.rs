//! Extension points and the order in which they run.
//!
//! ```text
//! PreEnqueue → QueueSort → PreFilter → Filter (per node) → PreScore → Score (per node) → Normalize
//!     → Reserve → PreBind → Bind
//!               └ no node: PostFilter (preemption)
//! ```
//!
//! Everything up to Reserve is synchronous and reads only the [`Cache`]; PreBind and Bind are
//! asynchronous.

use std::{
    any::{Any, TypeId},
    borrow::Cow,
    collections::HashMap,
    sync::Arc,
};

use crate::{
    cache::{Cache, NodeChanges, NodeInfo},
    pod::PodInfo,
};

/// Highest score of a node.
pub const MAX_SCORE: i64 = 100;

/// What plugins keep for one pod between the extension points.
#[derive(Default)]
pub struct CycleState {
    values: HashMap<TypeId, Box<dyn Any + Send + Sync>>,
}

impl CycleState {
    /// Keeps a value of the plugin's own type.
    pub fn put<T: Any + Send + Sync>(&mut self, value: T) {
        self.values.insert(TypeId::of::<T>(), Box::new(value));
    }

    /// Gives it back.
    pub fn get<T: Any + Send + Sync>(&self) -> Option<&T> {
        self.values.get(&TypeId::of::<T>())?.downcast_ref()
    }
}

/// Why a node does not do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// In Kubernetes' words.
    pub reasons: Vec<Cow<'static, str>>,
    /// The node might do if pods left it.
    pub resolvable: bool,
}

impl Rejection {
    /// With one reason that no pod's departure changes.
    pub fn for_good(reason: impl Into<Cow<'static, str>>) -> Self {
        Rejection {
            resolvable: false,
            ..Self::because(reason)
        }
    }

    /// With one reason.
    pub fn because(reason: impl Into<Cow<'static, str>>) -> Self {
        Rejection {
            reasons: vec![reason.into()],
            resolvable: true,
        }
    }
}

/// A change that may let a pod find a place.
#[derive(Debug)]
pub enum Event<'a> {
    /// A node came.
    NodeAdded(&'a NodeInfo),
    /// A node changed.
    NodeUpdated {
        /// As it is now.
        node: &'a NodeInfo,
        /// What is different.
        changes: NodeChanges,
    },
    /// A pod left a node or shrank.
    PodRemoved {
        /// As it was.
        pod: &'a PodInfo,
        /// Where it was, if the node is still there.
        node: Option<&'a NodeInfo>,
    },
    /// A pod was placed.
    PodAdded(&'a PodInfo),
}

/// Every plugin.
pub trait Plugin: Send + Sync + 'static {
    /// As in Kubernetes' configuration.
    fn name(&self) -> &'static str;
}

/// Order of the active queue: smaller ranks first.
pub trait QueueSort: Plugin {
    /// The pod's rank.
    fn rank(&self, pod: &PodInfo) -> (i64, i64);
}

/// Says whether a pod may enter the queue.
pub trait PreEnqueue: Plugin {
    /// A rejection keeps the pod out until it changes.
    fn pre_enqueue(&self, pod: &PodInfo) -> Result<(), Rejection>;
}

/// Runs once per pod before the nodes are filtered.
pub trait PreFilter: Plugin {
    /// Prepares state. A rejection refuses all nodes. `Some` names narrow the nodes down.
    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        cache: &Cache,
    ) -> Result<Option<Vec<String>>, Rejection>;
}

/// Which placed pods a filter's verdict about a node depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sees {
    /// On none.
    NoPods,
    /// On those of the node.
    PodsOfNode,
    /// On all: once one has come or gone, PreFilter must run again.
    AllPods,
}

/// Says whether a node can take the pod.
pub trait Filter: Plugin {
    /// Whether this node can.
    fn filter(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection>;
    /// What its verdicts about the pod that the state is of depend on.
    fn sees(&self, _state: &CycleState) -> Sees {
        Sees::PodsOfNode
    }
    /// Events of this sort undo none of this filter's refusals, whatever the pod.
    fn ignores(&self, _event: &Event<'_>) -> bool {
        false
    }
    /// Queueing hint: whether the event can undo this filter's refusal of the pod.
    fn is_cured_by(&self, pod: &PodInfo, event: &Event<'_>) -> bool;
}

/// Compares the nodes that can take the pod.
pub trait Score: Plugin {
    /// Multiplies this plugin's scores.
    fn weight(&self) -> i64;
    /// Runs once before the nodes (indexes of the cache's entries) are scored (PreScore).
    fn pre_score(&self, _state: &mut CycleState, _pod: &PodInfo, _cache: &Cache, _nodes: &[usize]) {
    }
    /// Higher is better; within 0 to [`MAX_SCORE`] unless [`Score::normalize`] makes it so.
    fn score(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> i64;
    /// Brings all nodes' scores into 0 to [`MAX_SCORE`].
    fn normalize(&self, _state: &CycleState, _scores: &mut [i64]) {}
}

/// What makes room for a pod.
#[derive(Debug)]
pub struct Preemption {
    /// Where.
    pub node: Arc<str>,
    /// Pods to delete.
    pub victims: Vec<Arc<PodInfo>>,
}

/// Runs when no node can take the pod.
pub trait PostFilter: Plugin {
    /// Finds room, or says why there is none. Leaves the cache as it was.
    fn post_filter(
        &self,
        framework: &Framework,
        cache: &mut Cache,
        pod: &Arc<PodInfo>,
        diagnosis: &Diagnosis,
    ) -> Result<Preemption, String>;
}

/// Takes what the pod needs, before it is bound.
pub trait Reserve: Plugin {
    /// Takes it. A rejection undoes what was taken.
    fn reserve(&self, pod: &PodInfo, node: &str) -> Result<(), Rejection>;
    /// Gives it back; also called when `reserve` was not.
    fn unreserve(&self, pod: &PodInfo, node: &str);
}

/// Why a pod could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// It is gone, or another pod of that name is there.
    #[error("the pod no longer exists: {0}")]
    Gone(#[source] kube::Error),
    /// Anything else.
    #[error("{0}")]
    Failed(#[source] kube::Error),
}

/// Prepares the node for the pod, after it was chosen and before it is bound.
#[async_trait::async_trait]
pub trait PreBind: Plugin {
    /// An error gives the node up; the pod tries again.
    async fn pre_bind(&self, pod: &PodInfo, node: &str) -> Result<(), BindError>;
}

/// Writes the decision.
#[async_trait::async_trait]
pub trait Bind: Plugin {
    /// Binds.
    async fn bind(&self, pod: &PodInfo, node: &str) -> Result<(), BindError>;
}

/// A linear map of scores onto 0 to [`MAX_SCORE`]; `reverse` makes the smallest the best.
pub fn normalize_linear(scores: &mut [i64], reverse: bool) {
    let max = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        let scaled = if max == 0 {
            0
        } else {
            *score * MAX_SCORE / max
        };
        *score = if reverse { MAX_SCORE - scaled } else { scaled };
    }
}

/// The plugins of this scheduler.
pub struct Framework {
    /// All must admit a pod.
    pub pre_enqueues: Vec<Box<dyn PreEnqueue>>,
    /// Order of pods.
    pub queue_sort: Box<dyn QueueSort>,
    /// In order.
    pub pre_filters: Vec<Box<dyn PreFilter>>,
    /// In order; the first that refuses a node decides.
    pub filters: Vec<Box<dyn Filter>>,
    /// Added up by weight.
    pub scores: Vec<Box<dyn Score>>,
    /// In order; the first that finds room decides.
    pub post_filters: Vec<Box<dyn PostFilter>>,
    /// In order.
    pub reserves: Vec<Box<dyn Reserve>>,
    /// In order.
    pub pre_binds: Vec<Arc<dyn PreBind>>,
}

/// Why no node does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diagnosis {
    /// Nodes looked at.
    pub nodes: usize,
    /// Refusals by reason.
    pub reasons: HashMap<Cow<'static, str>, usize>,
    /// Filters (by index) that refused something.
    pub refused_by: u64,
    /// All nodes were refused at once, for this.
    pub pre_filter: Option<Box<Rejection>>,
    /// Nodes that might do if pods left them.
    pub resolvable: Vec<Arc<str>>,
    /// What PostFilter said.
    pub preemption: Option<String>,
}

impl Diagnosis {
    /// In Kubernetes' words: `0/3 nodes are available: 1 Insufficient cpu, 2 Too many pods.`
    pub fn message(&self) -> String {
        if self.nodes == 0 {
            return "no nodes available to schedule pods".into();
        }
        let mut parts: Vec<String> = match &self.pre_filter {
            Some(rejection) => rejection.reasons.iter().map(|r| r.to_string()).collect(),
            None => self
                .reasons
                .iter()
                .map(|(reason, count)| format!("{count} {reason}"))
                .collect(),
        };
        parts.sort();
        let preemption = self.preemption.as_ref();
        let preemption = preemption.map(|said| format!(" preemption: {said}"));
        format!(
            "0/{} nodes are available: {}.{}",
            self.nodes,
            parts.join(", "),
            preemption.unwrap_or_default()
        )
    }
}

/// Nodes that can take the pod, as indexes into the cache's entries.
pub struct Feasible {
    /// Indexes.
    pub nodes: Vec<usize>,
    /// How many were looked at.
    pub evaluated: usize,
}

/// The entries to look at.
enum Walk {
    /// So many, beginning anywhere.
    All(usize),
    These(Vec<usize>),
}

impl Walk {
    fn len(&self) -> usize {
        match self {
            Walk::All(count) => *count,
            Walk::These(these) => these.len(),
        }
    }

    fn index(&self, step: usize) -> usize {
        match self {
            Walk::All(count) => step % count.max(&1),
            Walk::These(these) => these.get(step).copied().unwrap_or(usize::MAX),
        }
    }
}

/// The entries of these nodes, each once.
fn named(cache: &Cache, names: &[String]) -> Walk {
    let there = names.iter().filter(|name| cache.node(name).is_some());
    let mut these: Vec<usize> = there
        .filter_map(|name| cache.entries().get_index_of(&**name))
        .collect();
    these.sort_unstable();
    these.dedup();
    Walk::These(these)
}

impl Framework {
    /// Looks for up to `wanted` nodes, beginning at entry `start`.
    pub fn find_feasible(
        &self,
        cache: &Cache,
        state: &mut CycleState,
        pod: &PodInfo,
        start: usize,
        wanted: usize,
    ) -> Result<Feasible, Diagnosis> {
        let mut diagnosis = Diagnosis {
            nodes: cache.node_count(),
            ..Diagnosis::default()
        };
        let only = match self.pre_filter(state, pod, cache) {
            Ok(only) => only,
            Err(rejection) => {
                diagnosis.pre_filter = Some(Box::new(rejection));
                return Err(diagnosis);
            }
        };
        let entries = cache.entries();
        let mut feasible = Feasible {
            nodes: Vec::new(),
            evaluated: 0,
        };
        // Named nodes are looked up: a daemon's pod must not cost a walk over all of them.
        let (first, walk) = match &only {
            Some(names) => (0, named(cache, names)),
            None => (start, Walk::All(entries.len())),
        };
        if let Walk::These(these) = &walk
            && these.len() < cache.node_count()
        {
            let reason = "node(s) didn't satisfy plugin(s) [NodeAffinity]";
            let others = cache.node_count() - these.len();
            diagnosis.reasons.insert(reason.into(), others);
            diagnosis.refused_by = u64::MAX;
        }
        for offset in 0..walk.len() {
            let index = walk.index(first + offset);
            let Some((name, node)) = entries.get_index(index) else {
                continue;
            };
            if node.node.is_none() {
                continue;
            }
            feasible.evaluated += 1;
            if self.filter(cache, state, pod, (name, node), &mut diagnosis) {
                feasible.nodes.push(index);
                if feasible.nodes.len() >= wanted {
                    break;
                }
            }
        }
        if feasible.nodes.is_empty() {
            Err(diagnosis)
        } else {
            Ok(feasible)
        }
    }

    /// Runs the PreFilter plugins; gives the names that the nodes are narrowed down to.
    ///
    /// # Errors
    /// What refuses all nodes.
    pub fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        cache: &Cache,
    ) -> Result<Option<Vec<String>>, Rejection> {
        let mut only: Option<Vec<String>> = None;
        for plugin in &self.pre_filters {
            if let Some(names) = plugin.pre_filter(state, pod, cache)? {
                match &mut only {
                    Some(only) => only.retain(|name| names.contains(name)),
                    None => only = Some(names),
                }
            }
        }
        Ok(only)
    }

    fn filter(
        &self,
        cache: &Cache,
        state: &CycleState,
        pod: &PodInfo,
        (name, node): (&Arc<str>, &NodeInfo),
        diagnosis: &mut Diagnosis,
    ) -> bool {
        let Err((number, rejection)) = self.judge(cache, state, pod, node) else {
            return true;
        };
        diagnosis.refused_by |= 1 << number.min(63);
        if rejection.resolvable {
            diagnosis.resolvable.push(name.clone());
        }
        for reason in rejection.reasons {
            *diagnosis.reasons.entry(reason).or_default() += 1;
        }
        false
    }

    /// Whether the node can take the pod.
    pub fn passes(
        &self,
        cache: &Cache,
        state: &CycleState,
        pod: &PodInfo,
        node: &NodeInfo,
    ) -> bool {
        self.judge(cache, state, pod, node).is_ok()
    }

    /// Room that was made for more important pods is not free: the node must do with them too.
    fn judge(
        &self,
        cache: &Cache,
        state: &CycleState,
        pod: &PodInfo,
        node: &NodeInfo,
    ) -> Result<(), (usize, Rejection)> {
        self.run_filters(state, pod, node)?;
        match cache.with_nominated(node, pod) {
            Some(fuller) => self.run_filters(state, pod, &fuller),
            None => Ok(()),
        }
    }

    fn run_filters(
        &self,
        state: &CycleState,
        pod: &PodInfo,
        node: &NodeInfo,
    ) -> Result<(), (usize, Rejection)> {
        for (number, plugin) in self.filters.iter().enumerate() {
            plugin
                .filter(state, pod, node)
                .map_err(|rejection| (number, rejection))?;
        }
        Ok(())
    }

    /// What the filters' verdicts about the pod depend on.
    pub fn sees(&self, state: &CycleState) -> Sees {
        let filters = self.filters.iter().map(|plugin| plugin.sees(state));
        filters.max().unwrap_or(Sees::NoPods)
    }

    /// Whether the node alone can take the pod, as all filters see it.
    pub fn passes_draft(&self, state: &CycleState, pod: &PodInfo, draft: &NodeInfo) -> bool {
        self.run_filters(state, pod, draft).is_ok()
    }

    /// Whether a node that could take the pod still can with other pods on it.
    pub fn still_passes(&self, state: &CycleState, pod: &PodInfo, draft: &NodeInfo) -> bool {
        let mut plugins = self.filters.iter();
        plugins.all(|plugin| {
            plugin.sees(state) == Sees::NoPods || plugin.filter(state, pod, draft).is_ok()
        })
    }

    /// Whether the pod may enter the queue.
    pub fn admits(&self, pod: &PodInfo) -> bool {
        let mut plugins = self.pre_enqueues.iter();
        plugins.all(|plugin| plugin.pre_enqueue(pod).is_ok())
    }

    /// Looks for room for a pod that no node can take; notes in the diagnosis why there is none.
    pub fn post_filter(
        &self,
        cache: &mut Cache,
        pod: &Arc<PodInfo>,
        diagnosis: &mut Diagnosis,
    ) -> Option<Preemption> {
        for plugin in &self.post_filters {
            match plugin.post_filter(self, cache, pod, diagnosis) {
                Ok(preemption) => return Some(preemption),
                Err(why) => diagnosis.preemption = Some(why),
            }
        }
        None
    }

    /// Total scores, in the order of `nodes`.
    pub fn score(
        &self,
        cache: &Cache,
        state: &mut CycleState,
        pod: &PodInfo,
        nodes: &[usize],
    ) -> Vec<i64> {
        let mut totals = vec![0; nodes.len()];
        let mut scores = vec![0; nodes.len()];
        for plugin in &self.scores {
            plugin.pre_score(state, pod, cache, nodes);
            for (score, index) in scores.iter_mut().zip(nodes) {
                *score = cache
                    .entries()
                    .get_index(*index)
                    .map_or(0, |(_, node)| plugin.score(state, pod, node));
            }
            plugin.normalize(state, &mut scores);
            for (total, score) in totals.iter_mut().zip(&scores) {
                *total += plugin.weight() * score;
            }
        }
        totals
    }

    /// Whether events of this sort can help some pod that these filters refused.
    pub fn concerns(&self, refused_by: u64, event: &Event<'_>) -> bool {
        refused_by == 0
            || self.filters.iter().enumerate().any(|(number, plugin)| {
                refused_by & (1 << number.min(63)) != 0 && !plugin.ignores(event)
            })
    }

    /// Whether the event can help a pod that these filters refused.
    pub fn is_cured_by(&self, refused_by: u64, pod: &PodInfo, event: &Event<'_>) -> bool {
        refused_by == 0
            || self.filters.iter().enumerate().any(|(number, plugin)| {
                refused_by & (1 << number.min(63)) != 0 && plugin.is_cured_by(pod, event)
            })
    }

    /// Runs the Reserve plugins; all or none.
    pub fn reserve(&self, pod: &Arc<PodInfo>, node: &str) -> Result<(), Rejection> {
        for plugin in &self.reserves {
            if let Err(rejection) = plugin.reserve(pod, node) {
                self.unreserve(pod, node);
                return Err(rejection);
            }
        }
        Ok(())
    }

    /// Undoes [`Framework::reserve`].
    pub fn unreserve(&self, pod: &Arc<PodInfo>, node: &str) {
        for plugin in self.reserves.iter().rev() {
            plugin.unreserve(pod, node);
        }
    }
}
