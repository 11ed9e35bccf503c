//! The objects of a namespace from the cache.

use std::sync::Arc;

use hull_api::Kind;
use hull_store::prefix_range;

use crate::{handlers::Backend, watch_cache::CachedObject};

/// Every object of a kind in a namespace, as the cache has it.
pub(super) fn cached_in_namespace(
    backend: &Backend,
    kind: &Kind,
    namespace: &str,
) -> Vec<Arc<CachedObject>> {
    let range = prefix_range(&kind.prefix(namespace));
    backend.cache.snapshot(kind.storage, range).objects
}
