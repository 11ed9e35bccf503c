//! Policies, pods and namespaces as the last watch event left them, and the pods of this node.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;

use super::model::{Labels, PodModel, PolicyModel};
use super::rules::{Cluster, fragment};
use crate::nft::Table;
use crate::ports::watch::Attachments;

type Id = (String, String);

/// See the module.
#[derive(Default)]
pub struct PolicyIndex {
    policies: BTreeMap<Id, PolicyModel>,
    pods: BTreeMap<Id, PodModel>,
    namespaces: BTreeMap<String, Labels>,
    attachments: Attachments,
    units: BTreeSet<String>,
    dirty: bool,
}

impl PolicyIndex {
    /// A policy came, changed or went.
    pub fn set_policy(&mut self, id: Id, policy: Option<&NetworkPolicy>) {
        match policy.and_then(PolicyModel::of) {
            Some(policy) => self.policies.insert(id, policy),
            None => self.policies.remove(&id),
        };
        self.dirty = true;
    }

    /// A pod came, changed or went.
    pub fn set_pod(&mut self, id: Id, pod: Option<&Pod>) {
        let model = pod.and_then(PodModel::of);
        if self.pods.get(&id) == model.as_ref() {
            return;
        }
        match model {
            Some(model) => self.pods.insert(id, model),
            None => self.pods.remove(&id),
        };
        // Pods matter only to policies.
        self.dirty |= !self.policies.is_empty();
    }

    /// A namespace came, changed or went.
    pub fn set_namespace(&mut self, name: String, namespace: Option<&Namespace>) {
        let labels = namespace.map(|n| n.metadata.labels.clone().unwrap_or_default());
        if self.namespaces.get(&name) == labels.as_ref() {
            return;
        }
        match labels {
            Some(labels) => self.namespaces.insert(name, labels),
            None => self.namespaces.remove(&name),
        };
        self.dirty |= !self.policies.is_empty();
    }

    /// The pods of this node, with the addresses that they were given: known before the API server
    /// knows them.
    pub fn set_attachments(&mut self, attachments: Attachments) {
        self.attachments = attachments;
        self.dirty = true;
    }

    /// Policies known.
    pub fn len(&self) -> usize {
        self.policies.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// Brings the table up to date. Whether there was something to do.
    pub fn update(&mut self, table: &mut Table) -> bool {
        if !std::mem::take(&mut self.dirty) {
            return false;
        }
        let cluster = Cluster {
            pods: self.pods.values().collect(),
            namespaces: &self.namespaces,
        };
        let mut units = BTreeSet::new();
        for attachment in self.attachments.values() {
            let id = (attachment.namespace.clone(), attachment.name.clone());
            let Some(pod) = self.pods.get(&id) else {
                continue;
            };
            let here = PodModel {
                addresses: attachment.addresses.clone(),
                ..pod.clone()
            };
            let policies = self.policies.values();
            let found = fragment(&attachment.sandbox, &here, policies, &cluster);
            table.set_fragment(&attachment.sandbox, Some(found));
            units.insert(attachment.sandbox.clone());
        }
        for gone in self.units.difference(&units) {
            table.set_fragment(gone, None);
        }
        self.units = units;
        true
    }
}
