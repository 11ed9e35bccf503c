//! The webhooks that convert, and what they made lately: one call serves every watch of a change.
//!
//! What is kept belongs to the webhook that made it: it goes when the definition names another,
//! also when it arrives after that. Beyond the limits the oldest goes first, so that a list that
//! is larger than them still finds its newer part.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use hull_api::{Kind, custom::Converter};
use hull_store::Revision;
use parking_lot::Mutex;

use crate::{limits, watch_cache::CachedObject, webhook_client::Client};

/// A webhook that is ready to be called, or why there is none.
pub(super) struct Webhook {
    /// What it was made of.
    pub converter: Arc<Converter>,
    pub client: Result<Client, String>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    storage: &'static str,
    key: String,
    revision: Revision,
    version: &'static str,
}

impl Key {
    fn new(kind: &Kind, object: &CachedObject) -> Self {
        Key {
            storage: kind.storage,
            key: object.key.to_string(),
            revision: object.revision,
            version: kind.version,
        }
    }
}

struct Entry {
    object: Arc<CachedObject>,
    bytes: usize,
}

#[derive(Default)]
struct Kept {
    /// By storage name.
    webhooks: HashMap<&'static str, Arc<Webhook>>,
    objects: HashMap<Key, Entry>,
    /// The keys of `objects`, the oldest first.
    order: VecDeque<Key>,
    /// The sum of the entries.
    bytes: usize,
}

impl Kept {
    /// Whether this is the webhook of the kind, and not an earlier one.
    fn is_current(&self, kind: &Kind, webhook: &Arc<Webhook>) -> bool {
        let current = self.webhooks.get(kind.storage);
        current.is_some_and(|current| Arc::ptr_eq(current, webhook))
    }

    fn insert(&mut self, key: Key, object: &Arc<CachedObject>) {
        let bytes = weight(object);
        if bytes > limits::KEPT_CONVERSION_BYTES || self.objects.contains_key(&key) {
            return;
        }
        while self.objects.len() >= limits::KEPT_CONVERSIONS
            || self.bytes + bytes > limits::KEPT_CONVERSION_BYTES
        {
            let Some(oldest) = self.order.pop_front() else {
                break;
            };
            self.remove(&oldest);
        }
        self.bytes += bytes;
        self.order.push_back(key.clone());
        let object = object.clone();
        self.objects.insert(key, Entry { object, bytes });
    }

    fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.objects.remove(key) {
            self.bytes -= entry.bytes;
        }
    }

    /// Forgets what was made of a resource's objects.
    fn forget(&mut self, storage: &str) {
        for key in std::mem::take(&mut self.order) {
            if key.storage == storage {
                self.remove(&key);
            } else {
                self.order.push_back(key);
            }
        }
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct Conversions {
    kept: Mutex<Kept>,
}

impl Conversions {
    /// The webhook of a kind, which is `converter` from now on.
    pub(super) fn webhook(&self, kind: &Kind, converter: &Arc<Converter>) -> Arc<Webhook> {
        let mut kept = self.kept.lock();
        if let Some(webhook) = kept.webhooks.get(kind.storage)
            && (Arc::ptr_eq(&webhook.converter, converter) || webhook.converter == *converter)
        {
            return webhook.clone();
        }
        let client = Client::read(&converter.client)
            .map(|client| client.with_answer_limit(limits::CONVERSION_ANSWER_BYTES))
            .map_err(|error| error.to_string());
        let webhook = Arc::new(Webhook {
            converter: converter.clone(),
            client,
        });
        kept.forget(kind.storage);
        kept.webhooks.insert(kind.storage, webhook.clone());
        webhook
    }

    /// What the webhook made of an object.
    pub(super) fn find(
        &self,
        kind: &Kind,
        webhook: &Arc<Webhook>,
        object: &CachedObject,
    ) -> Option<Arc<CachedObject>> {
        let kept = self.kept.lock();
        if !kept.is_current(kind, webhook) {
            return None;
        }
        let entry = kept.objects.get(&Key::new(kind, object))?;
        Some(entry.object.clone())
    }

    /// Keeps what the webhook made, unless the kind has another by now.
    pub(super) fn keep(&self, kind: &Kind, webhook: &Arc<Webhook>, object: &Arc<CachedObject>) {
        let mut kept = self.kept.lock();
        if kept.is_current(kind, webhook) {
            kept.insert(Key::new(kind, object), object);
        }
    }
}

/// About the memory that an object and its entry take, in bytes.
fn weight(object: &CachedObject) -> usize {
    let entry = size_of::<CachedObject>() + size_of::<Entry>() + 2 * size_of::<Key>();
    entry + 3 * object.key.len() + object.json_len()
}

#[cfg(test)]
mod tests {
    use hull_api::kinds::{CONFIG_MAPS, SERVICES};
    use serde_json::json;

    use super::*;

    fn object(revision: Revision, bytes: usize) -> Arc<CachedObject> {
        let value = json!({"metadata": {"name": " ".repeat(bytes)}});
        let key = format!("/registry/x/{revision}").into();
        Arc::new(CachedObject::of_value(key, revision, &value).unwrap())
    }

    fn converter(name: &str) -> Arc<Converter> {
        Arc::new(Converter {
            client: json!({ "url": name }),
            review: String::new(),
        })
    }

    /// Which of the revisions from 0 on are kept.
    fn kept(conversions: &Conversions, webhook: &Arc<Webhook>, until: Revision) -> Vec<Revision> {
        let is_kept = |revision: &Revision| {
            let object = object(*revision, 0);
            conversions.find(&SERVICES, webhook, &object).is_some()
        };
        (0..until).filter(is_kept).collect()
    }

    #[test]
    fn the_oldest_goes_when_there_are_too_many() {
        let conversions = Conversions::default();
        let webhook = conversions.webhook(&SERVICES, &converter("a"));
        let until = limits::KEPT_CONVERSIONS as Revision + 3;
        for revision in 0..until {
            conversions.keep(&SERVICES, &webhook, &object(revision, 0));
        }
        let newest: Vec<Revision> = (3..until).collect();
        assert_eq!(kept(&conversions, &webhook, until), newest);
    }

    #[test]
    fn the_oldest_goes_when_they_take_too_much_memory() {
        let conversions = Conversions::default();
        let webhook = conversions.webhook(&SERVICES, &converter("a"));
        let quarter = limits::KEPT_CONVERSION_BYTES / 4;
        for revision in 0..5 {
            conversions.keep(&SERVICES, &webhook, &object(revision, quarter));
        }
        // With what belongs to them four are just too large.
        assert_eq!(kept(&conversions, &webhook, 5), [2, 3, 4]);
        let whole = limits::KEPT_CONVERSION_BYTES;
        conversions.keep(&SERVICES, &webhook, &object(5, whole));
        assert_eq!(kept(&conversions, &webhook, 6), [2, 3, 4]);
        assert!(conversions.kept.lock().bytes <= limits::KEPT_CONVERSION_BYTES);
    }

    #[test]
    fn another_webhook_ends_what_the_one_before_made() {
        let conversions = Conversions::default();
        let first = conversions.webhook(&SERVICES, &converter("a"));
        let same = conversions.webhook(&SERVICES, &converter("a"));
        assert!(Arc::ptr_eq(&first, &same));
        conversions.keep(&SERVICES, &first, &object(0, 0));
        let unrelated = conversions.webhook(&CONFIG_MAPS, &converter("x"));
        conversions.keep(&CONFIG_MAPS, &unrelated, &object(0, 0));
        assert_eq!(kept(&conversions, &first, 2), [0]);
        let second = conversions.webhook(&SERVICES, &converter("b"));
        assert!(kept(&conversions, &second, 2).is_empty());
        // An answer to a call that was made before.
        conversions.keep(&SERVICES, &first, &object(1, 0));
        assert!(kept(&conversions, &second, 2).is_empty());
        conversions.keep(&SERVICES, &second, &object(1, 0));
        assert_eq!(kept(&conversions, &second, 2), [1]);
        assert!(kept(&conversions, &first, 2).is_empty());
        let other = conversions.find(&CONFIG_MAPS, &unrelated, &object(0, 0));
        assert!(other.is_some(), "another kind's stays");
    }
}
