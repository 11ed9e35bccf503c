//! Nodes with what is on them, kept up to date by events.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use indexmap::IndexMap;
use k8s_openapi::api::core::v1::Node;

use parking_lot::Mutex;

use crate::{
    budgets::Budgets,
    plugins::normalized,
    pod::{HostPort, PodInfo},
    resources::Resources,
    topology::{Counts, NamespaceLabels, Populated, Term, TopologyIndex, Wish},
};

/// A node and the sum of its pods.
#[derive(Debug, Default)]
pub struct NodeInfo {
    /// The object; `None` while only pods bound to it are known.
    pub node: Option<Arc<Node>>,
    /// What it offers.
    pub allocatable: Resources,
    /// Sum of its pods' requests; `pods` counts them.
    pub requested: Resources,
    /// Sum with defaults, to compare nodes by.
    pub compared: Resources,
    /// Ports its pods have.
    pub host_ports: Vec<HostPort>,
    /// Its pods.
    pub pods: Vec<Arc<PodInfo>>,
    /// Bytes of the images that it has, by name.
    pub images: HashMap<String, i64>,
}

impl NodeInfo {
    /// Name.
    pub fn name(&self) -> &str {
        self.node
            .as_ref()
            .and_then(|node| node.metadata.name.as_deref())
            .unwrap_or_default()
    }

    fn add(&mut self, pod: &Arc<PodInfo>) {
        self.requested.add(&pod.requests);
        self.requested.pods += 1;
        self.compared.add(&pod.compared_requests);
        self.host_ports.extend(pod.host_ports.iter().cloned());
        self.pods.push(pod.clone());
    }

    fn remove(&mut self, pod: &PodInfo) {
        self.release(pod);
        if let Some(index) = self.pods.iter().position(|own| own.uid == pod.uid) {
            self.pods.swap_remove(index);
        }
    }

    /// Takes what the pod has off the sums.
    fn release(&mut self, pod: &PodInfo) {
        self.requested.subtract(&pod.requests);
        self.requested.pods -= 1;
        self.compared.subtract(&pod.compared_requests);
        for port in &pod.host_ports {
            if let Some(index) = self.host_ports.iter().position(|own| own == port) {
                self.host_ports.swap_remove(index);
            }
        }
    }

    /// A copy to try things on: all that filters look at.
    fn draft(&self) -> NodeInfo {
        NodeInfo {
            node: self.node.clone(),
            allocatable: self.allocatable.clone(),
            requested: self.requested.clone(),
            compared: Resources::default(),
            host_ports: self.host_ports.clone(),
            pods: self.pods.clone(),
            images: HashMap::new(),
        }
    }

    /// Puts a pod on it in thought.
    pub fn put(&mut self, pod: &Arc<PodInfo>) {
        self.add(pod);
    }

    /// Takes the pod that was put on it last off again.
    pub fn take_last(&mut self) {
        if let Some(pod) = self.pods.pop() {
            self.release(&pod);
        }
    }

    /// Takes away all pods that `leaves` names, and gives them.
    pub fn take_all(&mut self, leaves: impl Fn(&PodInfo) -> bool) -> Vec<Arc<PodInfo>> {
        let pods = std::mem::take(&mut self.pods);
        let (gone, kept): (Vec<_>, Vec<_>) = pods.into_iter().partition(|pod| leaves(pod));
        self.pods = kept;
        for pod in &gone {
            self.release(pod);
        }
        gone
    }
}

#[derive(Debug)]
struct Placed {
    info: Arc<PodInfo>,
    node: Arc<str>,
    /// We decided it and have not seen it written yet.
    assumed: bool,
}

/// What is different about a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NodeChanges {
    /// What it offers.
    pub allocatable: bool,
    /// Its labels.
    pub labels: bool,
    /// Its taints.
    pub taints: bool,
    /// Whether it is cordoned.
    pub unschedulable: bool,
}

/// What a change of a node means to pods that found no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeChange {
    /// Nothing that a plugin looks at.
    None,
    /// It is new.
    Added,
    /// Something differs.
    Updated(NodeChanges),
}

