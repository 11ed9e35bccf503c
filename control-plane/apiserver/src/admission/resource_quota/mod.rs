//! ResourceQuota: what all objects of a namespace together may ask for.
//!
//! A write that asks for more takes the namespace's turn, waits until the cache shows every
//! write before it, counts what is there, and keeps the turn until it is stored: of many
//! requests at once exactly as many succeed as fit. The turn is one server's; with several
//! servers on one store each counts exactly, but two may count at the same moment.

mod scopes;
mod usage;

use std::{collections::HashMap, sync::Arc};

use hull_api::{ApiError, Kind, ObjectExt, kinds};
use parking_lot::Mutex;
use serde_json::{Map, Value};
use tokio::sync::OwnedMutexGuard;

use super::resources::{Amounts, add, amounts, cached_in_namespace};
use crate::{
    handlers::{Backend, Context},
    limits,
    storage::{Outcome, store_error},
    watch_cache::CachedObject,
};

type Turn = Arc<tokio::sync::Mutex<()>>;

/// The turns of the namespaces that have quotas.
#[derive(Default)]
pub(crate) struct QuotaTurns(Mutex<HashMap<String, Turn>>);

impl QuotaTurns {
    async fn take(&self, namespace: &str) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.0.lock();
            // Nobody waits for one that only the map holds.
            turns.retain(|name, turn| name == namespace || Arc::strong_count(turn) > 1);
            turns.entry(namespace.to_string()).or_default().clone()
        };
        turn.lock_owned().await
    }
}

/// The turn of a write that fits, kept until it is stored.
pub(crate) struct Reservation {
    _turn: OwnedMutexGuard<()>,
    /// Names of quotas, and what is used once the write is stored.
    used: Vec<(String, Amounts)>,
    namespace: String,
}

/// A quota that a write counts against.
struct Charged {
    quota: Arc<CachedObject>,
    /// What the write asks for more than before, of what the quota limits.
    more: Amounts,
}

/// Checks the quotas of the object's namespace. `old` is the object before an update.
pub(crate) async fn reserve(
    context: &Context<'_>,
    object: &Value,
    old: Option<&Value>,
) -> Result<Option<Reservation>, ApiError> {
    let (backend, kind) = (context.backend.as_ref(), context.kind);
    if !kind.namespaced || context.namespace.is_empty() {
        return Ok(None);
    }
    let namespace = object.namespace();
    let charged = charged(backend, kind, object, old)?;
    if charged.is_empty() {
        return Ok(None);
    }
    let turn = backend.quota_turns.take(namespace).await;
    let newest = backend
        .storage
        .store()
        .revision()
        .await
        .map_err(store_error)?;
    backend.cache.wait_for(newest).await?;
    let others: Vec<Arc<CachedObject>> = cached_in_namespace(backend, kind, namespace)
        .into_iter()
        .filter(|other| other.value.name() != object.name())
        .collect();
    let mut used = Vec::new();
    for Charged { quota, more } in &charged {
        let mut total = Amounts::new();
        for other in &others {
            if scopes::matches(&quota.value, kind, &other.value) {
                add(&mut total, &usage::of(kind, &other.value));
            }
        }
        if let Some(old) = old
            && scopes::matches(&quota.value, kind, old)
        {
            add(&mut total, &usage::of(kind, old));
        }
        total.retain(|name, _| more.contains_key(name));
        used.push((
            quota.value.name().to_string(),
            fit(kind, object, quota, more, total)?,
        ));
    }
    Ok(Some(Reservation {
        _turn: turn,
        used,
        namespace: namespace.to_string(),
    }))
}

/// The quotas that limit something that the write asks for.
fn charged(
    backend: &Backend,
    kind: &Kind,
    object: &Value,
    old: Option<&Value>,
) -> Result<Vec<Charged>, ApiError> {
    let quotas = cached_in_namespace(backend, &kinds::RESOURCE_QUOTAS, object.namespace());
    let mut charged = Vec::new();
    for quota in quotas {
        if !scopes::matches(&quota.value, kind, object) {
            continue;
        }
        let hard = amounts(quota.value.pointer("/spec/hard"));
        if old.is_none() {
            usage::require_specified(kind, object, &quota.value, &hard)?;
        }
        let before = old.map(|old| usage::of(kind, old)).unwrap_or_default();
        let mut more = usage::of(kind, object);
        more.retain(|name, amount| {
            hard.contains_key(name) && before.get(name).is_none_or(|before| *before < *amount)
        });
        for (name, amount) in &mut more {
            if let Some(before) = before.get(name) {
                *amount = amount.minus(before);
            }
        }
        if !more.is_empty() {
            charged.push(Charged { quota, more });
        }
    }
    Ok(charged)
}

/// What is used afterwards, or the refusal.
fn fit(
    kind: &Kind,
    object: &Value,
    quota: &CachedObject,
    more: &Amounts,
    used: Amounts,
) -> Result<Amounts, ApiError> {
    let hard = amounts(quota.value.pointer("/spec/hard"));
    let mut after = used.clone();
    add(&mut after, more);
    let over: Vec<&String> = more
        .keys()
        .filter(|name| match (after.get(*name), hard.get(*name)) {
            (Some(after), Some(hard)) => after > hard,
            _ => false,
        })
        .collect();
    if over.is_empty() {
        return Ok(after);
    }
    let list = |from: &Amounts| -> String {
        let parts: Vec<String> = over
            .iter()
            .map(|name| match from.get(*name) {
                Some(amount) => format!("{name}={amount}"),
                None => format!("{name}=0"),
            })
            .collect();
        parts.join(",")
    };
    Err(ApiError::forbidden(
        kind.resource(),
        object.name(),
        &format!(
            "exceeded quota: {}, requested: {}, used: {}, limited: {}",
            quota.value.name(),
            list(more),
            list(&used),
            list(&hard)
        ),
    ))
}

impl Reservation {
    /// Shows in the quotas what the stored write uses. A failure is no failure of the write:
    /// the next one counts anew.
    pub(crate) async fn record(self, backend: &Backend) {
        for (name, used) in &self.used {
            if let Err(error) = show(backend, &self.namespace, name, used).await {
                tracing::warn!(quota = name, namespace = self.namespace, %error, "cannot write the status");
            }
        }
    }
}

async fn show(
    backend: &Backend,
    namespace: &str,
    name: &str,
    used: &Amounts,
) -> Result<(), ApiError> {
    let kind = &kinds::RESOURCE_QUOTAS;
    for _ in 0..limits::UPDATE_RETRIES {
        let Some(mut stored) = backend.storage.get(kind, namespace, name).await? else {
            return Ok(());
        };
        let hard = stored
            .object
            .map_at("/spec/hard")
            .cloned()
            .unwrap_or_default();
        let mut shown: Map<String, Value> = stored
            .object
            .map_at("/status/used")
            .cloned()
            .unwrap_or_default();
        for (name, amount) in used {
            shown.insert(name.clone(), Value::from(amount.to_string()));
        }
        shown.retain(|name, _| hard.contains_key(name));
        stored
            .object
            .set_at(&["status", "used"], Value::Object(shown));
        stored
            .object
            .set_at(&["status", "hard"], Value::Object(hard));
        let outcome = backend
            .storage
            .replace(kind, &mut stored.object, stored.revision)
            .await?;
        if let Outcome::Done(_) = outcome {
            return Ok(());
        }
    }
    Err(ApiError::modified(kind.resource(), name))
}
