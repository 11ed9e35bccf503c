//! Deletes what has lost its owners.
//!
//! ```text
//! watches of all kinds (metadata only) ─► Graph: who is owned by whom ─► keys (uids)
//!                                                                           │
//! reconcile: being deleted, waits for its dependents? ─► let go when the blocking ones are gone
//!            being deleted, leaves orphans?           ─► take its references away, let go
//!            all owners gone (asked at the server)?   ─► delete
//!            some owners gone?                        ─► take their references away
//! ```
//!
//! The graph only says where to look: before anything is deleted, the object and the owners that
//! seem to be missing are read from the API server.

mod collect;
mod graph;
mod monitors;
#[cfg(test)]
mod tests;

use std::{collections::HashSet, sync::Arc};

use kube::{Resource, core::ApiResource};
use parking_lot::{Mutex, RwLock};

use crate::runtime::{
    Action, Controller, Delta, Informer, Key, ReconcileError, WorkQueue, Writer,
    writer::resource_of,
};
use graph::Graph;
pub(crate) use monitors::Monitors;

/// Absent owners remembered; a uid never comes back.
const ABSENT_OWNERS: usize = 4096;

/// See the module.
pub struct GarbageCollector {
    writer: Arc<dyn Writer>,
    graph: Mutex<Graph>,
    absent: Mutex<HashSet<String>>,
    monitors: Monitors,
    queue: Arc<WorkQueue>,
    count_handlers: RwLock<Vec<CountHandler>>,
}

/// Called with the namespace and the kind of an object that came or went.
type CountHandler = Box<dyn Fn(&str, &ApiResource) + Send + Sync>;

impl GarbageCollector {
    /// A collector that knows nothing yet. Feed it with [`GarbageCollector::follow`] and
    /// [`GarbageCollector::monitor`].
    pub fn new(writer: Arc<dyn Writer>) -> Arc<Self> {
        Arc::new(GarbageCollector {
            writer,
            graph: Mutex::default(),
            absent: Mutex::default(),
            monitors: Monitors::default(),
            queue: Arc::default(),
            count_handlers: RwLock::default(),
        })
    }

    /// Takes part in an informer that is there anyway.
    pub fn follow<K>(self: &Arc<Self>, informer: &Informer<K>)
    where
        K: Resource<DynamicType = ()> + std::fmt::Debug + Send + Sync + 'static,
    {
        let resource = resource_of::<K>();
        self.monitors.followed(&resource, informer.sync_state());
        let collector = self.clone();
        informer.on_change(move |delta| match delta {
            Delta::Added(object) | Delta::Updated { new: object, .. } => {
                collector.observed(&resource, object.meta());
            }
            Delta::Deleted(object) => {
                if let Some(uid) = &object.meta().uid {
                    collector.removed(uid);
                }
            }
        });
    }

    pub(crate) fn observed(&self, resource: &ApiResource, meta: &kube::api::ObjectMeta) {
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let uid = meta.uid.as_deref().unwrap_or_default();
        let (is_new, woken) = {
            let mut graph = self.graph.lock();
            let known = graph.get(uid).is_some_and(|node| node.resource.is_some());
            (!known, graph.observe(resource, meta))
        };
        self.wake(woken);
        if is_new {
            self.counted(namespace, resource);
        }
    }

    pub(crate) fn removed(&self, uid: &str) {
        let (known, woken) = {
            let mut graph = self.graph.lock();
            let known = graph.get(uid).and_then(|node| {
                let resource = node.resource.clone()?;
                Some((node.namespace.clone(), resource))
            });
            (known, graph.remove(uid))
        };
        self.wake(woken);
        if let Some((namespace, resource)) = known {
            self.counted(&namespace, &resource);
        }
    }

    fn counted(&self, namespace: &str, resource: &ApiResource) {
        for handler in self.count_handlers.read().iter() {
            handler(namespace, resource);
        }
    }

    /// Adds a handler for objects of any kind that come or go. It must not block.
    pub(crate) fn on_count(&self, handler: impl Fn(&str, &ApiResource) + Send + Sync + 'static) {
        self.count_handlers.write().push(Box::new(handler));
    }

    /// Number of objects of a kind in a namespace; `None` while it is not known.
    pub(crate) fn number_of(&self, group: &str, plural: &str, namespace: &str) -> Option<usize> {
        let known = self.monitors.all_listed();
        known.then(|| self.graph.lock().number_of(group, plural, namespace))
    }

    #[cfg(test)]
    pub(crate) fn assume_listed(&self) {
        self.monitors.assume_listed();
    }

    fn wake(&self, uids: Vec<String>) {
        for uid in uids {
            self.queue.add(Key::new("", uid));
        }
    }

    fn is_known_absent(&self, uid: &str) -> bool {
        self.absent.lock().contains(uid)
    }

    fn remember_absent(&self, uid: &str) {
        let mut absent = self.absent.lock();
        if absent.len() >= ABSENT_OWNERS {
            absent.clear();
        }
        absent.insert(uid.to_owned());
    }
}

#[async_trait::async_trait]
impl Controller for GarbageCollector {
    fn name(&self) -> &'static str {
        "garbage-collector"
    }

    fn queue(&self) -> &Arc<WorkQueue> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<Action, ReconcileError> {
        if !self.monitors.all_listed() {
            return Err(ReconcileError::Waiting(
                "not all kinds have been listed yet".into(),
            ));
        }
        self.collect(&key.name).await
    }
}
