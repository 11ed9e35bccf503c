//! Objects in, decisions out. No IO, no clock of its own.

use std::{collections::HashSet, sync::Arc, time::Instant};

use k8s_openapi::api::{
    core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod},
    policy::v1::PodDisruptionBudget,
    storage::v1::{CSINode, StorageClass},
};
use rand::Rng;

use crate::{
    cache::{Cache, NodeChange, NodeChanges, PodChange},
    config::SchedulerConfig,
    framework::{CycleState, Diagnosis, Event, Framework, PreBind, Preemption},
    pod::PodInfo,
    queue::{Queue, QueueSizes},
};

/// Fewer nodes than this are always all looked at.
const MIN_FEASIBLE_NODES: usize = 100;

/// What was decided about a pod.
#[derive(Debug)]
pub enum Decision {
    /// It goes to this node, which is assumed: answer with [`Core::bound`] or
    /// [`Core::bind_failed`].
    Assigned {
        /// The pod.
        pod: Arc<PodInfo>,
        /// The node's name.
        node: Arc<str>,
    },
    /// No node does.
    Unschedulable {
        /// The pod.
        pod: Arc<PodInfo>,
        /// Why.
        diagnosis: Diagnosis,
        /// What makes room for it: delete the victims, it waits for their end.
        preemption: Option<Preemption>,
    },
}

/// A watched object or a step of a (re)list.
#[derive(Debug)]
pub enum Change<K> {
    /// A list begins.
    ListBegins,
    /// One object of it.
    Listed(K),
    /// It is complete: what was not in it is gone.
    ListEnds,
    /// Created or changed.
    Applied(K),
    /// Deleted.
    Deleted(K),
}

/// Something that may help pods that found no place.
enum Happening {
    NodeCame(Arc<str>),
    NodeChanged(Arc<str>, NodeChanges),
    PodLeft(Arc<PodInfo>, Arc<str>),
    PodPlaced(Arc<PodInfo>),
    VolumesChanged,
}

impl Happening {
    /// As the plugins see it; `None` if what it is about is gone already.
    fn event<'a>(&'a self, cache: &'a Cache) -> Option<Event<'a>> {
        Some(match self {
            Happening::NodeCame(name) => Event::NodeAdded(cache.node(name)?),
            Happening::NodeChanged(name, changes) => Event::NodeUpdated {
                node: cache.node(name)?,
                changes: *changes,
            },
            Happening::PodLeft(pod, node) => Event::PodRemoved {
                pod,
                node: cache.node(node),
            },
            Happening::PodPlaced(pod) => Event::PodAdded(pod),
            Happening::VolumesChanged => Event::VolumesChanged,
        })
    }
}

/// The scheduler's state.
pub struct Core {
    cache: Cache,
    queue: Queue,
    framework: Framework,
    scheduler_name: String,
    percentage: Option<u8>,
    next_start: usize,
    listed_pods: HashSet<Arc<str>>,
    listed_nodes: HashSet<String>,
    listed_claims: HashSet<String>,
    listed_volumes: HashSet<String>,
    pods_synced: bool,
    nodes_synced: bool,
}

impl Core {
    /// Knows nothing yet.
    pub fn new(framework: Framework, config: &SchedulerConfig) -> Self {
        Core {
            cache: Cache::default(),
            queue: Queue::new(
                config.initial_backoff,
                config.max_backoff,
                config.unschedulable_retry,
            ),
            framework,
            scheduler_name: config.scheduler_name.clone(),
            percentage: config.percentage_of_nodes_to_score,
            next_start: 0,
            listed_pods: HashSet::new(),
            listed_nodes: HashSet::new(),
            listed_claims: HashSet::new(),
            listed_volumes: HashSet::new(),
            pods_synced: false,
            nodes_synced: false,
        }
    }

    /// Both first lists are complete: decisions are sound from here on.
    pub fn is_synced(&self) -> bool {
        self.pods_synced && self.nodes_synced
    }

    /// A pod event.
    pub fn observe_pod(&mut self, change: Change<Pod>, now: Instant) {
        match change {
            Change::ListBegins => self.listed_pods.clear(),
            Change::Listed(pod) => {
                if let Some(uid) = pod.metadata.uid.as_deref() {
                    self.listed_pods.insert(uid.into());
                }
                self.apply_pod(pod, now);
            }
            Change::ListEnds => {
                let listed = std::mem::take(&mut self.listed_pods);
                let known = self.cache.pod_uids().chain(self.queue.uids());
                let gone: Vec<_> = known
                    .filter(|uid| !listed.contains(*uid))
                    .cloned()
                    .collect();
                for uid in gone {
                    self.delete_pod(&uid, now);
                }
                self.pods_synced = true;
            }
            Change::Applied(pod) => self.apply_pod(pod, now),
            Change::Deleted(pod) => {
                if let Some(uid) = pod.metadata.uid.as_deref() {
                    self.delete_pod(uid, now);
                }
            }
        }
    }

