//! One informer per kind, shared by every controller that asks for it.

use std::{
    any::{Any, TypeId},
    collections::HashMap,
    fmt::Debug,
    sync::Arc,
};

use kube::{Api, Client, Resource, runtime::watcher};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{garbage::GarbageCollector, runtime::Informer};

/// A kind that an informer can hold.
pub(crate) trait Kind:
    Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static
{
}

impl<K> Kind for K where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static
{
}

type Start = Box<dyn FnOnce(&Informers) + Send>;

/// See the module.
pub(crate) struct Informers {
    client: Client,
    tasks: TaskTracker,
    stop: CancellationToken,
    collector: Arc<GarbageCollector>,
    slots: Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>,
    starts: Mutex<Vec<Start>>,
}

impl Informers {
    /// None yet. Each that is asked for takes part in the garbage collector's graph.
    pub(crate) fn new(
        client: Client,
        tasks: TaskTracker,
        stop: CancellationToken,
        collector: Arc<GarbageCollector>,
    ) -> Self {
        Informers {
            client,
            tasks,
            stop,
            collector,
            slots: Mutex::default(),
            starts: Mutex::default(),
        }
    }

    fn of<K: Kind>(&self) -> Arc<Informer<K>> {
        let mut slots = self.slots.lock();
        let slot = slots.entry(TypeId::of::<K>()).or_insert_with(|| {
            let informer = Arc::new(Informer::<K>::default());
            self.collector.follow(&informer);
            self.when_started(informer.clone(), Api::all, watcher::Config::default());
            informer
        });
        // The slot of a type holds nothing else; a fresh informer would never be fed.
        slot.clone().downcast::<Informer<K>>().unwrap_or_default()
    }

    /// An informer of its own that holds part of a kind.
    pub(crate) fn part_of<K: Kind>(
        &self,
        api: impl FnOnce(Client) -> Api<K> + Send + 'static,
        config: watcher::Config,
    ) -> Arc<Informer<K>> {
        let informer = Arc::new(Informer::default());
        self.when_started(informer.clone(), api, config);
        informer
    }

    fn when_started<K: Kind>(
        &self,
        informer: Arc<Informer<K>>,
        api: impl FnOnce(Client) -> Api<K> + Send + 'static,
        config: watcher::Config,
    ) {
        self.starts.lock().push(Box::new(move |informers| {
            let feed = informer.run(api(informers.client.clone()), config);
            let feed = informers.stop.clone().run_until_cancelled_owned(feed);
            informers.tasks.spawn(feed);
        }));
    }

    /// Starts the watches. All handlers must be there by now.
    pub(crate) fn start(&self) {
        for start in std::mem::take(&mut *self.starts.lock()) {
            start(self);
        }
    }

    /// What one controller asks for.
    pub(crate) fn scope(&self) -> Scope<'_> {
        Scope {
            informers: self,
            needed: Mutex::default(),
        }
    }
}

/// Remembers which informers must be complete before a controller starts.
pub(crate) struct Scope<'a> {
    informers: &'a Informers,
    needed: Mutex<Vec<watch::Receiver<bool>>>,
}

impl Scope<'_> {
    /// The shared informer of a kind.
    pub(crate) fn of<K: Kind>(&self) -> Arc<Informer<K>> {
        self.with(self.informers.of())
    }

    /// Also this one.
    pub(crate) fn with<K: Kind>(&self, informer: Arc<Informer<K>>) -> Arc<Informer<K>> {
        self.needed.lock().push(informer.sync_state());
        informer
    }

    /// Waits until all of them hold everything. A kind that the API server does not serve is
    /// waited for, so a controller of such a kind does nothing.
    pub(crate) fn synced(self) -> impl Future<Output = ()> + Send + 'static {
        let needed = self.needed.into_inner();
        async move {
            for mut synced in needed {
                // The sender lives as long as the informer, which the controller holds.
                let _ = synced.wait_for(|synced| *synced).await;
            }
        }
    }
}
