//! Which owner a dependent's change concerns.
//!
//! A dependent with a controller wakes that controller's owner; an orphan wakes every owner whose
//! selector matches it, because each may adopt it.

use std::{fmt::Debug, sync::Arc};

use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet},
        batch::v1::{CronJob, Job},
        core::v1::ReplicationController,
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use kube::Resource;
use serde::de::DeserializeOwned;

use crate::{
    adopt::{parse_selector, selects},
    runtime::{Delta, Expectations, Informer, Key, WorkQueue, informer::controller_of},
};

/// A kind whose objects own others by selector and controller reference.
pub trait Owner:
    Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static
{
    /// What its dependents' labels must match; `None`: it owns nothing.
    fn selector(&self) -> Option<LabelSelector>;
}

macro_rules! owners {
    ($($kind:ty: $selector:expr;)*) => {$(
        impl Owner for $kind {
            fn selector(&self) -> Option<LabelSelector> {
                let selector: fn(&Self) -> Option<LabelSelector> = $selector;
                selector(self)
            }
        }
    )*};
}

owners! {
    Deployment: |o| Some(o.spec.as_ref()?.selector.clone());
    ReplicaSet: |o| Some(o.spec.as_ref()?.selector.clone());
    StatefulSet: |o| Some(o.spec.as_ref()?.selector.clone());
    DaemonSet: |o| Some(o.spec.as_ref()?.selector.clone());
    Job: |o| o.spec.as_ref()?.selector.clone();
    CronJob: |_| None;
    ReplicationController: |o| {
        let labels = o.spec.as_ref()?.selector.clone()?;
        Some(LabelSelector { match_labels: Some(labels), match_expressions: None })
    };
}

/// The object's owner of kind `O`, if it is there and is the one that the reference means.
pub fn owner_of<O: Owner, K: Resource>(owners: &Informer<O>, object: &K) -> Option<Arc<O>> {
    let reference = controller_of(object).filter(|reference| reference.kind == O::kind(&()))?;
    let namespace = object.meta().namespace.clone().unwrap_or_default();
    let owner = owners.get(&Key::new(namespace, reference.name.clone()))?;
    (owner.meta().uid.as_ref() == Some(&reference.uid)).then_some(owner)
}

/// Enqueues the owners that changes of `dependents` concern, and tells the expectations what was
/// seen.
pub fn follow<O, K>(
    owners: &Arc<Informer<O>>,
    dependents: &Informer<K>,
    queue: &Arc<WorkQueue>,
    expectations: Option<&Arc<Expectations>>,
) where
    O: Owner,
    K: Resource<DynamicType = ()> + Debug + Send + Sync + 'static,
{
    let follower = Follower {
        owners: owners.clone(),
        queue: queue.clone(),
        expectations: expectations.cloned(),
    };
    dependents.on_change(move |delta| follower.observe(delta));
    if let Some(expectations) = expectations {
        let (expectations, queue) = (expectations.clone(), queue.clone());
        dependents.on_list(move |began| {
            for key in expectations.relisted(began) {
                queue.add(key);
            }
        });
    }
}

struct Follower<O> {
    owners: Arc<Informer<O>>,
    queue: Arc<WorkQueue>,
    expectations: Option<Arc<Expectations>>,
}

impl<O: Owner> Follower<O> {
    fn observe<K: Resource + Debug + Send + Sync + 'static>(&self, delta: &Delta<'_, K>) {
        match delta {
            Delta::Added(object) if object.meta().deletion_timestamp.is_none() => {
                match self.owner(&***object) {
                    Some(key) => {
                        if let Some(expectations) = &self.expectations {
                            expectations.creations_over(&key, 1);
                        }
                        self.queue.add(key);
                    }
                    None => self.wake_matching(&***object),
                }
            }
            Delta::Added(object) | Delta::Deleted(object) => self.deleted(&***object),
            Delta::Updated { old, new } => {
                if new.meta().deletion_timestamp.is_some() {
                    self.deleted(&***new);
                }
                if let Some(key) = self.owner(&***old) {
                    self.queue.add(key);
                }
                match self.owner(&***new) {
                    Some(key) => self.queue.add(key),
                    None if old.meta().labels != new.meta().labels
                        || controller_of(&***old).is_some() =>
                    {
                        self.wake_matching(&***new);
                    }
                    None => {}
                }
            }
        }
    }

    fn deleted<K: Resource>(&self, object: &K) {
        if let Some(key) = self.owner(object) {
            if let Some(expectations) = &self.expectations {
                let uid = object.meta().uid.as_deref().unwrap_or_default();
                expectations.deletion_over(&key, uid);
            }
            self.queue.add(key);
        }
    }

    fn owner<K: Resource>(&self, object: &K) -> Option<Key> {
        owner_of(&self.owners, object).map(|owner| Key::of(&*owner))
    }

    fn wake_matching<K: Resource>(&self, object: &K) {
        if controller_of(object).is_some() {
            return;
        }
        let namespace = object.meta().namespace.as_deref().unwrap_or_default();
        for owner in self.owners.in_namespace(namespace) {
            let Some(selector) = owner.selector() else {
                continue;
            };
            if parse_selector(&selector, "").is_ok_and(|selector| selects(&selector, object)) {
                self.queue.add(Key::of(&*owner));
            }
        }
    }
}

/// Enqueues every change of the owners themselves; forgets what was expected of those gone.
pub fn follow_owners<O: Owner>(
    owners: &Informer<O>,
    queue: &Arc<WorkQueue>,
    expectations: Option<&Arc<Expectations>>,
) {
    let (queue, expectations) = (queue.clone(), expectations.cloned());
    owners.on_change(move |delta| {
        let key = Key::of(&**delta.newest());
        if let (Delta::Deleted(_), Some(expectations)) = (delta, &expectations) {
            expectations.forget(&key);
        }
        queue.add(key);
    });
}
