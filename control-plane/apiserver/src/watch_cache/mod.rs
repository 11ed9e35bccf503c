//! Every object in memory, kept current by one watch of the store: lists and watches are
//! served from here. An object is the store's own bytes and what selectors look at; it is parsed
//! for those who need more ([`CachedObject`]).
//!
//! ```text
//!   store ──watch──► feed ──► Resource: objects by key, ring of recent changes
//!                      │            ▲ list            ▲ watchers (a position in the ring)
//!                      └──► progress: the revision everything here shows
//! ```
//!
//! A watcher that starts before the ring, or falls behind it, reads the store's own history
//! (see `handlers::watch`). When the feed loses the store's watch it lists everything again;
//! the rings then start anew.

mod feed;
mod fields;
mod frames;
mod object;
mod revisions;
mod scan;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    ops::{Bound, Range},
    sync::Arc,
};

use hull_api::{ApiError, Registry, registry::Keeping};
use hull_store::Revision;
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::limits;

pub(crate) use feed::{load, run};
pub(crate) use frames::{Form, Frames};
pub(crate) use object::{CachedObject, RESOURCE_VERSION_BYTES};
pub(crate) use revisions::Revisions;

/// A change of one object.
#[derive(Debug)]
pub(crate) struct Change {
    pub revision: Revision,
    /// After; `None`: deleted.
    pub current: Option<Arc<CachedObject>>,
    /// Before; `None`: created.
    pub previous: Option<Arc<CachedObject>>,
    /// What watches sent of it.
    pub frames: Frames,
}

/// By key, which is the object's own.
type Objects = BTreeMap<Arc<str>, Arc<CachedObject>>;

#[derive(Default)]
struct ResourceState {
    objects: Objects,
    ring: VecDeque<Arc<Change>>,
    /// Every change after this revision is in the ring.
    ring_start: Revision,
    /// Revision of the newest change here.
    newest: Revision,
}

impl ResourceState {
    fn apply(&mut self, key: Arc<str>, revision: Revision, current: Option<Arc<CachedObject>>) {
        let previous = match &current {
            Some(object) => self.objects.insert(key, object.clone()),
            None => self.objects.remove(&key),
        };
        self.newest = revision;
        if self.ring.len() >= limits::WATCH_RING
            && let Some(oldest) = self.ring.pop_front()
        {
            self.ring_start = oldest.revision;
        }
        self.ring.push_back(Arc::new(Change {
            revision,
            current,
            previous,
            frames: Frames::default(),
        }));
        // Of the others, watches that keep up have had theirs.
        let old = self.ring.len().checked_sub(limits::CHANGES_WITH_FRAMES + 1);
        if let Some(change) = old.and_then(|index| self.ring.get(index)) {
            change.frames.forget();
        }
    }
}

struct Resource {
    state: RwLock<ResourceState>,
    changed: watch::Sender<Revision>,
}

impl Resource {
    /// An empty one, of which everything after `revision` will be known.
    fn new(revision: Revision) -> Self {
        Resource {
            state: RwLock::new(ResourceState {
                ring_start: revision,
                newest: revision,
                ..ResourceState::default()
            }),
            changed: watch::Sender::new(revision),
        }
    }
}

/// What a watcher gets when it asks for changes.
pub(crate) enum Changes {
    /// These, in order; maybe none yet.
    Some(Vec<Arc<Change>>),
    /// Its position is before the ring.
    TooOld,
}

/// A consistent view of some objects.
pub(crate) struct Snapshot {
    pub objects: Vec<Arc<CachedObject>>,
    pub revision: Revision,
}

/// Changes given to a watcher at once, and what else the last one's transaction changed.
const BATCH: usize = 256;

pub(crate) struct WatchCache {
    resources: HashMap<&'static str, Arc<Resource>>,
    /// Those of custom resources, which come and go.
    custom: RwLock<HashMap<String, Arc<Resource>>>,
    progress: watch::Sender<Revision>,
}

