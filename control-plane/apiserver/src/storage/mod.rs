//! Objects in the store: JSON under Kubernetes' keys, the resourceVersion being the store's
//! revision (it is not part of what is stored).

pub(crate) mod codec;

use std::sync::Arc;

use bytes::Bytes;
use hull_api::{ApiError, Kind, ObjectExt, kinds, status::Reason};
use hull_store::{Condition, Revision, Store, StoreError, TxnOutcome, Write};
use serde_json::Value;

use crate::service_network::claims::{self, Claim};

/// An object and the revision it was written at.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    /// In the stored version, with its resourceVersion.
    pub object: Value,
    pub revision: Revision,
}

/// What became of a conditional write.
pub(crate) enum Outcome {
    /// Written at this revision.
    Done(Revision),
    /// Somebody else was first.
    Conflict,
}

/// What a write does besides, in the same transaction: it happens only together with the write,
/// and the write only if its conditions hold too.
#[derive(Debug, Clone, Default)]
pub(crate) struct Beside {
    pub conditions: Vec<Condition>,
    pub writes: Vec<Write>,
}

/// Typed access to the store.
#[derive(Clone)]
pub(crate) struct Storage {
    store: Arc<dyn Store>,
}

/// Failures of the store, as the client sees them.
pub(crate) fn store_error(error: StoreError) -> ApiError {
    match error {
        StoreError::Compacted { asked, oldest } => {
            ApiError::expired(format!("too old resource version: {asked} ({oldest})"))
        }
        StoreError::Future { asked, current } => {
            ApiError::too_large_resource_version(asked, current)
        }
        StoreError::Closed => {
            ApiError::new(Reason::ServiceUnavailable, "the server is shutting down")
        }
        StoreError::TooLarge { .. } => {
            ApiError::new(Reason::RequestEntityTooLarge, error.to_string())
        }
        StoreError::Unavailable { .. } | StoreError::TimedOut { .. } => {
            tracing::warn!(%error, "the store does not answer");
            let mut unavailable = ApiError::new(Reason::ServiceUnavailable, error.to_string());
            unavailable.details.retry_after_seconds = 1;
            unavailable
        }
        other => {
            tracing::error!(error = %other, "the store failed");
            ApiError::internal(other)
        }
    }
}

