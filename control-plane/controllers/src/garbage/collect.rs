//! What to do about one object.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{
    api::{DeleteParams, ObjectMeta, Preconditions, PropagationPolicy},
    core::ApiResource,
};
use serde_json::json;

use super::{
    GarbageCollector,
    graph::{FOREGROUND, Node, ORPHAN, same_group_kind},
};
use crate::{
    pod_gc::ignore_gone,
    runtime::{Action, ReconcileError, Target, WriteError},
};

/// The owners of an object, by what has become of them.
#[derive(Default)]
struct Owners {
    solid: Vec<OwnerReference>,
    absent: Vec<OwnerReference>,
    /// Being deleted after their dependents, of which this is a blocking one.
    waiting: Vec<OwnerReference>,
}

impl GarbageCollector {
    pub(super) async fn collect(&self, uid: &str) -> Result<Action, ReconcileError> {
        let Some(node) = self.graph.lock().get(uid).cloned() else {
            return Ok(Action::Done);
        };
        let Some(resource) = node.resource.clone() else {
            return Ok(Action::Done);
        };
        if node.orphans_dependents {
            return self.orphan_dependents(uid, &node, &resource).await;
        }
        if node.waits_for_dependents {
            return self.finish_foreground(uid, &node, &resource).await;
        }
        if node.deleting || node.owners.is_empty() {
            return Ok(Action::Done);
        }
        let Some(live) = self.read(uid, &node, &resource).await? else {
            return Ok(Action::Done);
        };
        let owners = self
            .classify(&node.namespace, live.owner_references.clone())
            .await?;
        if live.deletion_timestamp.is_some()
            || (owners.absent.is_empty() && owners.waiting.is_empty())
        {
            return Ok(Action::Done);
        }
        if !owners.solid.is_empty() {
            return self.keep(&node, &resource, &live, owners.solid).await;
        }
        self.delete(uid, &node, &resource, &live, !owners.waiting.is_empty())
            .await
    }

