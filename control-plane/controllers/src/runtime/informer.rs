//! All objects of a kind, as the last watch event left them.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fmt::Debug,
    sync::Arc,
    time::Instant,
};

use futures::StreamExt;
use hull_client::trim::trim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{
    Api, Resource,
    runtime::{WatchStreamExt, watcher},
};
use parking_lot::RwLock;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::Key;

/// A change of one object.
#[derive(Debug)]
pub enum Delta<'a, K> {
    /// New.
    Added(&'a Arc<K>),
    /// Changed.
    Updated {
        /// Before.
        old: &'a Arc<K>,
        /// After.
        new: &'a Arc<K>,
    },
    /// Gone; the last known state.
    Deleted(&'a Arc<K>),
}

impl<'a, K> Delta<'a, K> {
    /// The newest state.
    pub fn newest(&self) -> &'a Arc<K> {
        match self {
            Delta::Added(object) | Delta::Deleted(object) => object,
            Delta::Updated { new, .. } => new,
        }
    }
}

type Handler<K> = Box<dyn Fn(&Delta<'_, K>) + Send + Sync>;
type ListHandler = Box<dyn Fn(Instant) + Send + Sync>;

/// Objects with the same controller, or in the same namespace without one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Group {
    ControlledBy(String),
    OrphansIn(String),
    Namespace(String),
}

struct State<K> {
    objects: HashMap<Arc<Key>, Arc<K>>,
    groups: HashMap<Group, BTreeSet<Arc<Key>>>,
    /// While a list is under way: when it began, and what it had so far.
    listed: Option<(Instant, HashSet<Key>)>,
}

/// See the module.
pub struct Informer<K> {
    state: RwLock<State<K>>,
    handlers: RwLock<Vec<Handler<K>>>,
    list_handlers: RwLock<Vec<ListHandler>>,
    synced: watch::Sender<bool>,
}

/// The reference to the object's controller.
pub fn controller_of<K: Resource>(object: &K) -> Option<&OwnerReference> {
    object
        .meta()
        .owner_references
        .iter()
        .flatten()
        .find(|reference| reference.controller == Some(true))
}

impl<K> Default for Informer<K> {
    fn default() -> Self {
        Informer {
            state: RwLock::new(State {
                objects: HashMap::new(),
                groups: HashMap::new(),
                listed: None,
            }),
            handlers: RwLock::new(Vec::new()),
            list_handlers: RwLock::new(Vec::new()),
            synced: watch::Sender::new(false),
        }
    }
}

