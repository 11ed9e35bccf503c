//! Who is owned by whom. No IO.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{
    api::ObjectMeta,
    core::{ApiResource, GroupVersionKind},
};

/// Holds an object until its blocking dependents are gone.
pub(super) const FOREGROUND: &str = "foregroundDeletion";
/// Holds an object until its dependents no longer refer to it.
pub(super) const ORPHAN: &str = "orphan";

/// An object.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// `None`: only known because others refer to it.
    pub resource: Option<Arc<ApiResource>>,
    pub namespace: String,
    pub name: String,
    pub owners: Vec<OwnerReference>,
    pub dependents: BTreeSet<String>,
    /// Its deletion has begun.
    pub deleting: bool,
    /// Being deleted, after its dependents.
    pub waits_for_dependents: bool,
    /// Being deleted, leaving its dependents.
    pub orphans_dependents: bool,
}

/// All objects by uid.
#[derive(Default)]
pub(super) struct Graph {
    nodes: HashMap<String, Node>,
    /// The kinds of the nodes, by group and kind.
    resources: HashMap<(String, String), Arc<ApiResource>>,
    /// Known objects by kind (group, plural), then namespace.
    counts: HashMap<(String, String), HashMap<String, usize>>,
}

fn has_finalizer(meta: &ObjectMeta, finalizer: &str) -> bool {
    meta.finalizers.iter().flatten().any(|own| own == finalizer)
}