    /// The object's metadata now; `None` if it is gone.
    async fn read(
        &self,
        uid: &str,
        node: &Node,
        resource: &ApiResource,
    ) -> Result<Option<ObjectMeta>, WriteError> {
        match self.writer.get(target(node, resource)).await {
            Ok(mut object) => {
                let meta: ObjectMeta = crate::runtime::writer::object(object["metadata"].take())?;
                if meta.uid.as_deref() == Some(uid) {
                    return Ok(Some(meta));
                }
                self.removed(uid);
                Ok(None)
            }
            Err(error) if error.is_not_found() => {
                self.removed(uid);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn classify(
        &self,
        namespace: &str,
        references: Option<Vec<OwnerReference>>,
    ) -> Result<Owners, ReconcileError> {
        let mut owners = Owners::default();
        for reference in references.unwrap_or_default() {
            let known = self.graph.lock().get(&reference.uid).cloned();
            match known.filter(|owner| owner.resource.is_some()) {
                // An owner in another namespace cannot be one.
                Some(owner) if !owner.namespace.is_empty() && owner.namespace != namespace => {
                    owners.absent.push(reference);
                }
                Some(owner) if owner.waits_for_dependents => owners.waiting.push(reference),
                Some(_) => owners.solid.push(reference),
                None if self.owner_exists(namespace, &reference).await? => {
                    owners.solid.push(reference);
                }
                None => owners.absent.push(reference),
            }
        }
        Ok(owners)
    }

    /// Asks the API server about an owner that no watch has shown.
    async fn owner_exists(
        &self,
        namespace: &str,
        reference: &OwnerReference,
    ) -> Result<bool, ReconcileError> {
        if self.is_known_absent(&reference.uid) {
            return Ok(false);
        }
        let served = self.writer.resources().await?;
        let kind = served.iter().find(|served| {
            served.resource.api_version == reference.api_version
                && served.resource.kind == reference.kind
        });
        let (resource, namespaced) = match kind {
            Some(served) => (served.resource.clone(), served.namespaced),
            None => match served
                .iter()
                .find(|served| same_group_kind(&served.resource, reference))
            {
                Some(served) => (served.resource.clone(), served.namespaced),
                // A kind that is not served (any more): whether its objects are gone is unknown.
                None => {
                    return Err(ReconcileError::Waiting(format!(
                        "owner {} {} is of a kind that is not served",
                        reference.kind, reference.name
                    )));
                }
            },
        };
        let namespace = if namespaced { namespace } else { "" };
        if namespaced && namespace.is_empty() {
            // A cluster-scoped object cannot be owned by a namespaced one.
            return Ok(false);
        }
        let target = Target {
            resource: &resource,
            namespace,
            name: &reference.name,
        };
        let found = match self.writer.get(target).await {
            Ok(owner) => owner["metadata"]["uid"].as_str() == Some(&reference.uid),
            Err(error) if error.is_not_found() => false,
            Err(error) => return Err(error.into()),
        };
        if !found {
            self.remember_absent(&reference.uid);
        }
        Ok(found)
    }

    /// Some owner is left: only the references to the others go.
    async fn keep(
        &self,
        node: &Node,
        resource: &ApiResource,
        live: &ObjectMeta,
        owners: Vec<OwnerReference>,
    ) -> Result<Action, ReconcileError> {
        self.set_owners(node, resource, live, &owners).await?;
        Ok(Action::Done)
    }

    async fn set_owners(
        &self,
        node: &Node,
        resource: &ApiResource,
        live: &ObjectMeta,
        owners: &[OwnerReference],
    ) -> Result<(), WriteError> {
        let patch = json!({"metadata": {
            "uid": live.uid, "resourceVersion": live.resource_version, "ownerReferences": owners,
        }});
        match self.writer.patch(target(node, resource), None, patch).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    async fn delete(
        &self,
        uid: &str,
        node: &Node,
        resource: &ApiResource,
        live: &ObjectMeta,
        owner_waits: bool,
    ) -> Result<Action, ReconcileError> {
        let dependents = self.graph.lock().dependents(uid);
        let has = |finalizer: &str| live.finalizers.iter().flatten().any(|own| own == finalizer);
        let policy = if owner_waits && !dependents.is_empty() {
            // A circle of objects that all wait for each other must be opened somewhere.
            if dependents
                .iter()
                .any(|(_, dependent)| dependent.waits_for_dependents)
            {
                self.unblock(node, resource, live).await?;
            }
            PropagationPolicy::Foreground
        } else if has(ORPHAN) {
            PropagationPolicy::Orphan
        } else if has(FOREGROUND) {
            PropagationPolicy::Foreground
        } else {
            PropagationPolicy::Background
        };
        tracing::info!(
            kind = resource.kind,
            namespace = node.namespace,
            name = node.name,
            ?policy,
            "object without owners deleted"
        );
        let options = DeleteParams {
            propagation_policy: Some(policy),
            preconditions: Some(Preconditions {
                uid: Some(uid.to_owned()),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        ignore_gone(self.writer.delete(target(node, resource), options).await)?;
        Ok(Action::Done)
    }

    /// Makes none of the object's references block their owner.
    async fn unblock(
        &self,
        node: &Node,
        resource: &ApiResource,
        live: &ObjectMeta,
    ) -> Result<(), ReconcileError> {
        let mut owners = live.owner_references.clone().unwrap_or_default();
        for owner in &mut owners {
            owner.block_owner_deletion = Some(false);
        }
        self.set_owners(node, resource, live, &owners).await?;
        Ok(())
    }

    /// Foreground: lets the object go when no dependent blocks it any more, and sees to the
    /// dependents until then.
    async fn finish_foreground(
        &self,
        uid: &str,
        node: &Node,
        resource: &ApiResource,
    ) -> Result<Action, ReconcileError> {
        let dependents = self.graph.lock().dependents(uid);
        let blocks = |dependent: &Node| {
            dependent
                .owners
                .iter()
                .any(|owner| owner.uid == uid && owner.block_owner_deletion == Some(true))
        };
        if !dependents.iter().any(|(_, dependent)| blocks(dependent)) {
            self.remove_finalizer(uid, node, resource, FOREGROUND)
                .await?;
            return Ok(Action::Done);
        }
        self.wake(
            dependents
                .into_iter()
                .filter(|(_, dependent)| !dependent.deleting)
                .map(|(uid, _)| uid)
                .collect(),
        );
        Ok(Action::Done)
    }

    /// Orphan: takes the references to the object out of its dependents, then lets it go.
    async fn orphan_dependents(
        &self,
        uid: &str,
        node: &Node,
        resource: &ApiResource,
    ) -> Result<Action, ReconcileError> {
        let dependents = self.graph.lock().dependents(uid);
        for (dependent_uid, dependent) in dependents {
            let Some(of) = dependent.resource.clone() else {
                continue;
            };
            let Some(live) = self.read(&dependent_uid, &dependent, &of).await? else {
                continue;
            };
            let mut owners = live.owner_references.clone().unwrap_or_default();
            let before = owners.len();
            owners.retain(|owner| owner.uid != uid);
            if owners.len() != before {
                self.set_owners(&dependent, &of, &live, &owners).await?;
            }
        }
        self.remove_finalizer(uid, node, resource, ORPHAN).await?;
        Ok(Action::Done)
    }

    async fn remove_finalizer(
        &self,
        uid: &str,
        node: &Node,
        resource: &ApiResource,
        finalizer: &str,
    ) -> Result<(), ReconcileError> {
        let Some(live) = self.read(uid, node, resource).await? else {
            return Ok(());
        };
        let mut finalizers = live.finalizers.clone().unwrap_or_default();
        if !finalizers.iter().any(|own| own == finalizer) {
            return Ok(());
        }
        finalizers.retain(|own| own != finalizer);
        let patch = json!({"metadata": {
            "uid": live.uid, "resourceVersion": live.resource_version, "finalizers": finalizers,
        }});
        match self.writer.patch(target(node, resource), None, patch).await {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(()),
        }
    }
}

fn target<'a>(node: &'a Node, resource: &'a ApiResource) -> Target<'a> {
    Target {
        resource,
        namespace: &node.namespace,
        name: &node.name,
    }
}