impl WatchCache {
    pub(crate) fn new() -> Self {
        let resources = Registry::get()
            .kinds()
            .iter()
            .filter(|kind| kind.keeping == Keeping::Stored)
            .map(|kind| (kind.storage, Arc::new(Resource::new(0))))
            .collect();
        WatchCache {
            resources,
            custom: RwLock::default(),
            progress: watch::Sender::new(0),
        }
    }

    /// The revision that everything here shows; 0 before the first load.
    pub(crate) fn revision(&self) -> Revision {
        *self.progress.borrow()
    }

    /// Waits until the cache shows `revision`.
    pub(crate) async fn wait_for(&self, revision: Revision) -> Result<(), ApiError> {
        let mut progress = self.progress.subscribe();
        let reached = progress.wait_for(|current| *current >= revision);
        match tokio::time::timeout(limits::CACHE_WAIT, reached).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(ApiError::too_large_resource_version(
                revision,
                self.revision(),
            )),
        }
    }

    fn resource(&self, storage: &str) -> Option<Arc<Resource>> {
        if let Some(resource) = self.resources.get(storage) {
            return Some(resource.clone());
        }
        self.custom.read().get(storage).cloned()
    }

    /// The resource of a custom kind, made when it is not there.
    fn custom(&self, storage: &str) -> Arc<Resource> {
        let mut custom = self.custom.write();
        if let Some(resource) = custom.get(storage) {
            return resource.clone();
        }
        // Whatever is to come has a later revision.
        let resource = Arc::new(Resource::new(self.revision()));
        custom.insert(storage.to_string(), resource.clone());
        resource
    }

    /// Makes room for a custom kind.
    pub(crate) fn add_custom(&self, storage: &str) {
        if !self.resources.contains_key(storage) {
            self.custom(storage);
        }
    }

    /// Forgets custom kinds that are not served any more, unless there are objects left of
    /// them; their watches end.
    pub(crate) fn keep_custom(&self, is_served: impl Fn(&str) -> bool) {
        self.custom.write().retain(|storage, resource| {
            is_served(storage) || !resource.state.read().objects.is_empty()
        });
    }

    /// The objects in a range of keys.
    pub(crate) fn snapshot(&self, storage: &str, range: Range<String>) -> Snapshot {
        let Some(resource) = self.resource(storage) else {
            return Snapshot {
                objects: Vec::new(),
                revision: self.revision(),
            };
        };
        let state = resource.state.read();
        // Under the lock no further change of this resource can appear, so this is the
        // revision of what is seen.
        let revision = self.revision().max(state.newest);
        Snapshot {
            objects: state
                .objects
                .range::<str, _>((
                    Bound::Included(range.start.as_str()),
                    Bound::Excluded(range.end.as_str()),
                ))
                .map(|(_, object)| object.clone())
                .collect(),
            revision,
        }
    }

    /// One object.
    pub(crate) fn get(&self, storage: &str, key: &str) -> Option<Arc<CachedObject>> {
        let resource = self.resource(storage)?;
        let state = resource.state.read();
        state.objects.get(key).cloned()
    }

    /// Changes of a resource after `after`, about [`BATCH`] at most.
    pub(crate) fn changes(&self, storage: &str, after: Revision) -> Changes {
        let Some(resource) = self.resource(storage) else {
            return Changes::Some(Vec::new());
        };
        let state = resource.state.read();
        if after < state.ring_start {
            return Changes::TooOld;
        }
        let from = state
            .ring
            .partition_point(|change| change.revision <= after);
        let mut later = state.ring.range(from..);
        let mut changes: Vec<_> = later.by_ref().take(BATCH).cloned().collect();
        if let Some(last) = changes.last().map(|change| change.revision) {
            changes.extend(later.take_while(|one| one.revision == last).cloned());
        }
        Changes::Some(changes)
    }

    /// The revision of the newest change of a resource.
    pub(crate) fn newest(&self, storage: &str) -> Revision {
        self.resource(storage)
            .map_or(0, |resource| *resource.changed.borrow())
    }

    /// Tells when a resource changed.
    pub(crate) fn subscribe(&self, storage: &str) -> Option<watch::Receiver<Revision>> {
        self.resource(storage).map(|r| r.changed.subscribe())
    }

    /// Number of objects per storage name.
    pub(crate) fn counts(&self) -> Vec<(String, usize)> {
        let count = |resource: &Resource| resource.state.read().objects.len();
        let built_in = self.resources.iter();
        let mut counts: Vec<(String, usize)> = built_in
            .map(|(storage, resource)| ((*storage).to_string(), count(resource)))
            .collect();
        let custom = self.custom.read();
        counts.extend(custom.iter().map(|(name, one)| (name.clone(), count(one))));
        counts
    }

    /// The storage name in a key: its first part, or its first two. Those of custom resources
    /// begin with a group, which has a dot.
    fn storage_of<'a>(&self, key: &'a str) -> &'a str {
        let rest = key.strip_prefix("/registry/").unwrap_or("");
        let ends = rest.match_indices('/').map(|(at, _)| at).take(2);
        ends.map(|end| &rest[..end])
            .find(|storage| {
                self.resources.contains_key(storage)
                    || matches!(storage.split_once('/'), Some((group, _)) if group.contains('.'))
            })
            .unwrap_or("")
    }

    /// The resource that a key belongs to.
    fn resource_of(&self, key: &str) -> Option<Arc<Resource>> {
        match self.storage_of(key) {
            "" => None,
            storage => Some(
                self.resource(storage)
                    .unwrap_or_else(|| self.custom(storage)),
            ),
        }
    }

    /// All that changed at a revision. Nobody sees a part of what changed of one resource.
    fn apply(&self, revision: Revision, changes: Vec<(Arc<str>, Option<Arc<CachedObject>>)>) {
        let mut by_resource: Vec<(Arc<Resource>, Vec<_>)> = Vec::with_capacity(1);
        for (key, current) in changes {
            let Some(resource) = self.resource_of(&key) else {
                continue;
            };
            let known = by_resource
                .iter_mut()
                .find(|(one, _)| Arc::ptr_eq(one, &resource));
            match known {
                Some((_, changes)) => changes.push((key, current)),
                None => by_resource.push((resource, vec![(key, current)])),
            }
        }
        for (resource, changes) in by_resource {
            let mut state = resource.state.write();
            for (key, current) in changes {
                state.apply(key, revision, current);
            }
            drop(state);
            resource.changed.send_replace(revision);
        }
    }

    /// Replaces everything, after a list of the store.
    fn load(&self, objects: Vec<Arc<CachedObject>>, revision: Revision) {
        let mut by_storage: HashMap<&str, Objects> = HashMap::new();
        for object in &objects {
            by_storage
                .entry(self.storage_of(&object.key))
                .or_default()
                .insert(object.key.clone(), object.clone());
        }
        for storage in by_storage.keys().filter(|storage| !storage.is_empty()) {
            if !self.resources.contains_key(storage) {
                self.custom(storage);
            }
        }
        let built_in = self.resources.iter();
        let mut all: Vec<(String, Arc<Resource>)> = built_in
            .map(|(storage, resource)| ((*storage).to_string(), resource.clone()))
            .collect();
        let custom = self.custom.read().clone();
        all.extend(custom);
        for (storage, resource) in all {
            let mut state = resource.state.write();
            state.objects = by_storage.remove(storage.as_str()).unwrap_or_default();
            state.ring.clear();
            state.ring_start = revision;
            state.newest = revision;
            drop(state);
            resource.changed.send_replace(revision);
        }
        self.progress.send_replace(revision);
    }

    fn advance(&self, revision: Revision) {
        self.progress.send_if_modified(|current| {
            let newer = revision > *current;
            if newer {
                *current = revision;
            }
            newer
        });
    }
}
