//! The store's changes, one revision at a time.
//!
//! A transaction changes several keys at one revision (a pod and the quota that counts it). Who
//! has seen a part of them must not say that it has seen the revision: a watch that continues
//! there would never see the rest.

use futures::{FutureExt, StreamExt, stream::Fuse};
use hull_store::{StoreError, WatchEvent, WatchStream};

/// See the module.
pub(crate) struct Revisions {
    events: Fuse<WatchStream>,
    /// Taken from the stream already, of a later revision.
    ahead: Option<Result<WatchEvent, StoreError>>,
}

impl Revisions {
    pub(crate) fn new(events: WatchStream) -> Self {
        Revisions {
            events: events.fuse(),
            ahead: None,
        }
    }

    /// All changes of the next revision, or a progress alone; `None` when the watch ended.
    /// Nothing is lost when the caller stops waiting.
    pub(crate) async fn next(&mut self) -> Option<Result<Vec<WatchEvent>, StoreError>> {
        let first = match self.ahead.take() {
            Some(event) => event,
            None => self.events.next().await?,
        };
        let first = match first {
            Ok(event) => event,
            Err(error) => return Some(Err(error)),
        };
        let revision = first.revision();
        let mut together = vec![first];
        // Both stores have a revision's changes ready together.
        while let Some(Some(event)) = self.events.next().now_or_never() {
            match event {
                Ok(event)
                    if event.revision() == revision
                        && !matches!(event, WatchEvent::Progress(_)) =>
                {
                    together.push(event);
                }
                other => {
                    self.ahead = Some(other);
                    break;
                }
            }
        }
        Some(Ok(together))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hull_store::{Store, Write, embedded::EmbeddedStore, prefix_range};

    #[tokio::test]
    async fn what_a_transaction_changed_comes_together() {
        let dir = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(dir.path().join("store.redb")).unwrap();
        let start = store.list(prefix_range("/"), None, 0).await.unwrap();
        let put = |key: &str| Write::Put(format!("/{key}"), "1".into());
        for writes in [
            vec![put("a"), put("b")],
            vec![put("c")],
            vec![put("a"), put("d")],
        ] {
            store.txn(Vec::new(), writes).await.unwrap();
        }
        let watch = store.watch(prefix_range("/"), Some(start.revision));
        let mut revisions = Revisions::new(watch.await.unwrap());
        let mut seen = Vec::new();
        while seen.len() < 3 {
            let events = revisions.next().await.unwrap().unwrap();
            let keys = events.iter().filter_map(WatchEvent::key).map(str::to_owned);
            let keys: Vec<String> = keys.collect();
            if !keys.is_empty() {
                seen.push(keys.concat());
            }
        }
        assert_eq!(seen, ["/a/b", "/c", "/a/d"]);
    }
}
