//! ConfigMaps and Secrets that pods on this node refer to: each watched by name while a pod needs
//! it, so that volumes follow changes and a pod waiting for one starts when it appears.
//!
//! A worker takes an [`ObjectSnapshot`] and hands it to the pure functions that build environments
//! and volumes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::runtime::WatchStreamExt;
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::env::ConfigError;
use crate::pod::containers;

/// Which of the two kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObjectKind {
    /// core/v1 ConfigMap.
    ConfigMap,
    /// core/v1 Secret.
    Secret,
}

impl ObjectKind {
    /// As Kubernetes writes it in "not found".
    pub fn resource(self) -> &'static str {
        match self {
            ObjectKind::ConfigMap => "configmap",
            ObjectKind::Secret => "secret",
        }
    }

    /// As Kubernetes writes it in "couldn't find key".
    pub fn title(self) -> &'static str {
        match self {
            ObjectKind::ConfigMap => "ConfigMap",
            ObjectKind::Secret => "Secret",
        }
    }
}

/// The content of a ConfigMap or Secret.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObjectData {
    /// `data` and `binaryData` together.
    pub data: BTreeMap<String, Vec<u8>>,
}

impl From<ConfigMap> for ObjectData {
    fn from(object: ConfigMap) -> Self {
        let text = object.data.unwrap_or_default().into_iter();
        let binary = object.binary_data.unwrap_or_default().into_iter();
        ObjectData {
            data: text
                .map(|(key, value)| (key, value.into_bytes()))
                .chain(binary.map(|(key, value)| (key, value.0)))
                .collect(),
        }
    }
}

impl From<Secret> for ObjectData {
    fn from(object: Secret) -> Self {
        let data = object.data.unwrap_or_default().into_iter();
        ObjectData {
            data: data.map(|(key, value)| (key, value.0)).collect(),
        }
    }
}

/// What a watch has found so far.
#[derive(Debug, Clone)]
enum Lookup {
    Pending(String),
    Missing,
    Found(Arc<ObjectData>),
}

type Key = (ObjectKind, String, String);

/// The watches; cheap to clone.
#[derive(Clone)]
pub struct Objects {
    client: Client,
    timeout: Duration,
    watched: Arc<Mutex<HashMap<Key, Weak<Watched>>>>,
}

/// One watched object; the watch ends when the last holder drops it.
pub struct Watched {
    kind: ObjectKind,
    name: String,
    state: watch::Receiver<Lookup>,
    listeners: Arc<Mutex<Vec<Weak<Notify>>>>,
    task: tokio::task::AbortHandle,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Objects {
    /// `timeout` bounds the wait for a watch's first answer.
    pub fn new(client: Client, timeout: Duration) -> Self {
        Objects {
            client,
            timeout,
            watched: Arc::default(),
        }
    }

    /// Watches every object that a pod refers to; `poke` is notified on each change.
    pub fn subscribe(&self, pod: &Pod, poke: &Arc<Notify>) -> Vec<Arc<Watched>> {
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        references(pod)
            .into_iter()
            .map(|(kind, name)| self.watch((kind, namespace.clone(), name), poke))
            .collect()
    }

    fn watch(&self, key: Key, poke: &Arc<Notify>) -> Arc<Watched> {
        let mut watched = self.watched.lock();
        watched.retain(|_, entry| entry.strong_count() > 0);
        if let Some(existing) = watched.get(&key).and_then(Weak::upgrade) {
            existing.listeners.lock().push(Arc::downgrade(poke));
            return existing;
        }
        let (sender, state) = watch::channel(Lookup::Pending("not answered yet".into()));
        let listeners = Arc::new(Mutex::new(vec![Arc::downgrade(poke)]));
        let (kind, namespace, name) = key.clone();
        let task = match kind {
            ObjectKind::ConfigMap => {
                let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &namespace);
                tokio::spawn(follow(api, name.clone(), sender, listeners.clone()))
            }
            ObjectKind::Secret => {
                let api: Api<Secret> = Api::namespaced(self.client.clone(), &namespace);
                tokio::spawn(follow(api, name.clone(), sender, listeners.clone()))
            }
        }
        .abort_handle();
        let entry = Arc::new(Watched {
            kind,
            name,
            state,
            listeners,
            task,
        });
        watched.insert(key, Arc::downgrade(&entry));
        entry
    }

    /// The present state of every subscribed object, waiting for first answers at most the
    /// configured time.
    pub async fn snapshot(&self, subscriptions: &[Arc<Watched>]) -> ObjectSnapshot {
        let mut snapshot = ObjectSnapshot::default();
        let deadline = tokio::time::Instant::now() + self.timeout;
        for watched in subscriptions {
            let mut state = watched.state.clone();
            let settled = state.wait_for(|lookup| !matches!(lookup, Lookup::Pending(_)));
            let lookup = match tokio::time::timeout_at(deadline, settled).await {
                Ok(Ok(lookup)) => lookup.clone(),
                _ => watched.state.borrow().clone(),
            };
            snapshot.insert(watched.kind, &watched.name, lookup);
        }
        snapshot
    }
}

