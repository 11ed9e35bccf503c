//! Keeps the cache current.

use std::sync::Arc;

use hull_store::{Revision, Store, StoreError, WatchEvent, prefix_range};

use super::{CachedObject, WatchCache, revisions::Revisions};
use crate::limits;

const PREFIX: &str = "/registry/";

/// Loads everything.
pub(crate) async fn load(cache: &WatchCache, store: &dyn Store) -> Result<Revision, StoreError> {
    let page = store.list(prefix_range(PREFIX), None, 0).await?;
    let objects = page
        .items
        .iter()
        .filter_map(|pair| match CachedObject::new(pair) {
            Ok(object) => Some(Arc::new(object)),
            Err(error) => {
                tracing::error!(key = %pair.key, %error, "stored object is not JSON, skipped");
                None
            }
        })
        .collect();
    cache.load(objects, page.revision);
    Ok(page.revision)
}

/// Loads everything, then follows the store until it is closed.
pub(crate) async fn run(cache: Arc<WatchCache>, store: Arc<dyn Store>, mut position: Revision) {
    loop {
        match follow(&cache, store.as_ref(), position).await {
            Err(StoreError::Closed) => return,
            Err(error) => tracing::warn!(%error, "the watch of the store ended, loading again"),
            Ok(()) => tracing::warn!("the watch of the store ended, loading again"),
        }
        loop {
            tokio::time::sleep(limits::CACHE_RETRY).await;
            match load(&cache, store.as_ref()).await {
                Ok(revision) => {
                    position = revision;
                    break;
                }
                Err(StoreError::Closed) => return,
                Err(error) => tracing::warn!(%error, "cannot load the store"),
            }
        }
    }
}

async fn follow(cache: &WatchCache, store: &dyn Store, after: Revision) -> Result<(), StoreError> {
    let events = store.watch(prefix_range(PREFIX), Some(after)).await?;
    let mut revisions = Revisions::new(events);
    while let Some(events) = revisions.next().await {
        let events = events?;
        let Some(revision) = events.first().map(WatchEvent::revision) else {
            continue;
        };
        cache.apply(revision, events.into_iter().filter_map(change).collect());
        cache.advance(revision);
    }
    Ok(())
}

/// A key with the object that it has now, if any.
fn change(event: WatchEvent) -> Option<(String, Option<Arc<CachedObject>>)> {
    match event {
        WatchEvent::Put { current, .. } => match CachedObject::new(&current) {
            Ok(object) => Some((current.key, Some(Arc::new(object)))),
            Err(error) => {
                tracing::error!(key = %current.key, %error, "stored object is not JSON, skipped");
                None
            }
        },
        WatchEvent::Delete { previous, .. } => Some((previous.key, None)),
        WatchEvent::Progress(_) => None,
    }
}
