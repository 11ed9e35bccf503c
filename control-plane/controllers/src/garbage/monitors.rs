//! Which kinds are watched, and whether each has been listed.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::StreamExt;
use kube::{
    Api, Client,
    api::DynamicObject,
    core::{ApiResource, PartialObjectMeta},
    runtime::{WatchStreamExt, watcher},
};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::GarbageCollector;

/// Time between two looks for new kinds.
const DISCOVERY_INTERVAL: Duration = Duration::from_secs(30);
/// From a change of what is served to the look at it: several come together.
const DISCOVERY_SETTLE: Duration = Duration::from_millis(100);
/// The same after a failure.
const DISCOVERY_RETRY: Duration = Duration::from_secs(2);

/// Kinds that come and go by themselves in numbers, and own nothing.
const IGNORED: [(&str, &str); 2] = [("", "Event"), ("events.k8s.io", "Event")];

/// Kinds whose objects say which kinds there are.
const DEFINITIONS: [(&str, &str); 2] = [
    ("apiextensions.k8s.io", "CustomResourceDefinition"),
    ("apiregistration.k8s.io", "APIService"),
];

type Id = (String, String);

fn id(resource: &ApiResource) -> Id {
    (resource.group.clone(), resource.kind.clone())
}

#[derive(Default)]
struct State {
    /// Whether the first list is complete.
    listed: BTreeMap<Id, bool>,
    /// Kinds whose informers others feed, and whether those are complete.
    followed: BTreeMap<Id, watch::Receiver<bool>>,
    served: HashSet<Id>,
    stops: BTreeMap<Id, CancellationToken>,
    discovered: bool,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Monitors {
    state: Mutex<State>,
    definitions_changed: Notify,
}

impl Monitors {
    /// Somebody else's informer.
    pub(super) fn followed(&self, resource: &ApiResource, synced: watch::Receiver<bool>) {
        self.state.lock().followed.insert(id(resource), synced);
    }

    /// Every kind has been found and listed.
    pub(super) fn all_listed(&self) -> bool {
        let state = self.state.lock();
        let complete = |(id, synced): (&Id, &watch::Receiver<bool>)| {
            !state.served.contains(id) || *synced.borrow()
        };
        state.discovered
            && state.listed.values().all(|listed| *listed)
            && state.followed.iter().all(complete)
    }

    #[cfg(test)]
    pub(super) fn assume_listed(&self) {
        self.state.lock().discovered = true;
    }
}

impl GarbageCollector {
    /// Keeps a watch on every kind that the API server serves and nobody else watches.
    pub async fn monitor(self: Arc<Self>, client: Client, stop: CancellationToken) {
        let tasks = TaskTracker::new();
        loop {
            let wait = match self.writer.resources().await {
                Ok(served) => {
                    let wanted: Vec<_> = served
                        .into_iter()
                        .filter(|found| {
                            ["list", "watch", "delete"]
                                .iter()
                                .all(|verb| found.can(verb))
                        })
                        .map(|found| found.resource)
                        .filter(|resource| {
                            !IGNORED.contains(&(resource.group.as_str(), resource.kind.as_str()))
                        })
                        .collect();
                    self.start_and_stop(&client, &stop, &tasks, wanted);
                    DISCOVERY_INTERVAL
                }
                Err(error) => {
                    tracing::warn!(%error, "kinds to collect garbage of are not known");
                    DISCOVERY_RETRY
                }
            };
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(wait) => {}
                () = self.monitors.definitions_changed.notified() => {
                    tokio::time::sleep(DISCOVERY_SETTLE).await;
                }
            }
        }
        tasks.close();
        tasks.wait().await;
    }

    fn start_and_stop(
        self: &Arc<Self>,
        client: &Client,
        stop: &CancellationToken,
        tasks: &TaskTracker,
        wanted: Vec<ApiResource>,
    ) {
        let ids: HashSet<Id> = wanted.iter().map(id).collect();
        let mut state = self.monitors.state.lock();
        state.discovered = true;
        state.served = ids.clone();
        let ended: Vec<Id> = state
            .stops
            .keys()
            .filter(|id| !ids.contains(id))
            .cloned()
            .collect();
        for id in ended {
            if let Some(stop) = state.stops.remove(&id) {
                stop.cancel();
            }
            state.listed.remove(&id);
        }
        for resource in wanted {
            let known = id(&resource);
            if state.listed.contains_key(&known) || state.followed.contains_key(&known) {
                continue;
            }
            let stop = stop.child_token();
            state.listed.insert(id(&resource), false);
            state.stops.insert(id(&resource), stop.clone());
            let watch = self.clone().watch(client.clone(), resource);
            tasks.spawn(stop.run_until_cancelled_owned(watch));
        }
    }

    async fn watch(self: Arc<Self>, client: Client, resource: ApiResource) {
        let api = Api::<PartialObjectMeta<DynamicObject>>::all_with(client, &resource);
        let stream = watcher(api, watcher::Config::default());
        let mut stream = std::pin::pin!(stream.default_backoff());
        let mut listed: HashSet<String> = HashSet::new();
        let defines = DEFINITIONS.contains(&(resource.group.as_str(), resource.kind.as_str()));
        while let Some(event) = stream.next().await {
            let live = matches!(
                event,
                Ok(watcher::Event::Apply(_) | watcher::Event::Delete(_))
            );
            if defines && live {
                self.monitors.definitions_changed.notify_one();
            }
            match event {
                Ok(watcher::Event::Init) => listed.clear(),
                Ok(watcher::Event::InitApply(object)) => {
                    listed.extend(object.metadata.uid.clone());
                    self.observed(&resource, &object.metadata);
                }
                Ok(watcher::Event::Apply(object)) => self.observed(&resource, &object.metadata),
                Ok(watcher::Event::Delete(object)) => {
                    if let Some(uid) = &object.metadata.uid {
                        self.removed(uid);
                    }
                }
                Ok(watcher::Event::InitDone) => {
                    let known = self.graph.lock().uids_of(&resource);
                    for uid in known.iter().filter(|uid| !listed.contains(*uid)) {
                        self.removed(uid);
                    }
                    // Owners that were there when they were asked for may have gone since, with
                    // nobody watching.
                    let unseen = self.graph.lock().with_unseen_owner(&resource);
                    self.wake(unseen);
                    if let Some(done) = self.monitors.state.lock().listed.get_mut(&id(&resource)) {
                        *done = true;
                    }
                }
                Err(error) => {
                    tracing::warn!(kind = resource.kind, %error, "watch failed; it is started again");
                }
            }
        }
    }
}