    fn apply_pod(&mut self, pod: Pod, now: Instant) {
        let Some(info) = PodInfo::new(pod).map(Arc::new) else {
            return;
        };
        let change = self.cache.apply_pod(&info);
        self.wake_for_pod(change, &info, now);
        let waits = info.node_name().is_none()
            && !info.is_terminal()
            && info.pod.metadata.deletion_timestamp.is_none()
            && self.is_ours(&info);
        if waits {
            let rank = self.framework.queue_sort.rank(&info);
            let gated = !self.framework.admits(&info);
            self.queue.apply(info, rank, gated, now);
        } else {
            self.queue.remove(&info.uid);
        }
    }

    fn is_ours(&self, info: &PodInfo) -> bool {
        let wanted = info
            .spec()
            .scheduler_name
            .as_deref()
            .filter(|name| !name.is_empty());
        wanted.unwrap_or("default-scheduler") == self.scheduler_name
    }

    fn delete_pod(&mut self, uid: &str, now: Instant) {
        self.queue.remove(uid);
        if let PodChange::Left(pod, node) = self.cache.delete_pod(uid) {
            self.wake(&Happening::PodLeft(pod, node), now);
        }
    }

    fn wake_for_pod(&mut self, change: PodChange, info: &Arc<PodInfo>, now: Instant) {
        match change {
            PodChange::None => {}
            PodChange::Placed => self.wake(&Happening::PodPlaced(info.clone()), now),
            PodChange::Left(pod, node) => self.wake(&Happening::PodLeft(pod, node), now),
        }
    }

    /// A namespace event.
    pub fn observe_namespace(&mut self, change: Change<Namespace>) {
        match change {
            Change::ListBegins | Change::ListEnds => {}
            Change::Listed(namespace) | Change::Applied(namespace) => {
                let meta = namespace.metadata;
                let labels = meta.labels.unwrap_or_default();
                let name = meta.name.unwrap_or_default();
                self.cache.apply_namespace(&name, Some(labels));
            }
            Change::Deleted(namespace) => {
                let name = namespace.metadata.name.unwrap_or_default();
                self.cache.apply_namespace(&name, None);
            }
        }
    }

    /// A disruption budget event.
    pub fn observe_budget(&mut self, change: Change<PodDisruptionBudget>) {
        let budgets = self.cache.budgets_mut();
        match change {
            Change::ListBegins => budgets.clear(),
            Change::ListEnds => {}
            Change::Listed(budget) | Change::Applied(budget) => budgets.apply(&budget),
            Change::Deleted(budget) => budgets.delete(&budget),
        }
    }

    /// A claim event.
    pub fn observe_claim(&mut self, change: Change<PersistentVolumeClaim>, now: Instant) {
        let key = |claim: &PersistentVolumeClaim| {
            let meta = claim.metadata.clone();
            (
                meta.namespace.unwrap_or_default(),
                meta.name.unwrap_or_default(),
            )
        };
        match change {
            Change::ListBegins => return self.listed_claims.clear(),
            Change::Listed(claim) => {
                let key = key(&claim);
                self.listed_claims.insert(format!("{}/{}", key.0, key.1));
                return self.cache.volumes_mut().apply_claim(key, Some(claim));
            }
            Change::ListEnds => {
                let listed = std::mem::take(&mut self.listed_claims);
                self.cache.volumes_mut().retain_claims(&listed);
            }
            Change::Applied(claim) => {
                self.cache
                    .volumes_mut()
                    .apply_claim(key(&claim), Some(claim));
            }
            Change::Deleted(claim) => self.cache.volumes_mut().apply_claim(key(&claim), None),
        }
        self.wake(&Happening::VolumesChanged, now);
    }