/// What a change of a pod means to pods that found no place.
#[derive(Debug)]
pub enum PodChange {
    /// Nothing.
    None,
    /// It came to a node.
    Placed,
    /// It left the node or shrank.
    Left(Arc<PodInfo>, Arc<str>),
}

fn forget_image(images: &mut HashMap<String, usize>, image: &str) {
    if let Some(count) = images.get_mut(image) {
        *count -= 1;
        if *count == 0 {
            images.remove(image);
        }
    }
}

/// A placed pod that was taken out in thought.
#[derive(Debug)]
pub struct Taken(Placed);

/// All nodes and placed pods.
#[derive(Debug, Default)]
pub struct Cache {
    nodes: IndexMap<Arc<str>, NodeInfo>,
    pods: HashMap<Arc<str>, Placed>,
    real_nodes: usize,
    index: Mutex<TopologyIndex>,
    namespaces: NamespaceLabels,
    budgets: Budgets,
    images: HashMap<String, usize>,
    /// Pods that room is being made for, with the node.
    nominated: HashMap<Arc<str>, (Arc<PodInfo>, Arc<str>)>,
    /// The same by node.
    nominated_to: HashMap<Arc<str>, Vec<Arc<PodInfo>>>,
}

fn differences(old: &Node, new: &Node, allocatable: bool) -> NodeChanges {
    let spec = |node: &Node| node.spec.clone().unwrap_or_default();
    let (before, after) = (spec(old), spec(new));
    NodeChanges {
        allocatable,
        labels: old.metadata.labels != new.metadata.labels,
        taints: before.taints != after.taints,
        unschedulable: before.unschedulable != after.unschedulable,
    }
}

fn images_of(node: &Node) -> HashMap<String, i64> {
    let status = node.status.as_ref();
    let images = status.and_then(|status| status.images.as_ref());
    images
        .into_iter()
        .flatten()
        .flat_map(|image| {
            let size = image.size_bytes.unwrap_or(0);
            let names = image.names.iter().flatten();
            names.map(move |name| (normalized(name), size))
        })
        .collect()
}

impl Cache {
    /// Nodes that exist.
    pub fn node_count(&self) -> usize {
        self.real_nodes
    }

    /// All entries, also those of nodes that only pods name. For indexed walks.
    pub fn entries(&self) -> &IndexMap<Arc<str>, NodeInfo> {
        &self.nodes
    }

