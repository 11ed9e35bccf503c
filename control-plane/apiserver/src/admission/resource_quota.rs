//! ResourceQuota: what all objects of a namespace together may ask for.
//!
//! A write that asks for more takes the namespace's turn, waits until the cache shows every
//! write before it, counts what is there, and is stored together with the quotas' new status, on
//! the condition that these are as they were counted: of many requests at once exactly as many
//! succeed as fit, also with several servers on one store. The turn spares requests of one server
//! the conflicts with each other.

use std::{collections::HashMap, sync::Arc};

use hull_api::{
    ApiError, Kind, ObjectExt,
    amounts::{Amounts, add, amounts},
    kinds,
    quota::{scopes, usage},
};
use hull_store::{Condition, Write};
use parking_lot::Mutex;
use serde_json::{Map, Value};
use tokio::sync::OwnedMutexGuard;

use super::resources::cached_in_namespace;
use crate::{
    handlers::{Backend, Context},
    storage::{Beside, encode, store_error},
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
    /// The quotas as counted, and what is used once the write is stored.
    used: Vec<(Arc<CachedObject>, Amounts)>,
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
    if charged(backend, kind, object, old)?.is_empty() {
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
    // The quotas first: what is stored after they were read changes them.
    let charged = charged(backend, kind, object, old)?;
    let others: Vec<Arc<CachedObject>> = cached_in_namespace(backend, kind, namespace)
        .into_iter()
        .filter(|other| other.name() != object.name())
        .collect();
    let mut used = Vec::new();
    for Charged { quota, more } in &charged {
        let mut total = Amounts::new();
        for other in &others {
            if scopes::matches(quota.kept(), kind, other.kept()) {
                add(&mut total, &usage::of(kind, other.kept()));
            }
        }
        if let Some(old) = old
            && scopes::matches(quota.kept(), kind, old)
        {
            add(&mut total, &usage::of(kind, old));
        }
        total.retain(|name, _| more.contains_key(name));
        used.push((quota.clone(), fit(kind, object, quota, more, total)?));
    }
    Ok(Some(Reservation { _turn: turn, used }))
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
        if !scopes::matches(quota.kept(), kind, object) {
            continue;
        }
        let hard = amounts(quota.kept().pointer("/spec/hard"));
        if old.is_none() {
            usage::require_specified(kind, object, quota.kept(), &hard)?;
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
    let hard = amounts(quota.kept().pointer("/spec/hard"));
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
            quota.name(),
            list(more),
            list(&used),
            list(&hard)
        ),
    ))
}

/// What a write with this reservation does besides: it charges the quotas as they were counted.
pub(crate) fn beside(reservation: Option<&Reservation>) -> Result<Beside, ApiError> {
    let mut beside = Beside::default();
    for (quota, used) in reservation.iter().flat_map(|reservation| &reservation.used) {
        let mut object = quota.kept().clone();
        show(&mut object, used);
        let (key, revision) = (quota.key.to_string(), quota.revision);
        beside
            .conditions
            .push(Condition::ModRevision(key.clone(), revision));
        beside.writes.push(Write::Put(key, encode(&mut object)?));
    }
    Ok(beside)
}

/// Sets a quota's status.
fn show(quota: &mut Value, used: &Amounts) {
    let hard = quota.map_at("/spec/hard").cloned().unwrap_or_default();
    let mut shown: Map<String, Value> = quota.map_at("/status/used").cloned().unwrap_or_default();
    for (name, amount) in used {
        shown.insert(name.clone(), Value::from(amount.to_string()));
    }
    shown.retain(|name, _| hard.contains_key(name));
    quota.set_at(&["status", "used"], Value::Object(shown));
    quota.set_at(&["status", "hard"], Value::Object(hard));
}
