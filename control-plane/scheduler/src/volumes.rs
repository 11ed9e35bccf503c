//! Claims, volumes and classes, as the plugins about volumes look at them.
//!
//! A claim that waits for its first consumer gets its volume with the pod's node: Reserve notes
//! the choice here so that no other pod takes the volume, PreBind writes it.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use hull_client::volumes::{
    Holder, NO_PROVISIONER, SELECTED_NODE, capacity, class_of, offered, reaches,
};
use k8s_openapi::api::{
    core::v1::{Node, PersistentVolume, PersistentVolumeClaim},
    storage::v1::{CSINode, StorageClass},
};
use parking_lot::Mutex;

/// Namespace and name.
pub type ClaimKey = (String, String);

/// How a claim gets its volume.
#[derive(Debug, Clone)]
pub enum Choice {
    /// This one.
    Bind(Arc<PersistentVolume>, Arc<PersistentVolumeClaim>),
    /// Its class's provisioner makes one for this node.
    Provision(Arc<PersistentVolumeClaim>, String),
}

/// What was chosen for pods whose binding is under way, by uid.
pub type Choices = Arc<Mutex<HashMap<Arc<str>, Vec<Choice>>>>;

/// The objects.
#[derive(Debug, Clone, Default)]
pub struct Known {
    claims: HashMap<ClaimKey, Arc<PersistentVolumeClaim>>,
    volumes: HashMap<String, Arc<PersistentVolume>>,
    classes: HashMap<String, Arc<StorageClass>>,
    /// How many volumes of a driver a node can have attached: by node, then by driver.
    limits: HashMap<String, HashMap<String, usize>>,
}

/// A volume of a CSI driver, as it counts on a node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Attachable {
    /// The driver.
    pub driver: String,
    /// The same for all claims and pods that use the volume.
    pub volume: String,
}

impl Known {
    /// What a claim attaches to its pod's node, or will once it is bound; `None`: it is not known,
    /// or no driver attaches it.
    pub fn attachable(&self, namespace: &str, name: &str) -> Option<Attachable> {
        let claim = self.claims.get(&(namespace.to_owned(), name.to_owned()))?;
        let bound = claim
            .spec
            .as_ref()
            .and_then(|spec| spec.volume_name.as_deref());
        if let Some(bound) = bound.filter(|bound| !bound.is_empty()) {
            let source = self.volumes.get(bound)?.spec.as_ref()?.csi.as_ref()?;
            return Some(Attachable {
                driver: source.driver.clone(),
                volume: source.volume_handle.clone(),
            });
        }
        let class = self.classes.get(class_of(claim))?;
        (class.provisioner != NO_PROVISIONER).then(|| Attachable {
            driver: class.provisioner.clone(),
            volume: format!("{namespace}/{name}"),
        })
    }