async fn follow<K>(
    api: Api<K>,
    name: String,
    sender: watch::Sender<Lookup>,
    listeners: Arc<Mutex<Vec<Weak<Notify>>>>,
) where
    K: kube::Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug + Send + 'static,
    ObjectData: From<K>,
{
    let stream = kube::runtime::watcher::watch_object(api, &name).default_backoff();
    let mut stream = std::pin::pin!(stream);
    while let Some(item) = stream.next().await {
        let lookup = match item {
            Ok(Some(object)) => Lookup::Found(Arc::new(ObjectData::from(object))),
            Ok(None) => Lookup::Missing,
            Err(error) => {
                // What is known stays in force while the API server is away.
                sender.send_if_modified(|state| match state {
                    Lookup::Pending(message) => {
                        *message = error.to_string();
                        true
                    }
                    _ => false,
                });
                continue;
            }
        };
        sender.send_replace(lookup);
        listeners
            .lock()
            .retain(|listener| match listener.upgrade() {
                Some(listener) => {
                    listener.notify_one();
                    true
                }
                None => false,
            });
    }
}

/// The objects of one pod at one moment.
#[derive(Debug, Clone, Default)]
pub struct ObjectSnapshot {
    objects: HashMap<(ObjectKind, String), Lookup>,
}

impl ObjectSnapshot {
    fn insert(&mut self, kind: ObjectKind, name: &str, lookup: Lookup) {
        self.objects.insert((kind, name.to_owned()), lookup);
    }

    /// The object's data. An optional object that is missing is `None`; a missing one that is not
    /// optional, or one that could not be read, is an error.
    pub fn get(
        &self,
        kind: ObjectKind,
        name: &str,
        optional: bool,
    ) -> Result<Option<Arc<ObjectData>>, ConfigError> {
        match self.objects.get(&(kind, name.to_owned())) {
            Some(Lookup::Found(data)) => Ok(Some(data.clone())),
            Some(Lookup::Pending(message)) => Err(ConfigError::Unavailable {
                kind: kind.resource(),
                name: name.into(),
                message: message.clone(),
            }),
            Some(Lookup::Missing) | None if optional => Ok(None),
            Some(Lookup::Missing) | None => Err(ConfigError::NotFound {
                kind: kind.resource(),
                name: name.into(),
            }),
        }
    }
}

/// The ConfigMaps and Secrets a pod's containers, volumes and image pulls name.
pub fn references(pod: &Pod) -> BTreeSet<(ObjectKind, String)> {
    use ObjectKind::{ConfigMap, Secret};
    let mut found = BTreeSet::new();
    let Some(spec) = &pod.spec else { return found };
    for (_, container) in containers::all(pod) {
        for source in container.env_from.iter().flatten() {
            found.extend(
                source
                    .config_map_ref
                    .iter()
                    .map(|r| (ConfigMap, r.name.clone())),
            );
            found.extend(source.secret_ref.iter().map(|r| (Secret, r.name.clone())));
        }
        for source in container
            .env
            .iter()
            .flatten()
            .filter_map(|v| v.value_from.as_ref())
        {
            found.extend(
                source
                    .config_map_key_ref
                    .iter()
                    .map(|r| (ConfigMap, r.name.clone())),
            );
            found.extend(
                source
                    .secret_key_ref
                    .iter()
                    .map(|r| (Secret, r.name.clone())),
            );
        }
    }
    for volume in spec.volumes.iter().flatten() {
        found.extend(
            volume
                .config_map
                .iter()
                .map(|r| (ConfigMap, r.name.clone())),
        );
        let secret_name = volume
            .secret
            .as_ref()
            .and_then(|secret| secret.secret_name.clone());
        found.extend(secret_name.map(|name| (Secret, name)));
        let projections = volume
            .projected
            .iter()
            .flat_map(|p| p.sources.iter().flatten());
        for projection in projections {
            found.extend(
                projection
                    .config_map
                    .iter()
                    .map(|r| (ConfigMap, r.name.clone())),
            );
            found.extend(projection.secret.iter().map(|r| (Secret, r.name.clone())));
        }
    }
    found.extend(
        spec.image_pull_secrets
            .iter()
            .flatten()
            .map(|r| (Secret, r.name.clone())),
    );
    found
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    pub(crate) type Fixture<'a> = (ObjectKind, &'a str, &'a [(&'a str, &'a str)]);

    pub(crate) fn snapshot(objects: &[Fixture<'_>]) -> ObjectSnapshot {
        let mut snapshot = ObjectSnapshot::default();
        for (kind, name, data) in objects {
            let data = data
                .iter()
                .map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec()))
                .collect();
            snapshot.insert(*kind, name, Lookup::Found(Arc::new(ObjectData { data })));
        }
        snapshot
    }
}