    /// A volume event.
    pub fn observe_volume(&mut self, change: Change<PersistentVolume>, now: Instant) {
        let name = |volume: &PersistentVolume| volume.metadata.name.clone().unwrap_or_default();
        match change {
            Change::ListBegins => return self.listed_volumes.clear(),
            Change::Listed(volume) => {
                let name = name(&volume);
                self.cache.volumes_mut().apply_volume(&name, Some(volume));
                self.listed_volumes.insert(name);
                return;
            }
            Change::ListEnds => {
                let listed = std::mem::take(&mut self.listed_volumes);
                self.cache.volumes_mut().retain_volumes(&listed);
            }
            Change::Applied(volume) => {
                self.cache
                    .volumes_mut()
                    .apply_volume(&name(&volume), Some(volume));
            }
            Change::Deleted(volume) => self.cache.volumes_mut().apply_volume(&name(&volume), None),
        }
        self.wake(&Happening::VolumesChanged, now);
    }

    /// A storage class event.
    pub fn observe_class(&mut self, change: Change<StorageClass>, now: Instant) {
        let name = |class: &StorageClass| class.metadata.name.clone().unwrap_or_default();
        let volumes = self.cache.volumes_mut();
        match change {
            // A class that went while the watch was away only lets claims wait that nobody serves.
            Change::ListBegins | Change::ListEnds => {}
            Change::Listed(class) | Change::Applied(class) => {
                volumes.apply_class(&name(&class), Some(class));
            }
            Change::Deleted(class) => volumes.apply_class(&name(&class), None),
        }
        self.wake(&Happening::VolumesChanged, now);
    }

    /// What a node's CSI drivers say of it.
    pub fn observe_csi_node(&mut self, change: Change<CSINode>, now: Instant) {
        let name = |node: &CSINode| node.metadata.name.clone().unwrap_or_default();
        let volumes = self.cache.volumes_mut();
        match change {
            Change::ListBegins => return volumes.clear_csi_nodes(),
            Change::Listed(node) => return volumes.apply_csi_node(&name(&node), Some(&node)),
            Change::ListEnds => {}
            Change::Applied(node) => volumes.apply_csi_node(&name(&node), Some(&node)),
            Change::Deleted(node) => volumes.apply_csi_node(&name(&node), None),
        }
        self.wake(&Happening::VolumesChanged, now);
    }

    /// A node event.
    pub fn observe_node(&mut self, change: Change<Node>, now: Instant) {
        match change {
            Change::ListBegins => self.listed_nodes.clear(),
            Change::Listed(node) => {
                self.listed_nodes.extend(node.metadata.name.clone());
                self.apply_node(node, now);
            }
            Change::ListEnds => {
                let listed = std::mem::take(&mut self.listed_nodes);
                let gone: Vec<_> = self
                    .cache
                    .node_names()
                    .filter(|name| !listed.contains(&***name))
                    .cloned()
                    .collect();
                for name in gone {
                    self.cache.delete_node(&name);
                }
                self.nodes_synced = true;
            }
            Change::Applied(node) => self.apply_node(node, now),
            Change::Deleted(node) => {
                if let Some(name) = node.metadata.name.as_deref() {
                    self.cache.delete_node(name);
                }
            }
        }
    }

    fn apply_node(&mut self, node: Node, now: Instant) {
        let name: Arc<str> = node.metadata.name.as_deref().unwrap_or_default().into();
        match self.cache.apply_node(node) {
            NodeChange::None => {}
            NodeChange::Added => self.wake(&Happening::NodeCame(name), now),
            NodeChange::Updated(changes) => self.wake(&Happening::NodeChanged(name, changes), now),
        }
    }

    fn wake(&mut self, happening: &Happening, now: Instant) {
        let (framework, cache) = (&self.framework, &self.cache);
        let Some(event) = happening.event(cache) else {
            return;
        };
        self.queue.move_unschedulable(
            now,
            |pod| framework.queue_sort.rank(pod),
            |refused_by| framework.concerns(refused_by, &event),
            |refused_by, pod| framework.is_cured_by(refused_by, pod, &event),
        );
    }

    /// Decides about the next pod, if one is ready.
    pub fn decide(&mut self, now: Instant) -> Option<Decision> {
        let framework = &self.framework;
        self.queue
            .advance(now, |pod| framework.queue_sort.rank(pod));
        let pod = self.queue.pop()?;
        match self.choose(&pod) {
            Ok(node) => {
                self.cache.assume(pod.clone(), node.clone());
                Some(Decision::Assigned { pod, node })
            }
            Err(mut diagnosis) => {
                let found = self
                    .framework
                    .post_filter(&mut self.cache, &pod, &mut diagnosis);
                if let Some(preemption) = &found {
                    self.cache.nominate(pod.clone(), preemption.node.clone());
                }
                let rank = self.framework.queue_sort.rank(&pod);
                self.queue
                    .no_node(&pod.uid, diagnosis.refused_by, rank, now);
                Some(Decision::Unschedulable {
                    pod,
                    diagnosis,
                    preemption: found,
                })
            }
        }
    }

