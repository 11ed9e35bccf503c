//! An object that every active namespace has: made when it is missing, mended when others change it.

use std::{fmt::Debug, sync::Arc};

use k8s_openapi::api::core::v1::Namespace;
use kube::Resource;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    namespace::is_active,
    runtime::{Action, Controller, Informer, Key, ReconcileError, WorkQueue, WriteError, Writer},
};

/// What the object is.
pub trait Standard: Send + Sync + 'static {
    /// Its kind.
    type Object: Resource<DynamicType = ()>
        + Serialize
        + DeserializeOwned
        + Debug
        + Clone
        + Send
        + Sync;
    /// The controller's name, for logs and metrics.
    const CONTROLLER: &'static str;
    /// The object's name.
    const NAME: &'static str;
    /// A new one.
    fn missing(&self, namespace: &str) -> Result<Self::Object, WriteError>;
    /// What must become of the one there is; `None`: nothing.
    fn mended(&self, found: &Self::Object) -> Option<Self::Object>;
}

/// See the module.
pub struct PerNamespace<S: Standard> {
    standard: S,
    writer: Arc<dyn Writer>,
    pub(crate) namespaces: Arc<Informer<Namespace>>,
    pub(crate) objects: Arc<Informer<S::Object>>,
    pub(crate) queue: Arc<WorkQueue>,
}

impl<S: Standard> PerNamespace<S> {
    /// Connects the controller to its informers; `objects` need hold only those of the name.
    pub fn connect(
        standard: S,
        writer: Arc<dyn Writer>,
        namespaces: Arc<Informer<Namespace>>,
        objects: Arc<Informer<S::Object>>,
    ) -> Arc<Self> {
        let queue = Arc::new(WorkQueue::default());
        namespaces.on_change({
            let queue = queue.clone();
            move |delta| queue.add(Key::of(&**delta.newest()))
        });
        objects.on_change({
            let queue = queue.clone();
            move |delta| {
                let meta = delta.newest().meta();
                if meta.name.as_deref() == Some(S::NAME) {
                    queue.add(Key::new("", meta.namespace.clone().unwrap_or_default()));
                }
            }
        });
        Arc::new(PerNamespace {
            standard,
            writer,
            namespaces,
            objects,
            queue,
        })
    }
}

#[async_trait::async_trait]
impl<S: Standard> Controller for PerNamespace<S> {
    fn name(&self) -> &'static str {
        S::CONTROLLER
    }

    fn queue(&self) -> &Arc<WorkQueue> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<Action, ReconcileError> {
        let namespace = self.namespaces.get(key);
        if !namespace.is_some_and(|namespace| is_active(&namespace)) {
            return Ok(Action::Done);
        }
        let outcome = match self.objects.get(&Key::new(&*key.name, S::NAME)) {
            Some(found) => match self.standard.mended(&found) {
                None => return Ok(Action::Done),
                Some(mended) => self.writer.replace_object(&mended).await,
            },
            None => {
                let object = self.standard.missing(&key.name)?;
                self.writer.create_object(&object).await
            }
        };
        match outcome {
            Err(error) if !error.is_already_exists() && !error.is_namespace_terminating() => {
                Err(error.into())
            }
            _ => Ok(Action::Done),
        }
    }
}