impl Storage {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Storage { store }
    }

    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    pub(crate) async fn get(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Stored>, ApiError> {
        let key = kind.key(namespace, name);
        let Some(pair) = self.store.get(&key).await.map_err(store_error)? else {
            return Ok(None);
        };
        let object = codec::decode(&pair.value, pair.mod_revision)
            .map_err(|error| ApiError::internal(format!("stored object {key}: {error}")))?;
        Ok(Some(Stored {
            object,
            revision: pair.mod_revision,
        }))
    }

    /// Like [`Storage::get`]; absence is the client's 404.
    pub(crate) async fn must_get(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
    ) -> Result<Stored, ApiError> {
        self.get(kind, namespace, name)
            .await?
            .ok_or_else(|| ApiError::not_found(kind.resource(), name))
    }

    async fn write(
        &self,
        conditions: Vec<Condition>,
        writes: Vec<Write>,
    ) -> Result<Outcome, ApiError> {
        match self.store.txn(conditions, writes).await {
            Ok(TxnOutcome::Committed(revision)) => Ok(Outcome::Done(revision)),
            Ok(TxnOutcome::Conflict { .. }) => Ok(Outcome::Conflict),
            Err(error) => Err(store_error(error)),
        }
    }

    /// What the object at `key`, last written at `expected`, holds besides its key; `None`:
    /// somebody else was first.
    async fn held(
        &self,
        kind: &Kind,
        key: &str,
        expected: Revision,
    ) -> Result<Option<Vec<Claim>>, ApiError> {
        if kind.storage != kinds::SERVICES.storage {
            return Ok(Some(Vec::new()));
        }
        let Some(pair) = self.store.get(key).await.map_err(store_error)? else {
            return Ok(None);
        };
        if pair.mod_revision != expected {
            return Ok(None);
        }
        let object = codec::decode(&pair.value, pair.mod_revision)
            .map_err(|error| ApiError::internal(format!("stored object {key}: {error}")))?;
        Ok(Some(claims::of(kind, &object)))
    }

    /// Writes a new object and sets its resourceVersion. A conflict may also be about something
    /// that the object would hold besides its key.
    pub(crate) async fn create(
        &self,
        kind: &Kind,
        object: &mut Value,
    ) -> Result<Outcome, ApiError> {
        self.create_beside(kind, object, Beside::default()).await
    }

    /// Like [`Storage::create`]; a conflict may also be about what is done besides.
    pub(crate) async fn create_beside(
        &self,
        kind: &Kind,
        object: &mut Value,
        beside: Beside,
    ) -> Result<Outcome, ApiError> {
        let key = kind.key(object.namespace(), object.name());
        let bytes = encode(object)?;
        let mut conditions = vec![Condition::Absent(key.clone())];
        let mut writes = vec![Write::Put(key, bytes)];
        for claim in claims::of(kind, object) {
            conditions.push(Condition::Absent(claim.key.clone()));
            writes.push(Write::Put(claim.key, claim.value));
        }
        conditions.extend(beside.conditions);
        writes.extend(beside.writes);
        let outcome = self.write(conditions, writes).await?;
        if let Outcome::Done(revision) = outcome {
            codec::set_revision(object, revision);
        }
        Ok(outcome)
    }

    /// Replaces an object that was last written at `expected`, and sets its resourceVersion.
    pub(crate) async fn replace(
        &self,
        kind: &Kind,
        object: &mut Value,
        expected: Revision,
    ) -> Result<Outcome, ApiError> {
        self.replace_beside(kind, object, expected, Beside::default())
            .await
    }

    /// Like [`Storage::replace`]; a conflict may also be about what is done besides.
    pub(crate) async fn replace_beside(
        &self,
        kind: &Kind,
        object: &mut Value,
        expected: Revision,
        beside: Beside,
    ) -> Result<Outcome, ApiError> {
        let key = kind.key(object.namespace(), object.name());
        let bytes = encode(object)?;
        let Some(before) = self.held(kind, &key, expected).await? else {
            return Ok(Outcome::Conflict);
        };
        let after = claims::of(kind, object);
        let mut conditions = vec![Condition::ModRevision(key.clone(), expected)];
        let mut writes = vec![Write::Put(key, bytes)];
        for claim in &before {
            if !after.iter().any(|other| other.key == claim.key) {
                writes.push(Write::Delete(claim.key.clone()));
            }
        }
        for claim in after {
            if !before.iter().any(|other| other.key == claim.key) {
                conditions.push(Condition::Absent(claim.key.clone()));
                writes.push(Write::Put(claim.key, claim.value));
            }
        }
        conditions.extend(beside.conditions);
        writes.extend(beside.writes);
        let outcome = self.write(conditions, writes).await?;
        if let Outcome::Done(revision) = outcome {
            codec::set_revision(object, revision);
        }
        Ok(outcome)
    }

    /// Removes an object that was last written at `expected`.
    pub(crate) async fn remove(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        expected: Revision,
    ) -> Result<Outcome, ApiError> {
        let key = kind.key(namespace, name);
        let Some(before) = self.held(kind, &key, expected).await? else {
            return Ok(Outcome::Conflict);
        };
        let condition = Condition::ModRevision(key.clone(), expected);
        let mut writes = vec![Write::Delete(key)];
        writes.extend(before.into_iter().map(|claim| Write::Delete(claim.key)));
        self.write(vec![condition], writes).await
    }
}

/// The bytes that are stored.
pub(crate) fn encode(object: &mut Value) -> Result<Bytes, ApiError> {
    object.remove_at(&["metadata", "resourceVersion"]);
    let bytes = serde_json::to_vec(object).map_err(ApiError::internal)?;
    // They stay in memory: without spare room.
    Ok(Bytes::from(bytes.into_boxed_slice()))
}