    fn choose(&mut self, pod: &Arc<PodInfo>) -> Result<Arc<str>, Diagnosis> {
        let mut state = CycleState::default();
        let wanted = self.wanted_nodes();
        let found =
            self.framework
                .find_feasible(&self.cache, &mut state, pod, self.next_start, wanted)?;
        let entries = self.cache.entries();
        self.next_start = (self.next_start + found.evaluated) % entries.len().max(1);
        let best = if found.nodes.len() == 1 {
            0
        } else {
            pick_best(
                &self
                    .framework
                    .score(&self.cache, &mut state, pod, &found.nodes),
            )
        };
        let index = found.nodes.get(best).copied().unwrap_or_default();
        let Some((name, _)) = entries.get_index(index) else {
            return Err(Diagnosis::default());
        };
        let name = name.clone();
        self.framework
            .reserve(pod, &name, &self.cache)
            .map_err(|rejection| Diagnosis {
                nodes: self.cache.node_count(),
                pre_filter: Some(Box::new(rejection)),
                ..Diagnosis::default()
            })?;
        Ok(name)
    }

    /// How many nodes to find before they are scored.
    fn wanted_nodes(&self) -> usize {
        let nodes = self.cache.node_count();
        if nodes < MIN_FEASIBLE_NODES {
            return nodes;
        }
        let percentage = match self.percentage {
            Some(percentage) => usize::from(percentage),
            None => 50_usize.saturating_sub(nodes / 125).max(5),
        };
        (nodes * percentage / 100).clamp(MIN_FEASIBLE_NODES, nodes)
    }

    /// The binding was written.
    pub fn bound(&mut self, pod: &PodInfo) {
        self.cache.volumes().forget(&pod.uid);
        self.queue.remove(&pod.uid);
    }

    /// The binding was not written: the room is free again and the pod tries again.
    pub fn bind_failed(&mut self, pod: &Arc<PodInfo>, node: &str, now: Instant) {
        self.framework.unreserve(pod, node, &self.cache);
        self.cache.forget(&pod.uid);
        let rank = self.framework.queue_sort.rank(pod);
        self.queue.failed(&pod.uid, rank, now);
        self.wake(&Happening::PodLeft(pod.clone(), node.into()), now);
        self.wake_for_volumes_of(pod, now);
    }

    /// The pod turned out to be gone.
    pub fn gone(&mut self, pod: &Arc<PodInfo>, node: &str, now: Instant) {
        self.framework.unreserve(pod, node, &self.cache);
        self.delete_pod(&pod.uid, now);
        self.wake_for_volumes_of(pod, now);
    }

    /// The volumes that were promised to the pod are free for others.
    fn wake_for_volumes_of(&mut self, pod: &PodInfo, now: Instant) {
        if !pod.claims.is_empty() {
            self.wake(&Happening::VolumesChanged, now);
        }
    }

    /// A pod is ready to be decided about.
    pub fn has_active(&self) -> bool {
        self.queue.has_active()
    }

    /// When time alone makes a pod ready.
    pub fn next_wake(&self) -> Option<Instant> {
        self.queue.next_wake()
    }

    /// Sizes of the queue's parts.
    pub fn queue_sizes(&self) -> QueueSizes {
        self.queue.sizes()
    }

    /// What prepares a binding, in order.
    pub fn pre_binds(&self) -> Vec<Arc<dyn PreBind>> {
        self.framework.pre_binds.clone()
    }

    /// The nodes and what is on them.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }
}

/// One of the highest scores, each with the same chance.
fn pick_best(scores: &[i64]) -> usize {
    let mut best = 0;
    let mut ties = 0_u32;
    for (index, score) in scores.iter().enumerate() {
        if index == 0 || *score > scores[best] {
            best = index;
            ties = 1;
        } else if *score == scores[best] {
            ties += 1;
            if rand::rng().random_range(0..ties) == 0 {
                best = index;
            }
        }
    }
    best
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "placement_tests.rs"]
mod placement_tests;

#[cfg(test)]
#[path = "volume_tests.rs"]
mod volume_tests;