impl<K: Resource + Debug + Send + Sync + 'static> Informer<K> {
    /// Adds a handler. It must not block: it enqueues keys.
    pub fn on_change(&self, handler: impl Fn(&Delta<'_, K>) + Send + Sync + 'static) {
        self.handlers.write().push(Box::new(handler));
    }

    /// Adds a handler that is called after each whole list, with the time when the list began.
    /// Between two lists objects may have come and gone unseen.
    pub fn on_list(&self, handler: impl Fn(Instant) + Send + Sync + 'static) {
        self.list_handlers.write().push(Box::new(handler));
    }

    /// One object.
    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.state.read().objects.get(key).cloned()
    }

    /// All objects.
    pub fn all(&self) -> Vec<Arc<K>> {
        self.state.read().objects.values().cloned().collect()
    }

    /// Number of objects.
    pub fn len(&self) -> usize {
        self.state.read().objects.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Objects in the namespace.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        self.group(&Group::Namespace(namespace.to_owned()))
    }

    /// Objects whose controller has this uid.
    pub fn controlled_by(&self, uid: &str) -> Vec<Arc<K>> {
        self.group(&Group::ControlledBy(uid.to_owned()))
    }

    /// Objects in the namespace that have no controller.
    pub fn orphans_in(&self, namespace: &str) -> Vec<Arc<K>> {
        self.group(&Group::OrphansIn(namespace.to_owned()))
    }

    fn group(&self, group: &Group) -> Vec<Arc<K>> {
        let state = self.state.read();
        let keys = state.groups.get(group).into_iter().flatten();
        keys.filter_map(|key| state.objects.get(key).cloned())
            .collect()
    }

    /// Waits until the first list is complete.
    pub async fn synced(&self) {
        // The sender lives as long as self.
        let _ = self.synced.subscribe().wait_for(|synced| *synced).await;
    }

    /// Shows whether the first list is complete.
    pub fn sync_state(&self) -> watch::Receiver<bool> {
        self.synced.subscribe()
    }

    /// An object was created or changed.
    pub fn apply(&self, object: K) {
        let key = Key::of(&object);
        let object = Arc::new(object);
        let old = {
            let mut state = self.state.write();
            if let Some((_, listed)) = &mut state.listed {
                listed.insert(key.clone());
            }
            state.insert(key, object.clone())
        };
        match &old {
            // Deleted and created anew while the watch was away.
            Some(old) if old.meta().uid != object.meta().uid => {
                self.notify(&Delta::Deleted(old));
                self.notify(&Delta::Added(&object));
            }
            Some(old)
                if old.meta().resource_version == object.meta().resource_version
                    && object.meta().resource_version.is_some() => {}
            Some(old) => self.notify(&Delta::Updated { old, new: &object }),
            None => self.notify(&Delta::Added(&object)),
        }
    }

    /// An object was deleted.
    pub fn delete(&self, key: &Key) {
        let removed = self.state.write().remove(key);
        if let Some(object) = removed {
            self.notify(&Delta::Deleted(&object));
        }
    }

    fn notify(&self, delta: &Delta<'_, K>) {
        for handler in self.handlers.read().iter() {
            handler(delta);
        }
    }

    /// A list is whole: what it does not have is gone.
    fn complete(&self, began: Instant, listed: &HashSet<Key>) {
        let gone: Vec<Arc<Key>> = {
            let state = self.state.read();
            let keys = state.objects.keys();
            let gone = keys.filter(|key| !listed.contains::<Key>(key));
            gone.cloned().collect()
        };
        for key in gone {
            self.delete(&key);
        }
        self.synced.send_replace(true);
        for handler in self.list_handlers.read().iter() {
            handler(began);
        }
    }

    /// A watch event.
    pub fn observe(&self, event: watcher::Event<K>) {
        match event {
            watcher::Event::Init => {
                self.state.write().listed = Some((Instant::now(), HashSet::new()));
            }
            watcher::Event::InitApply(object) | watcher::Event::Apply(object) => self.apply(object),
            watcher::Event::Delete(object) => self.delete(&Key::of(&object)),
            watcher::Event::InitDone => {
                let list = self.state.write().listed.take();
                if let Some((began, listed)) = list {
                    self.complete(began, &listed);
                }
            }
        }
    }
}

impl<K> Informer<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    /// Feeds the informer from the API server for ever.
    pub async fn run(self: Arc<Self>, api: Api<K>, config: watcher::Config) {
        let stream = watcher(api, config).modify(trim).default_backoff();
        let mut stream = std::pin::pin!(stream);
        let mut failing = false;
        let kind = K::kind(&());
        while let Some(event) = stream.next().await {
            match event {
                Ok(event) => {
                    failing = false;
                    self.observe(event);
                }
                // An API server that does not serve the kind says so for as long as it runs.
                Err(error) if failing => {
                    tracing::debug!(%kind, %error, "watch failed again; it is started again");
                }
                Err(error) => {
                    failing = true;
                    tracing::warn!(%kind, %error, "watch failed; it is started again");
                }
            }
        }
    }
}

fn groups_of<K: Resource>(object: &K) -> [Group; 2] {
    let namespace = object.meta().namespace.clone().unwrap_or_default();
    let controller = match controller_of(object) {
        Some(controller) => Group::ControlledBy(controller.uid.clone()),
        None => Group::OrphansIn(namespace.clone()),
    };
    [controller, Group::Namespace(namespace)]
}

impl<K: Resource> State<K> {
    fn insert(&mut self, key: Key, object: Arc<K>) -> Option<Arc<K>> {
        let old = self.remove(&key);
        let key = Arc::new(key);
        for group in groups_of(&*object) {
            self.groups.entry(group).or_default().insert(key.clone());
        }
        self.objects.insert(key, object);
        old
    }

    fn remove(&mut self, key: &Key) -> Option<Arc<K>> {
        let object = self.objects.remove(key)?;
        for group in groups_of(&*object) {
            if let Some(keys) = self.groups.get_mut(&group) {
                keys.remove(key);
                if keys.is_empty() {
                    self.groups.remove(&group);
                }
            }
        }
        Some(object)
    }
}
