//! Keeps the cache current.

use std::sync::Arc;

use futures::StreamExt;
use hull_store::{Revision, Store, StoreError, WatchEvent, prefix_range};

use super::{CachedObject, WatchCache};
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
    let mut events = store.watch(prefix_range(PREFIX), Some(after)).await?;
    while let Some(event) = events.next().await {
        let event = event?;
        let revision = event.revision();
        match event {
            WatchEvent::Put { current, .. } => match CachedObject::new(&current) {
                Ok(object) => cache.apply(&current.key, revision, Some(Arc::new(object))),
                Err(error) => {
                    tracing::error!(key = %current.key, %error, "stored object is not JSON, skipped");
                }
            },
            WatchEvent::Delete { previous, .. } => cache.apply(&previous.key, revision, None),
            WatchEvent::Progress(_) => {}
        }
        cache.advance(revision);
    }
    Ok(())
}
