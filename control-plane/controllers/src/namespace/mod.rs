//! Empties a namespace that is being deleted, then lets it go.
//!
//! Pods go first, and everything else waits for them: what they use (secrets, claims, network
//! policies) outlives them. Content whose finalizers take time is waited for and named in the
//! namespace's conditions.

mod content;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::core::v1::{Namespace, NamespaceCondition},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use serde_json::json;

use crate::runtime::{
    Action, Controller, Informer, Key, ReconcileError, Target, WorkQueue, Writer,
    writer::resource_of,
};

/// Our entry in `spec.finalizers`.
const FINALIZER: &str = "kubernetes";
/// Time between two looks at content that is still going.
const RECHECK: Duration = Duration::from_secs(1);

/// Whether the namespace takes new objects.
pub fn is_active(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_none()
}

/// See the module.
pub struct NamespaceController {
    writer: Arc<dyn Writer>,
    namespaces: Arc<Informer<Namespace>>,
    queue: Arc<WorkQueue>,
}

impl NamespaceController {
    /// Connects the controller to its informer.
    pub fn new(writer: Arc<dyn Writer>, namespaces: Arc<Informer<Namespace>>) -> Arc<Self> {
        let queue = Arc::new(WorkQueue::default());
        namespaces.on_change({
            let queue = queue.clone();
            move |delta| {
                let namespace = delta.newest();
                if !is_active(namespace) {
                    queue.add(Key::of(&**namespace));
                }
            }
        });
        Arc::new(NamespaceController {
            writer,
            namespaces,
            queue,
        })
    }

    /// PUT to `finalize` without our finalizer.
    async fn finalize(&self, namespace: &Namespace) -> Result<(), ReconcileError> {
        let finalizers: Vec<String> = finalizers(namespace)
            .filter(|finalizer| *finalizer != FINALIZER)
            .map(str::to_owned)
            .collect();
        let name = namespace.metadata.name.as_deref().unwrap_or_default();
        let resource = resource_of::<Namespace>();
        let target = Target {
            resource: &resource,
            namespace: "",
            name,
        };
        // The newest state: conditions were just written.
        let mut body = self.writer.get(target).await?;
        if body["metadata"]["uid"].as_str() != namespace.metadata.uid.as_deref() {
            return Ok(());
        }
        body["spec"]["finalizers"] = json!(finalizers);
        match self.writer.replace(target, Some("finalize"), body).await {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(()),
        }
    }

    async fn write_conditions(
        &self,
        namespace: &Namespace,
        wanted: Vec<NamespaceCondition>,
    ) -> Result<(), ReconcileError> {
        let status = namespace.status.clone().unwrap_or_default();
        let mut conditions = status.conditions.unwrap_or_default();
        let before = conditions.clone();
        for mut new in wanted {
            match conditions.iter_mut().find(|old| old.type_ == new.type_) {
                Some(old) if old.status == new.status && old.message == new.message => {}
                Some(old) => {
                    if old.status == new.status {
                        new.last_transition_time = old.last_transition_time.clone();
                    }
                    *old = new;
                }
                None => conditions.push(new),
            }
        }
        if conditions == before && status.phase.as_deref() == Some("Terminating") {
            return Ok(());
        }
        let patch = json!({
            "metadata": {"uid": namespace.metadata.uid},
            "status": {"phase": "Terminating", "conditions": conditions},
        });
        match self
            .writer
            .patch_object(namespace, Some("status"), patch)
            .await
        {
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error.into()),
            _ => Ok(()),
        }
    }
}

fn finalizers(namespace: &Namespace) -> impl Iterator<Item = &str> {
    let spec = namespace.spec.as_ref();
    spec.and_then(|spec| spec.finalizers.as_ref())
        .into_iter()
        .flatten()
        .map(String::as_str)
}

fn condition(kind: &str, holds: bool, reason: &str, message: String) -> NamespaceCondition {
    NamespaceCondition {
        type_: kind.into(),
        status: if holds { "True" } else { "False" }.into(),
        reason: Some(reason.into()),
        message: Some(message),
        last_transition_time: Some(Time(Timestamp::now())),
    }
}

#[async_trait::async_trait]
impl Controller for NamespaceController {
    fn name(&self) -> &'static str {
        "namespace"
    }

    fn queue(&self) -> &Arc<WorkQueue> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<Action, ReconcileError> {
        let Some(namespace) = self.namespaces.get(key) else {
            return Ok(Action::Done);
        };
        if is_active(&namespace) || !finalizers(&namespace).any(|finalizer| finalizer == FINALIZER)
        {
            return Ok(Action::Done);
        }
        let swept = content::sweep(&*self.writer, &key.name).await;
        self.write_conditions(&namespace, swept.conditions())
            .await?;
        if swept.is_empty() {
            self.finalize(&namespace).await?;
            return Ok(Action::Done);
        }
        match swept.into_error() {
            Some(error) => Err(error),
            None => Ok(Action::After(RECHECK)),
        }
    }
}
