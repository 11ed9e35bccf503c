//! Follows the definitions.

use std::{sync::Arc, time::Duration};

use hull_api::{ApiError, ObjectExt, custom::Definition, kinds::CUSTOM_RESOURCE_DEFINITIONS};
use hull_store::prefix_range;
use serde_json::Value;

use super::{cleanup, naming::Names, served::ServedKinds};
use crate::{handlers::Backend, limits, storage::Outcome, watch_cache::WatchCache};

/// The definitions as they are to be: those with conflicts last, so that who was first keeps
/// its names.
fn definitions(cache: &WatchCache) -> Vec<Value> {
    let kind = &CUSTOM_RESOURCE_DEFINITIONS;
    let all = prefix_range(&kind.prefix(""));
    let snapshot = cache.snapshot(kind.storage, all);
    let objects = snapshot.objects.iter();
    let mut objects: Vec<Value> = objects.map(|object| object.parsed()).collect();
    objects.sort_by_key(|object| {
        (
            object.str_at("/metadata/creationTimestamp").to_string(),
            object.name().to_string(),
        )
    });
    let mut names = Names::default();
    for object in &objects {
        names.claim(object);
    }
    for object in &mut objects {
        if !object.is_deleting() {
            names.accept(object);
        }
    }
    objects
}

/// Serves the kinds of the definitions in the cache, and returns the definitions as they are to
/// be.
pub(crate) fn serve(cache: &WatchCache, kinds: &ServedKinds) -> Vec<Value> {
    let objects = definitions(cache);
    let established: Vec<Value> = objects
        .iter()
        .filter(|object| Definition(object).is("Established"))
        .map(with_accepted_names)
        .collect();
    for object in &established {
        cache.add_custom(&Definition(object).storage());
    }
    kinds.serve(&established);
    cache.keep_custom(|storage| {
        established
            .iter()
            .any(|object| Definition(object).storage() == storage)
    });
    objects
}

/// Names that were not accepted are not served.
fn with_accepted_names(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(names) = object.pointer("/status/acceptedNames").cloned() {
        object.set_at(&["spec", "names"], names);
    }
    object
}

/// Follows the definitions until the cache is gone.
pub(crate) async fn run(backend: Arc<Backend>) {
    let Some(mut changed) = backend.cache.subscribe(CUSTOM_RESOURCE_DEFINITIONS.storage) else {
        return;
    };
    loop {
        changed.mark_unchanged();
        let pending = match reconcile(&backend).await {
            Ok(pending) => pending,
            Err(error) => {
                tracing::warn!(%error, "definitions of custom resources: trying again");
                true
            }
        };
        // Objects of a definition that is being deleted go without a change of the definition.
        let wait = if pending {
            limits::DEFINITION_RETRY
        } else {
            Duration::MAX
        };
        if let Ok(Err(_)) = tokio::time::timeout(wait, changed.changed()).await {
            return;
        }
    }
}

/// True: to be looked at again soon.
async fn reconcile(backend: &Backend) -> Result<bool, ApiError> {
    let mut pending = false;
    for mut object in serve(&backend.cache, &backend.kinds) {
        if object.is_deleting() {
            pending |= !cleanup::clean(backend, object).await?;
            continue;
        }
        let kind = &CUSTOM_RESOURCE_DEFINITIONS;
        let stored = backend
            .cache
            .get(kind.storage, &kind.key("", object.name()));
        let Some(stored) = stored.filter(|stored| stored.parsed() != object) else {
            continue;
        };
        let name = object.name().to_string();
        // After a conflict the change that was faster wakes us.
        if let Outcome::Done(revision) = backend
            .storage
            .replace(kind, &mut object, stored.revision)
            .await?
        {
            tracing::info!(
                definition = name,
                revision,
                "status of the definition written"
            );
        }
    }
    Ok(pending)
}
