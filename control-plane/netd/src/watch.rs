//! Watches of the API server as plain changes.

use std::collections::HashSet;
use std::fmt::Debug;
use std::sync::Arc;

use futures::StreamExt;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

/// A change of one kind's objects.
#[derive(Debug, Clone)]
pub enum Change<K> {
    /// New or changed.
    Applied(Arc<K>),
    /// Gone: namespace and name.
    Deleted(String, String),
    /// A whole list was read: everything that was there is known.
    Synced,
}

/// Follows a kind for ever and hands changes to `input`, until that is closed. An API server that
/// is away is waited for. Objects that went while nobody watched are told as deleted.
pub async fn follow<K, I>(
    api: Api<K>,
    config: watcher::Config,
    input: mpsc::Sender<I>,
    wrap: impl Fn(Change<K>) -> I,
) where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let mut stream = std::pin::pin!(watcher(api, config).default_backoff());
    let mut known: HashSet<(String, String)> = HashSet::new();
    let mut listed: HashSet<(String, String)> = HashSet::new();
    let mut failing = false;
    while let Some(event) = stream.next().await {
        let mut changes = Vec::with_capacity(1);
        match event {
            Ok(watcher::Event::Init) => listed.clear(),
            Ok(watcher::Event::InitApply(object)) => {
                listed.insert(id(&object));
                known.insert(id(&object));
                changes.push(Change::Applied(Arc::new(trim(object))));
            }
            Ok(watcher::Event::InitDone) => {
                changes.extend(
                    known
                        .difference(&listed)
                        .map(|(namespace, name)| Change::Deleted(namespace.clone(), name.clone())),
                );
                known = std::mem::take(&mut listed);
                changes.push(Change::Synced);
                failing = false;
            }
            Ok(watcher::Event::Apply(object)) => {
                known.insert(id(&object));
                changes.push(Change::Applied(Arc::new(trim(object))));
            }
            Ok(watcher::Event::Delete(object)) => {
                let (namespace, name) = id(&object);
                known.remove(&(namespace.clone(), name.clone()));
                changes.push(Change::Deleted(namespace, name));
            }
            Err(error) => {
                // Once per outage: the watch is tried again and again.
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(kind = %K::kind(&()), %error, "watch failed; it is tried again");
                }
            }
        }
        for change in changes {
            if input.send(wrap(change)).await.is_err() {
                return;
            }
        }
    }
}

/// Namespace and name.
pub fn id<K: Resource>(object: &K) -> (String, String) {
    let meta = object.meta();
    (
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    )
}

/// Without what nothing here reads.
fn trim<K: Resource>(mut object: K) -> K {
    let meta = object.meta_mut();
    meta.managed_fields = None;
    meta.owner_references = None;
    object
}
