//! An index that keeps up with one resource of the watch cache.

use hull_store::{Revision, prefix_range};

use crate::watch_cache::{CachedObject, Changes, WatchCache};

/// The position of an index in the changes of a resource.
#[derive(Debug)]
pub(super) struct Follower {
    storage: &'static str,
    position: Option<Revision>,
}

/// What happened to an object: its key, its state before and after.
pub(super) struct Step<'a> {
    pub key: &'a str,
    pub before: Option<&'a CachedObject>,
    pub after: Option<&'a CachedObject>,
}

impl Follower {
    pub(super) fn new(storage: &'static str) -> Self {
        Follower {
            storage,
            position: None,
        }
    }

    /// There is something to take in.
    pub(super) fn is_behind(&self, cache: &WatchCache) -> bool {
        self.position != Some(cache.newest(self.storage))
    }

    /// Takes in what is new; true when everything begins anew: the caller then forgets what it
    /// had and gets every object with [`Follower::load`].
    pub(super) fn catch_up(&mut self, cache: &WatchCache, take: &mut impl FnMut(Step<'_>)) -> bool {
        loop {
            let Some(position) = self.position else {
                return true;
            };
            match cache.changes(self.storage, position) {
                Changes::TooOld => {
                    self.position = None;
                    return true;
                }
                Changes::Some(changes) if changes.is_empty() => return false,
                Changes::Some(changes) => {
                    for change in changes {
                        self.position = Some(change.revision);
                        let object = change.current.as_ref().or(change.previous.as_ref());
                        let Some(object) = object else { continue };
                        take(Step {
                            key: &object.key,
                            before: change.previous.as_deref(),
                            after: change.current.as_deref(),
                        });
                    }
                }
            }
        }
    }

    /// Reads everything.
    pub(super) fn load(&mut self, cache: &WatchCache, take: &mut impl FnMut(Step<'_>)) {
        let newest = cache.newest(self.storage);
        let all = prefix_range(&format!("/registry/{}/", self.storage));
        for object in cache.snapshot(self.storage, all).objects {
            take(Step {
                key: &object.key,
                before: None,
                after: Some(&*object),
            });
        }
        self.position = Some(newest);
    }
}
