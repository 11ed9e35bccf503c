//! Admission that the cluster's administrators bring: policies in CEL and webhooks.
//!
//! ```text
//!  write ─► mutating policies, then webhooks ─► rules of the kind ─► policies ─► validating webhooks ─► store
//!              │                                         │               │
//!              └────────── matching: rules, selectors, match conditions ─┘
//! ```
//!
//! Configurations are compiled once per change and kept; a cluster without any pays for four
//! look-ups of a revision. Neither policies nor webhooks are asked about the objects of their
//! own group: a wrong one can always be removed. What is created through a subresource (an
//! eviction, a binding, a token) and the options of a connection (exec, attach, port-forward) are
//! objects of kinds of their own. Validating policies and webhooks may also annotate the audit
//! event of the request.

mod annotations;
mod attributes;
mod authorizer;
mod conditions;
mod matching;
mod mutations;
mod policies;
mod validations;
mod webhooks;

use std::sync::Arc;

use hull_api::{ApiError, Kind, ObjectExt};
use hull_store::{Revision, prefix_range};
use parking_lot::Mutex;
use serde_json::Value;

pub(crate) use attributes::{Attributes, Operation};
use policies::Bound;
use webhooks::Webhook;

use crate::{handlers::Context, watch_cache::WatchCache};

/// Something made of the objects of some kinds, and the revisions it was made at.
type Kept<T> = Mutex<Option<(Vec<Revision>, Arc<Vec<T>>)>>;

/// What was compiled.
#[derive(Default)]
pub(crate) struct Dynamic {
    policies: Kept<Bound>,
    mutations: Kept<Bound>,
    mutating: Kept<Webhook>,
    validating: Kept<Webhook>,
}

/// Gets what was kept, or makes it anew when one of the kinds has changed.
fn current<T>(
    kept: &Kept<T>,
    cache: &WatchCache,
    kinds: &[&'static Kind],
    make: impl FnOnce() -> Vec<T>,
) -> Arc<Vec<T>> {
    let revisions: Vec<Revision> = kinds
        .iter()
        .map(|kind| cache.newest(kind.storage))
        .collect();
    let mut kept = kept.lock();
    if let Some((at, found)) = &*kept
        && *at == revisions
    {
        return found.clone();
    }
    let made = Arc::new(make());
    *kept = Some((revisions, made.clone()));
    made
}

/// Every object of a kind.
fn objects(cache: &WatchCache, kind: &Kind) -> Vec<Value> {
    let range = prefix_range(&kind.prefix(""));
    let snapshot = cache.snapshot(kind.storage, range);
    snapshot
        .objects
        .iter()
        .map(|object| object.parsed())
        .collect()
}

/// It is still the object of that name.
fn is_same(changed: &Value, object: &Value) -> bool {
    changed.is_object()
        && changed.name() == object.name()
        && changed.namespace() == object.namespace()
}

/// Objects that nobody is asked about.
fn is_exempt(kind: &Kind) -> bool {
    kind.group == "admissionregistration.k8s.io"
}

/// There are policies or webhooks: a delete has to ask them.
pub(crate) fn is_asked(context: &Context<'_>) -> bool {
    !is_exempt(context.kind)
        && (policies::are_bound(context.backend) || webhooks::are_configured(context.backend))
}

/// Lets mutating policies, then webhooks, change an object; true when one did.
pub(crate) async fn mutate(
    context: &Context<'_>,
    operation: Operation,
    object: &mut Value,
    old: Option<&Value>,
    dry_run: bool,
) -> Result<bool, ApiError> {
    if is_exempt(context.kind) {
        return Ok(false);
    }
    let by_policies = mutations::mutate(context, operation, object, old, dry_run, false)?;
    let by_webhooks = webhooks::mutate(context, operation, object, old, dry_run).await?;
    if by_webhooks {
        mutations::mutate(context, operation, object, old, dry_run, true)?;
    }
    Ok(by_policies || by_webhooks)
}

/// Asks the webhooks and policies whether an object may be deleted.
pub(crate) async fn check_delete(
    context: &Context<'_>,
    old: &Value,
    dry_run: bool,
) -> Result<(), ApiError> {
    if is_exempt(context.kind) {
        return Ok(());
    }
    let attributes = Attributes {
        context,
        operation: Operation::Delete,
        object: None,
        old: Some(old),
        dry_run,
    };
    webhooks::check_delete(&attributes).await?;
    validations::check(&attributes)?;
    webhooks::validate(&attributes).await
}

/// Asks the policies and the validating webhooks.
pub(crate) async fn validate(
    context: &Context<'_>,
    operation: Operation,
    object: Option<&Value>,
    old: Option<&Value>,
    dry_run: bool,
) -> Result<(), ApiError> {
    if is_exempt(context.kind) {
        return Ok(());
    }
    let attributes = Attributes {
        context,
        operation,
        object,
        old,
        dry_run,
    };
    validations::check(&attributes)?;
    webhooks::validate(&attributes).await
}
