//! What a write must fulfil beyond the rules of its kind, and what the cluster adds to it. One
//! file per rule, named as Kubernetes names its admission plugins.

mod certificates;
mod connect;
mod default_class;
pub(crate) mod dynamic;
mod limit_range;
mod namespace;
mod node_restriction;
mod pod_security;
mod priority;
pub(crate) mod resource_quota;
mod resources;
mod runtime_class;
mod service_account;

pub(crate) use connect::admit_connect;

use hull_api::{ApiError, kinds};
use serde_json::Value;

use crate::handlers::Context;

/// Checks and completes an object before it is created.
pub(crate) async fn admit_create(
    context: &Context<'_>,
    object: &mut Value,
    dry_run: bool,
) -> Result<(), ApiError> {
    let (storage, kind) = (&context.backend.storage, context.kind);
    if kind.namespaced {
        namespace::require_namespace(storage, kind, object).await?;
    }
    if kind.schema == kinds::PODS.schema {
        service_account::name(object);
        if context.backend.service_account_admission {
            service_account::admit_pod(storage, object).await?;
        }
        priority::resolve_priority(context.backend, object).await?;
        runtime_class::apply_runtime_class(storage, object).await?;
        kinds::pod::default_tolerations(object);
    }
    default_class::set_default(context.backend, kind, object);
    limit_range::admit(context.backend, kind, object)?;
    if dynamic::mutate(context, dynamic::Operation::Create, object, None, dry_run).await? {
        context.complete(object)?;
        limit_range::admit(context.backend, kind, object)?;
    }
    // After the webhooks: what they add must be allowed too.
    pod_security::check_create(context, object).await?;
    priority::check_default(context, object)?;
    certificates::check_create(context, object)?;
    node_restriction::check_create(context, object)
}

/// Checks a change of an object, whole or of a subresource.
pub(crate) async fn admit_update(
    context: &Context<'_>,
    new: &Value,
    old: &Value,
) -> Result<(), ApiError> {
    limit_range::check_update(context, new, old)?;
    pod_security::check_update(context, new, old).await?;
    priority::check_default(context, new)?;
    certificates::check_update(context, new, old)?;
    node_restriction::check_update(context, new, old)
}

/// Checks that an object may be deleted or evicted.
pub(crate) fn admit_delete(context: &Context<'_>, object: &Value) -> Result<(), ApiError> {
    namespace::check_delete(context.kind, object)?;
    node_restriction::check_delete(context, object)
}
