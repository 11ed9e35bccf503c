//! Deleting everything in a namespace, and telling what is left.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::NamespaceCondition;
use kube::{
    api::{DeleteParams, DynamicObject, Preconditions, PropagationPolicy},
    core::ApiResource,
};

use super::condition;
use crate::runtime::{ReconcileError, Target, WriteError, Writer};

/// What one pass found and could not do.
#[derive(Default)]
pub(super) struct Swept {
    /// Objects still there, by resource.
    remaining: BTreeMap<String, usize>,
    /// Finalizers that hold them.
    finalizers: BTreeMap<String, usize>,
    discovery: Option<WriteError>,
    failures: Vec<WriteError>,
}

fn resource_name(resource: &ApiResource) -> String {
    if resource.group.is_empty() {
        resource.plural.clone()
    } else {
        format!("{}.{}", resource.plural, resource.group)
    }
}

fn is_pods(resource: &ApiResource) -> bool {
    resource.group.is_empty() && resource.plural == "pods"
}

/// Deletes the pods; once there are none, everything else.
pub(super) async fn sweep(writer: &dyn Writer, namespace: &str) -> Swept {
    let mut swept = Swept::default();
    let resources = match writer.resources().await {
        Ok(resources) => resources,
        Err(error) => {
            swept.discovery = Some(error);
            return swept;
        }
    };
    let (pods, others): (Vec<_>, Vec<_>) = resources
        .into_iter()
        .filter(|found| found.namespaced && found.can("list") && found.can("delete"))
        .map(|found| found.resource)
        .partition(is_pods);
    for resource in &pods {
        swept.delete_all(writer, resource, namespace).await;
    }
    if swept.is_empty() {
        for resource in &others {
            swept.delete_all(writer, resource, namespace).await;
        }
    }
    swept
}

impl Swept {
    async fn delete_all(&mut self, writer: &dyn Writer, resource: &ApiResource, namespace: &str) {
        let collection = Target {
            resource,
            namespace,
            name: "",
        };
        let objects = match writer.list(collection).await {
            Ok(objects) => objects,
            // The kind was removed since.
            Err(error) if error.is_not_found() => return,
            Err(error) => return self.failures.push(error),
        };
        let mut any = false;
        for object in &objects {
            any |= object.metadata.deletion_timestamp.is_none();
            self.delete(writer, resource, object).await;
        }
        if objects.is_empty() {
            return;
        }
        // Objects without finalizers or grace period are gone already.
        let left = if any {
            match writer.list(collection).await {
                Ok(left) => left,
                Err(error) => return self.failures.push(error),
            }
        } else {
            objects
        };
        if !left.is_empty() {
            self.remaining.insert(resource_name(resource), left.len());
        }
        for finalizer in left
            .iter()
            .flat_map(|object| object.metadata.finalizers.iter().flatten())
        {
            *self.finalizers.entry(finalizer.clone()).or_default() += 1;
        }
    }

    async fn delete(
        &mut self,
        writer: &dyn Writer,
        resource: &ApiResource,
        object: &DynamicObject,
    ) {
        if object.metadata.deletion_timestamp.is_some() {
            return;
        }
        let target = Target {
            resource,
            namespace: object.metadata.namespace.as_deref().unwrap_or_default(),
            name: object.metadata.name.as_deref().unwrap_or_default(),
        };
        let options = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Background),
            preconditions: Some(Preconditions {
                uid: object.metadata.uid.clone(),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        match writer.delete(target, options).await {
            Err(error) if !error.is_not_found() && !error.is_conflict() => {
                self.failures.push(error);
            }
            _ => {}
        }
    }

    /// Nothing is left, and that is certain.
    pub(super) fn is_empty(&self) -> bool {
        self.remaining.is_empty() && self.discovery.is_none() && self.failures.is_empty()
    }

    /// What went wrong, if something did.
    pub(super) fn into_error(mut self) -> Option<ReconcileError> {
        self.discovery
            .or_else(|| self.failures.pop())
            .map(ReconcileError::Write)
    }

    /// In Kubernetes' words.
    pub(super) fn conditions(&self) -> Vec<NamespaceCondition> {
        let discovery = match &self.discovery {
            None => (
                false,
                "ResourcesDiscovered",
                "All resources successfully discovered".into(),
            ),
            Some(error) => (true, "DiscoveryFailed", error.message()),
        };
        let content = if self.failures.is_empty() {
            let message = "All content successfully deleted, may be waiting on finalization";
            (false, "ContentDeleted", message.to_owned())
        } else {
            let failures: Vec<_> = self.failures.iter().map(ToString::to_string).collect();
            let message = format!(
                "Failed to delete all resource types, {} remaining: {}",
                failures.len(),
                failures.join(", ")
            );
            (true, "ContentDeletionFailed", message)
        };
        let remaining = if self.remaining.is_empty() {
            (
                false,
                "ContentRemoved",
                "All content successfully removed".to_owned(),
            )
        } else {
            let parts = self
                .remaining
                .iter()
                .map(|(resource, count)| format!("{resource} has {count} resource instances"));
            let message = format!(
                "Some resources are remaining: {}",
                parts.collect::<Vec<_>>().join(", ")
            );
            (true, "SomeResourcesRemain", message)
        };
        let finalizers = if self.finalizers.is_empty() {
            (
                false,
                "ContentHasNoFinalizers",
                "All content-preserving finalizers finished".to_owned(),
            )
        } else {
            let parts = self
                .finalizers
                .iter()
                .map(|(finalizer, count)| format!("{finalizer} in {count} resource instances"));
            let message = format!(
                "Some content in the namespace has finalizers remaining: {}",
                parts.collect::<Vec<_>>().join(", ")
            );
            (true, "SomeFinalizersRemain", message)
        };
        [
            ("NamespaceDeletionDiscoveryFailure", discovery),
            ("NamespaceDeletionContentFailure", content),
            ("NamespaceContentRemaining", remaining),
            ("NamespaceFinalizersRemaining", finalizers),
        ]
        .into_iter()
        .map(|(kind, (holds, reason, message))| condition(kind, holds, reason, message))
        .collect()
    }
}