    /// One node.
    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.nodes.get(name).filter(|info| info.node.is_some())
    }

    /// Whether the pod has a place, assumed or written.
    pub fn is_placed(&self, uid: &str) -> bool {
        self.pods.contains_key(uid)
    }

    /// A node was created or changed.
    pub fn apply_node(&mut self, node: Node) -> NodeChange {
        let Some(name) = node.metadata.name.as_deref() else {
            return NodeChange::None;
        };
        let info = self.nodes.entry(name.into()).or_default();
        let allocatable = node
            .status
            .as_ref()
            .and_then(|status| status.allocatable.as_ref());
        let allocatable = Resources::from_list(allocatable);
        let change = match &info.node {
            None => {
                self.real_nodes += 1;
                NodeChange::Added
            }
            Some(old) => match differences(old, &node, info.allocatable != allocatable) {
                same if same == NodeChanges::default() => NodeChange::None,
                changes => NodeChange::Updated(changes),
            },
        };
        let images = images_of(&node);
        if images != info.images {
            for image in info.images.keys() {
                forget_image(&mut self.images, image);
            }
            for image in images.keys() {
                *self.images.entry(image.clone()).or_default() += 1;
            }
            info.images = images;
        }
        info.allocatable = allocatable;
        info.node = Some(Arc::new(node));
        let regroups = match change {
            NodeChange::None => false,
            NodeChange::Added => true,
            NodeChange::Updated(changes) => changes.labels || changes.taints,
        };
        if regroups {
            self.index.get_mut().start_anew();
        }
        change
    }

    /// A node was deleted.
    pub fn delete_node(&mut self, name: &str) {
        let Some(info) = self.nodes.get_mut(name) else {
            return;
        };
        if info.node.take().is_some() {
            self.real_nodes -= 1;
            self.index.get_mut().start_anew();
        }
        for image in std::mem::take(&mut info.images).keys() {
            forget_image(&mut self.images, image);
        }
        info.allocatable = Resources::default();
        self.drop_if_unused(name);
    }

    /// Names of the nodes that exist.
    pub fn node_names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.nodes
            .iter()
            .filter(|(_, info)| info.node.is_some())
            .map(|(name, _)| name)
    }

    /// Uids of the placed pods.
    pub fn pod_uids(&self) -> impl Iterator<Item = &Arc<str>> {
        self.pods.keys()
    }

    fn drop_if_unused(&mut self, name: &str) {
        if self
            .nodes
            .get(name)
            .is_some_and(|info| info.node.is_none() && info.pods.is_empty())
        {
            self.nodes.swap_remove(name);
        }
    }

    /// A pod was created or changed.
    pub fn apply_pod(&mut self, info: &Arc<PodInfo>) -> PodChange {
        let target = info.node_name().filter(|_| !info.is_terminal());
        match target {
            Some(node) => {
                let old = self.remove(&info.uid);
                self.forget_nomination(&info.uid);
                self.insert(info.clone(), node.into(), false);
                match old {
                    None => PodChange::Placed,
                    Some(old)
                        if *old.node != *node
                            || old.info.requests != info.requests
                            || old.info.pod.metadata.labels != info.pod.metadata.labels =>
                    {
                        PodChange::Left(old.info, old.node)
                    }
                    Some(_) => PodChange::None,
                }
            }
            None if info.is_terminal() => self.left(&info.uid),
            // Not written yet: what we assumed stays.
            None => PodChange::None,
        }
    }

    fn left(&mut self, uid: &str) -> PodChange {
        match self.remove(uid) {
            Some(old) => PodChange::Left(old.info, old.node),
            None => PodChange::None,
        }
    }

    /// A pod was deleted.
    pub fn delete_pod(&mut self, uid: &str) -> PodChange {
        self.forget_nomination(uid);
        self.left(uid)
    }

    /// We decided that the pod goes there.
    pub fn assume(&mut self, info: Arc<PodInfo>, node: Arc<str>) {
        self.forget_nomination(&info.uid);
        self.remove(&info.uid.clone());
        self.insert(info, node, true);
    }

    /// Takes a placed pod out in thought; [`Cache::give_back`] undoes it.
    pub fn take(&mut self, uid: &str) -> Option<Taken> {
        self.remove(uid).map(Taken)
    }

    /// Puts a pod on a node in thought.
    pub fn lend(&mut self, info: &Arc<PodInfo>, node: &Arc<str>) {
        self.insert(info.clone(), node.clone(), true);
    }

    /// Puts back what was taken, exactly as it was.
    pub fn give_back(&mut self, taken: Taken) {
        let placed = taken.0;
        self.remove(&placed.info.uid.clone());
        self.insert(placed.info, placed.node, placed.assumed);
    }

    /// Room is being made for the pod on the node.
    pub fn nominate(&mut self, pod: Arc<PodInfo>, node: Arc<str>) {
        self.forget_nomination(&pod.uid);
        let there = self.nominated_to.entry(node.clone()).or_default();
        there.push(pod.clone());
        self.nominated.insert(pod.uid.clone(), (pod, node));
    }

    fn forget_nomination(&mut self, uid: &str) {
        let Some((_, node)) = self.nominated.remove(uid) else {
            return;
        };
        if let Some(there) = self.nominated_to.get_mut(&node) {
            there.retain(|pod| *pod.uid != *uid);
            if there.is_empty() {
                self.nominated_to.remove(&node);
            }
        }
    }

    /// Where room is being made for the pod.
    pub fn nominated_node(&self, uid: &str) -> Option<Arc<str>> {
        self.nominated.get(uid).map(|(_, node)| node.clone())
    }

    /// The node with the pods that room is being made for there, if any is as important as `pod`.
    pub fn with_nominated(&self, node: &NodeInfo, pod: &PodInfo) -> Option<NodeInfo> {
        if self.nominated_to.is_empty() {
            return None;
        }
        let there = self.nominated_to.get(node.name())?;
        let mut others = there
            .iter()
            .filter(|other| other.uid != pod.uid && other.priority() >= pod.priority())
            .peekable();
        others.peek()?;
        let mut fuller = node.draft();
        for other in others {
            fuller.add(other);
        }
        Some(fuller)
    }

    /// The node to try things on, with the pods that room is being made for there and that are as
    /// important as `pod`.
    pub fn draft(&self, node: &str, pod: &PodInfo) -> Option<NodeInfo> {
        let node = self.node(node)?;
        Some(
            self.with_nominated(node, pod)
                .unwrap_or_else(|| node.draft()),
        )
    }

    /// Labels of the namespaces.
    pub fn namespaces(&self) -> &NamespaceLabels {
        &self.namespaces
    }

    /// A namespace was created, changed or (`None`) deleted.
    pub fn apply_namespace(&mut self, name: &str, labels: Option<BTreeMap<String, String>>) {
        let old = match labels {
            Some(labels) if self.namespaces.get(name) == Some(&labels) => return,
            Some(labels) => self.namespaces.insert(name.to_owned(), labels),
            None => self.namespaces.remove(name),
        };
        if old.is_some() || self.real_nodes > 0 {
            self.index.get_mut().start_anew();
        }
    }

    /// Disruption budgets.
    pub fn budgets(&self) -> &Budgets {
        &self.budgets
    }

    /// The same, to change them.
    pub fn budgets_mut(&mut self) -> &mut Budgets {
        &mut self.budgets
    }

    /// How many nodes have the image.
    pub fn nodes_with_image(&self, image: &str) -> usize {
        self.images.get(image).copied().unwrap_or(0)
    }

    fn populated(&self) -> impl Iterator<Item = Populated<'_>> + Clone {
        self.nodes
            .values()
            .filter_map(|info| Some((info.node.as_deref()?, info.pods.as_slice())))
    }

    /// Pods that match the term, by value of its key.
    pub fn counts(&self, term: &Term) -> Arc<Counts> {
        let mut index = self.index.lock();
        index.counts(term, self.populated(), &self.namespaces)
    }

    /// What placed pods wish about this one.
    pub fn wishes_about(
        &self,
        pod: &PodInfo,
        interesting: impl Fn(Wish) -> bool,
    ) -> Vec<(String, Wish, Arc<Counts>)> {
        let mut index = self.index.lock();
        index.wishes_about(pod, self.populated(), &self.namespaces, interesting)
    }

    /// The decision came to nothing. A place that was meanwhile seen written stays.
    pub fn forget(&mut self, uid: &str) {
        if self.pods.get(uid).is_some_and(|placed| placed.assumed) {
            self.remove(uid);
        }
    }

    fn insert(&mut self, info: Arc<PodInfo>, node: Arc<str>, assumed: bool) {
        let entry = self.nodes.entry(node.clone()).or_default();
        entry.add(&info);
        if let Some(real) = &entry.node {
            let index = self.index.get_mut();
            index.change(real, &info, 1, &self.namespaces);
        }
        self.pods.insert(
            info.uid.clone(),
            Placed {
                info,
                node,
                assumed,
            },
        );
    }

    fn remove(&mut self, uid: &str) -> Option<Placed> {
        let placed = self.pods.remove(uid)?;
        if let Some(node) = self.nodes.get_mut(&placed.node) {
            node.remove(&placed.info);
            if let Some(real) = &node.node {
                let index = self.index.get_mut();
                index.change(real, &placed.info, -1, &self.namespaces);
            }
        }
        self.drop_if_unused(&placed.node);
        Some(placed)
    }
}
