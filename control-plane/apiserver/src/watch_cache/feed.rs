//! Keeps the cache current.

use std::sync::Arc;

use hull_store::{KeyValue, Revision, Store, StoreError, WatchEvent, prefix_range};

use super::{CachedObject, WatchCache, revisions::Revisions};
use crate::limits;

const PREFIX: &str = "/registry/";
/// Objects that are worth a thread.
const LEAST_PER_THREAD: usize = 1000;

/// Loads everything.
pub(crate) async fn load(cache: &WatchCache, store: &dyn Store) -> Result<Revision, StoreError> {
    let page = store.list(prefix_range(PREFIX), None, 0).await?;
    cache.load(read_all(&page.items), page.revision);
    Ok(page.revision)
}

/// Reads many objects, which a start waits for, on all processors.
fn read_all(pairs: &[KeyValue]) -> Vec<Arc<CachedObject>> {
    let read_part = |pairs: &[KeyValue]| -> Vec<Arc<CachedObject>> {
        let objects = pairs.iter().filter_map(|pair| read(pair).map(Arc::new));
        objects.collect()
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = pairs.len().div_ceil(threads).max(LEAST_PER_THREAD);
    let (own, others) = pairs.split_at(share.min(pairs.len()));
    std::thread::scope(|scope| {
        let others: Vec<_> = others
            .chunks(share)
            .map(|others| scope.spawn(move || read_part(others)))
            .collect();
        let mut objects = read_part(own);
        for other in others {
            match other.join() {
                Ok(more) => objects.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        objects
    })
}

fn read(pair: &KeyValue) -> Option<CachedObject> {
    let object = CachedObject::new(pair);
    let object = object.inspect_err(
        |error| tracing::error!(key = %pair.key, %error, "stored object is not JSON, skipped"),
    );
    object.ok()
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
fn change(event: WatchEvent) -> Option<(Arc<str>, Option<Arc<CachedObject>>)> {
    match event {
        WatchEvent::Put { current, .. } => {
            let object = read(&current)?;
            Some((object.key.clone(), Some(Arc::new(object))))
        }
        WatchEvent::Delete { previous, .. } => Some((previous.key.into(), None)),
        WatchEvent::Progress(_) => None,
    }
}
