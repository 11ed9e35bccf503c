//! Objects that a controller wrote and its informer does not show yet.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use kube::Resource;
use parking_lot::Mutex;

use super::Key;

/// After this time a write that never showed (its object was deleted meanwhile) is no longer
/// waited for.
pub const WRITTEN_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy)]
struct Write {
    version: u64,
    at: Instant,
}

/// Per owner: the newest version written of each object.
#[derive(Default)]
pub struct Written {
    owners: Mutex<HashMap<Key, HashMap<String, Write>>>,
}

/// The object's version as a number. Kubernetes promises that versions of one kind compare.
pub fn version<K: Resource>(object: &K) -> u64 {
    let version = object.meta().resource_version.as_deref();
    version.and_then(|text| text.parse().ok()).unwrap_or(0)
}

impl Written {
    /// The owner's object was written.
    pub fn record<K: Resource>(&self, owner: &Key, object: &K) {
        let write = Write {
            version: version(object),
            at: Instant::now(),
        };
        let uid = object.meta().uid.clone().unwrap_or_default();
        let mut owners = self.owners.lock();
        owners.entry(owner.clone()).or_default().insert(uid, write);
    }

    /// The object is gone: nothing of it will show any more.
    pub fn gone(&self, owner: &Key, uid: &str) {
        if let Some(writes) = self.owners.lock().get_mut(owner) {
            writes.remove(uid);
        }
    }

    /// Whether everything written has been seen. `seen` gives the version in the informer.
    pub fn caught_up(&self, owner: &Key, seen: impl Fn(&str) -> Option<u64>) -> bool {
        let mut owners = self.owners.lock();
        let Some(writes) = owners.get_mut(owner) else {
            return true;
        };
        writes.retain(|uid, write| {
            write.at.elapsed() < WRITTEN_TIMEOUT
                && seen(uid).is_none_or(|version| version < write.version)
        });
        let done = writes.is_empty();
        if done {
            owners.remove(owner);
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;

    #[test]
    fn waits_for_what_was_written_until_it_shows_or_is_gone() {
        let owner = Key::new("shop", "web");
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "uid": "u", "resourceVersion": "12"}
        }))
        .unwrap();
        let written = Written::default();
        assert!(written.caught_up(&owner, |_| None));
        written.record(&owner, &pod);
        assert!(!written.caught_up(&owner, |_| None));
        assert!(!written.caught_up(&owner, |_| Some(11)));
        assert!(written.caught_up(&owner, |_| Some(12)));
        written.record(&owner, &pod);
        written.gone(&owner, "u");
        assert!(written.caught_up(&owner, |_| None));
    }
}