    /// The limits of a node, by driver.
    pub fn limits(&self, node: &str) -> Option<&HashMap<String, usize>> {
        self.limits.get(node)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Volumes {
    /// Shared with the decision under way.
    known: Arc<Known>,
    /// Names by class.
    by_class: HashMap<String, BTreeMap<String, Arc<PersistentVolume>>>,
    choices: Choices,
}

fn name_of<K: kube::Resource>(object: &K) -> String {
    object.meta().name.clone().unwrap_or_default()
}

fn class_of_volume(volume: &PersistentVolume) -> String {
    let spec = volume.spec.as_ref();
    spec.and_then(|spec| spec.storage_class_name.clone())
        .unwrap_or_default()
}

impl Volumes {
    /// Created, changed or (`None`) deleted.
    pub fn apply_claim(&mut self, key: ClaimKey, claim: Option<PersistentVolumeClaim>) {
        let claims = &mut self.known_mut().claims;
        match claim {
            Some(claim) => claims.insert(key, Arc::new(claim)),
            None => claims.remove(&key),
        };
    }

    /// Created, changed or (`None`) deleted.
    pub fn apply_volume(&mut self, name: &str, volume: Option<PersistentVolume>) {
        if let Some(old) = self.known_mut().volumes.remove(name)
            && let Some(of_class) = self.by_class.get_mut(&class_of_volume(&old))
        {
            of_class.remove(name);
        }
        if let Some(volume) = volume.map(Arc::new) {
            let of_class = self.by_class.entry(class_of_volume(&volume)).or_default();
            of_class.insert(name.to_owned(), volume.clone());
            self.known_mut().volumes.insert(name.to_owned(), volume);
        }
    }

    /// Created, changed or (`None`) deleted.
    pub fn apply_class(&mut self, name: &str, class: Option<StorageClass>) {
        let classes = &mut self.known_mut().classes;
        match class {
            Some(class) => classes.insert(name.to_owned(), Arc::new(class)),
            None => classes.remove(name),
        };
    }

    /// What a node's drivers say of it: created, changed or (`None`) deleted.
    pub fn apply_csi_node(&mut self, name: &str, node: Option<&CSINode>) {
        let drivers = node.map(|node| node.spec.drivers.as_slice());
        let limits: HashMap<String, usize> = drivers
            .unwrap_or_default()
            .iter()
            .filter_map(|driver| {
                let count = driver.allocatable.as_ref()?.count?;
                Some((driver.name.clone(), usize::try_from(count).ok()?))
            })
            .collect();
        let all = &mut self.known_mut().limits;
        if limits.is_empty() {
            all.remove(name);
        } else {
            all.insert(name.to_owned(), limits);
        }
    }

    /// No node has limits any more.
    pub fn clear_csi_nodes(&mut self) {
        self.known_mut().limits.clear();
    }

    /// The objects, for one decision.
    pub fn known(&self) -> Arc<Known> {
        self.known.clone()
    }

    /// Copies the objects only when a decision still has them, which none does between events.
    fn known_mut(&mut self) -> &mut Known {
        Arc::make_mut(&mut self.known)
    }

    /// Forgets what a new list does not have.
    pub fn retain_claims(&mut self, listed: &HashSet<String>) {
        self.known_mut()
            .claims
            .retain(|(namespace, name), _| listed.contains(&format!("{namespace}/{name}")));
    }

    /// Forgets what a new list does not have.
    pub fn retain_volumes(&mut self, listed: &HashSet<String>) {
        let gone = self
            .known
            .volumes
            .keys()
            .filter(|name| !listed.contains(*name));
        for name in gone.cloned().collect::<Vec<_>>() {
            self.apply_volume(&name, None);
        }
    }

    /// One claim.
    pub fn claim(&self, namespace: &str, name: &str) -> Option<&Arc<PersistentVolumeClaim>> {
        let key = (namespace.to_owned(), name.to_owned());
        self.known.claims.get(&key)
    }

    /// One volume.
    pub fn volume(&self, name: &str) -> Option<&Arc<PersistentVolume>> {
        self.known.volumes.get(name)
    }

    /// The claim's class.
    pub fn class(&self, claim: &PersistentVolumeClaim) -> Option<&Arc<StorageClass>> {
        self.known.classes.get(class_of(claim))
    }

    /// Volumes that would do for the claim: the one that it was promised with another pod; else
    /// of those that no claim was promised the ones that were made for it, if there are any, else
    /// the free ones, smallest first.
    pub fn candidates(&self, claim: &PersistentVolumeClaim) -> Vec<Arc<PersistentVolume>> {
        let mut promised: HashSet<String> = HashSet::new();
        for choice in self.choices.lock().values().flatten() {
            match choice {
                Choice::Bind(volume, to) if to.metadata.uid == claim.metadata.uid => {
                    return vec![volume.clone()];
                }
                Choice::Bind(volume, _) => {
                    promised.insert(name_of(&**volume));
                }
                Choice::Provision(..) => {}
            }
        }
        let of_class = self.by_class.get(class_of(claim));
        let of_class = of_class.into_iter().flat_map(BTreeMap::values);
        let mut found: Vec<_> = of_class
            .filter(|volume| !promised.contains(&name_of(&***volume)))
            .filter_map(|volume| Some((offered(volume, claim)?, volume.clone())))
            .collect();
        if found.iter().any(|(holder, _)| *holder == Holder::Claim) {
            found.retain(|(holder, _)| *holder == Holder::Claim);
        }
        found.sort_by_key(|(_, volume)| capacity(volume));
        found.into_iter().map(|(_, volume)| volume).collect()
    }

    /// The node for which the claim's volume is made, or will be: for the first of its pods.
    pub fn node_of(&self, claim: &PersistentVolumeClaim) -> Option<String> {
        let annotations = claim.metadata.annotations.as_ref();
        let written = annotations.and_then(|annotations| annotations.get(SELECTED_NODE));
        written.cloned().or_else(|| {
            let choices = self.choices.lock();
            choices.values().flatten().find_map(|choice| match choice {
                Choice::Provision(to, node) if to.metadata.uid == claim.metadata.uid => {
                    Some(node.clone())
                }
                _ => None,
            })
        })
    }

    /// Notes what was chosen for a pod.
    pub fn choose(&self, pod: &Arc<str>, choices: Vec<Choice>) {
        if !choices.is_empty() {
            self.choices.lock().insert(pod.clone(), choices);
        }
    }

    /// The pod is bound, or will not be.
    pub fn forget(&self, pod: &str) {
        self.choices.lock().remove(pod);
    }

    /// For PreBind.
    pub fn choices(&self) -> Choices {
        self.choices.clone()
    }
}

/// The class's provisioner can make a volume that the node reaches.
pub fn can_provision(class: &StorageClass, node: &Node) -> bool {
    let topologies = class.allowed_topologies.as_deref().unwrap_or_default();
    let labels = node.metadata.labels.as_ref();
    class.provisioner != NO_PROVISIONER
        && (topologies.is_empty()
            || topologies.iter().any(|term| {
                term.match_label_expressions.iter().flatten().all(|wanted| {
                    let value = labels.and_then(|labels| labels.get(&wanted.key));
                    value.is_some_and(|value| wanted.values.contains(value))
                })
            }))
}

/// A claim that waits for this pod, with what could serve it.
#[derive(Debug)]
pub struct Waiting {
    /// The claim.
    pub claim: Arc<PersistentVolumeClaim>,
    /// See [`Volumes::candidates`].
    pub candidates: Vec<Arc<PersistentVolume>>,
    /// Its class.
    pub class: Option<Arc<StorageClass>>,
    /// See [`Volumes::node_of`].
    pub node: Option<String>,
}

/// A way to serve all claims on the node, each volume once; `None`: there is none.
pub fn choose(waiting: &[Waiting], node: &Node) -> Option<Vec<Choice>> {
    let mut taken: HashSet<String> = HashSet::new();
    let mut choices = Vec::new();
    let name = node.metadata.name.as_deref().unwrap_or_default();
    for one in waiting {
        if let Some(chosen) = &one.node {
            if chosen != name {
                return None;
            }
            choices.push(Choice::Provision(one.claim.clone(), name.to_owned()));
            continue;
        }
        let mut free = one.candidates.iter();
        let found = free.find(|volume| {
            reaches(volume, node)
                && !taken.contains(volume.metadata.name.as_deref().unwrap_or_default())
        });
        if let Some(volume) = found {
            taken.insert(name_of(&**volume));
            choices.push(Choice::Bind(volume.clone(), one.claim.clone()));
        } else if one
            .class
            .as_ref()
            .is_some_and(|class| can_provision(class, node))
        {
            choices.push(Choice::Provision(one.claim.clone(), name.to_owned()));
        } else {
            return None;
        }
    }
    Some(choices)
}