impl Graph {
    pub(super) fn get(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    /// The one copy of a kind for all its nodes.
    fn shared(&mut self, resource: &ApiResource) -> Arc<ApiResource> {
        let kind = (resource.group.clone(), resource.kind.clone());
        let known = self.resources.entry(kind);
        let known = known.or_insert_with(|| Arc::new(resource.clone()));
        if **known != *resource {
            // It is served in another version by now.
            *known = Arc::new(resource.clone());
        }
        known.clone()
    }

    fn count(&mut self, resource: &ApiResource, namespace: &str, by: isize) {
        let kind = (resource.group.clone(), resource.plural.clone());
        let counts = self.counts.entry(kind).or_default();
        let count = counts.entry(namespace.to_owned()).or_default();
        *count = count.saturating_add_signed(by);
        if *count == 0 {
            counts.remove(namespace);
        }
    }

    /// Number of objects of a kind in a namespace.
    pub(super) fn number_of(&self, group: &str, plural: &str, namespace: &str) -> usize {
        let kind = (group.to_owned(), plural.to_owned());
        let counts = self.counts.get(&kind);
        counts
            .and_then(|counts| counts.get(namespace))
            .copied()
            .unwrap_or(0)
    }

    /// The objects that refer to this one.
    pub(super) fn dependents(&self, uid: &str) -> Vec<(String, Node)> {
        let Some(node) = self.nodes.get(uid) else {
            return Vec::new();
        };
        let dependents = node.dependents.iter();
        dependents
            .filter_map(|uid| Some((uid.clone(), self.nodes.get(uid)?.clone())))
            .collect()
    }

    /// An object was created or changed. Gives the uids to look at.
    pub(super) fn observe(&mut self, resource: &ApiResource, meta: &ObjectMeta) -> Vec<String> {
        let Some(uid) = meta.uid.clone() else {
            return Vec::new();
        };
        let owners = meta.owner_references.clone().unwrap_or_default();
        let deleting = meta.deletion_timestamp.is_some();
        let mut woken = Vec::new();
        let before = self.nodes.remove(&uid);
        let old_owners = before
            .as_ref()
            .map(|node| node.owners.clone())
            .unwrap_or_default();
        let node = Node {
            resource: Some(self.shared(resource)),
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            owners: owners.clone(),
            dependents: before
                .as_ref()
                .map(|node| node.dependents.clone())
                .unwrap_or_default(),
            deleting,
            waits_for_dependents: deleting && has_finalizer(meta, FOREGROUND),
            orphans_dependents: deleting && has_finalizer(meta, ORPHAN),
        };
        let known = before.as_ref().filter(|node| node.resource.is_some());
        let begins_to_wait =
            node.waits_for_dependents && known.is_none_or(|before| !before.waits_for_dependents);
        if begins_to_wait {
            woken.extend(node.dependents.iter().cloned());
        }
        if node.waits_for_dependents || node.orphans_dependents {
            woken.push(uid.clone());
        }
        if known.is_none() && before.is_some() {
            // Dependents may refer to it by another name or namespace.
            woken.extend(node.dependents.iter().cloned());
        }
        if known.is_some_and(|before| before.owners != owners) {
            woken.push(uid.clone());
        }
        let namespace = node.namespace.clone();
        if known.is_none() {
            self.count(resource, &namespace, 1);
        }
        self.nodes.insert(uid.clone(), node);
        for lost in old_owners
            .iter()
            .filter(|old| !owners.iter().any(|new| new.uid == old.uid))
        {
            self.unlink(&lost.uid, &uid, &mut woken);
        }
        for owner in &owners {
            self.link(owner, &uid, &namespace, &mut woken);
        }
        // A reference that stopped blocking may have been the last one.
        for owner in &old_owners {
            if self
                .nodes
                .get(&owner.uid)
                .is_some_and(|node| node.waits_for_dependents)
            {
                woken.push(owner.uid.clone());
            }
        }
        woken
    }

    fn link(
        &mut self,
        owner: &OwnerReference,
        dependent: &str,
        namespace: &str,
        woken: &mut Vec<String>,
    ) {
        match self.nodes.get_mut(&owner.uid) {
            Some(node) => {
                node.dependents.insert(dependent.to_owned());
                let mismatch = !node.namespace.is_empty() && node.namespace != namespace;
                if node.waits_for_dependents || (node.resource.is_some() && mismatch) {
                    woken.push(dependent.to_owned());
                }
            }
            None => {
                let node = Node {
                    resource: None,
                    namespace: namespace.to_owned(),
                    name: owner.name.clone(),
                    owners: Vec::new(),
                    dependents: BTreeSet::from([dependent.to_owned()]),
                    deleting: false,
                    waits_for_dependents: false,
                    orphans_dependents: false,
                };
                self.nodes.insert(owner.uid.clone(), node);
                woken.push(dependent.to_owned());
            }
        }
    }

    /// `dependent` no longer refers to `owner`.
    fn unlink(&mut self, owner: &str, dependent: &str, woken: &mut Vec<String>) {
        let Some(node) = self.nodes.get_mut(owner) else {
            return;
        };
        node.dependents.remove(dependent);
        if node.waits_for_dependents || node.orphans_dependents {
            woken.push(owner.to_owned());
        }
        if node.resource.is_none() && node.dependents.is_empty() {
            self.nodes.remove(owner);
        }
    }

    /// An object is gone. Gives the uids to look at.
    pub(super) fn remove(&mut self, uid: &str) -> Vec<String> {
        let mut woken = Vec::new();
        let Some(node) = self.nodes.remove(uid) else {
            return woken;
        };
        if let Some(resource) = &node.resource {
            self.count(resource, &node.namespace, -1);
        }
        for owner in &node.owners {
            self.unlink(&owner.uid, uid, &mut woken);
        }
        woken.extend(node.dependents.iter().cloned());
        if !node.dependents.is_empty() {
            // Stays as somebody that others refer to, so that they still find each other.
            let shadow = Node {
                resource: None,
                owners: Vec::new(),
                deleting: false,
                waits_for_dependents: false,
                orphans_dependents: false,
                ..node
            };
            self.nodes.insert(uid.to_owned(), shadow);
        }
        woken
    }

    /// Uids of objects that refer to an owner of this kind that nobody has seen.
    pub(super) fn with_unseen_owner(&self, kind: &ApiResource) -> Vec<String> {
        let unseen = self
            .nodes
            .iter()
            .filter(|(_, node)| node.resource.is_none());
        let dependents = unseen.flat_map(|(owner, node)| {
            let refers = move |reference: &OwnerReference| {
                reference.uid == *owner && same_group_kind(kind, reference)
            };
            let of_kind = move |dependent: &&String| {
                let node = self.nodes.get(*dependent);
                node.is_some_and(|node| node.owners.iter().any(refers))
            };
            node.dependents.iter().filter(of_kind)
        });
        dependents.cloned().collect()
    }

    /// Uids of the known objects of a kind.
    pub(super) fn uids_of(&self, resource: &ApiResource) -> Vec<String> {
        let of_kind = self.nodes.iter().filter(|(_, node)| {
            node.resource
                .as_ref()
                .is_some_and(|own| own.group == resource.group && own.kind == resource.kind)
        });
        of_kind.map(|(uid, _)| uid.clone()).collect()
    }
}

/// Whether a reference is to an object of this kind, of whatever version.
pub(super) fn same_group_kind(resource: &ApiResource, reference: &OwnerReference) -> bool {
    let group = match reference.api_version.split_once('/') {
        Some((group, _)) => group,
        None => "",
    };
    let wanted = GroupVersionKind::gvk(group, "", &reference.kind);
    resource.group == wanted.group && resource.kind == wanted.kind
}
