//! The end of a definition: its objects go first.

use hull_api::{
    ApiError, Kind, ObjectExt,
    custom::Definition,
    kinds::{CLEANUP_FINALIZER, CUSTOM_RESOURCE_DEFINITIONS, definition_condition},
    status::Reason,
};
use hull_store::{Revision, prefix_range};
use serde_json::Value;

use crate::{
    handlers::{Backend, DeleteOptions, delete_admitted},
    storage::{Outcome, store_error},
};

/// Deletes the objects of a definition that is being deleted, and lets it go when there are
/// none left. False: there are some, which finalizers hold.
pub(super) async fn clean(backend: &Backend, object: Value) -> Result<bool, ApiError> {
    if !object
        .finalizers()
        .iter()
        .any(|one| one == CLEANUP_FINALIZER)
    {
        // Somebody else's finalizers hold it.
        return Ok(true);
    }
    let definition = Definition(&object);
    let storage = definition.storage();
    let left = match backend.kinds.by_storage(&storage) {
        Some(kind) => delete_all(backend, kind).await?,
        // It was never served: nothing can have been created.
        None => false,
    };
    let state = if left {
        (
            "InstanceDeletionInProgress",
            "CustomResource deletion is in progress",
            true,
        )
    } else {
        ("InstanceDeletionCompleted", "removed all instances", false)
    };
    finish(backend, &object, state).await?;
    Ok(!left)
}

/// True: some are left.
async fn delete_all(backend: &Backend, kind: &'static Kind) -> Result<bool, ApiError> {
    let newest: Revision = backend
        .storage
        .store()
        .revision()
        .await
        .map_err(store_error)?;
    backend.cache.wait_for(newest).await?;
    let range = prefix_range(&format!("/registry/{}/", kind.storage));
    let options = DeleteOptions::default();
    for found in backend.cache.snapshot(kind.storage, range.clone()).objects {
        if !found.deletion_timestamp().is_empty() {
            continue;
        }
        let at = (found.namespace(), found.name());
        match delete_admitted(&backend.storage, kind, at, &options, |_| Ok(())).await {
            Err(error) if error.reason != Reason::NotFound => return Err(error),
            _ => {}
        }
    }
    let page = backend.storage.store().list(range, None, 1).await;
    Ok(!page.map_err(store_error)?.items.is_empty())
}

/// Writes how far it is; removes the definition when nothing holds it any more.
async fn finish(
    backend: &Backend,
    object: &Value,
    (reason, message, left): (&str, &str, bool),
) -> Result<(), ApiError> {
    let kind = &CUSTOM_RESOURCE_DEFINITIONS;
    let Some(stored) = backend.storage.get(kind, "", object.name()).await? else {
        return Ok(());
    };
    let mut new = stored.object.clone();
    definition_condition(&mut new, "Terminating", left, reason, message);
    if !left {
        let mut finalizers = new.finalizers().to_vec();
        finalizers.retain(|one| one != CLEANUP_FINALIZER);
        new.set_at(&["metadata", "finalizers"], Value::Array(finalizers));
    }
    if new == stored.object {
        return Ok(());
    }
    let outcome = if new.finalizers().is_empty() {
        backend
            .storage
            .remove(kind, "", object.name(), stored.revision)
            .await?
    } else {
        backend
            .storage
            .replace(kind, &mut new, stored.revision)
            .await?
    };
    if let Outcome::Done(revision) = outcome {
        tracing::info!(
            definition = object.name(),
            revision,
            reason,
            "definition is being deleted"
        );
    }
    Ok(())
}
