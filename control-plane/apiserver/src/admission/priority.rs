//! `spec.priority` of a pod, and the class of pods that name none.

use std::sync::Arc;

use hull_api::{
    ApiError, ObjectExt,
    kinds::{self, PRIORITY_CLASSES, SYSTEM_CLASSES},
};
use serde_json::Value;

use super::resources::cached_in_namespace;
use crate::{
    handlers::{Backend, Context},
    watch_cache::CachedObject,
};

const DEFAULT_POLICY: &str = "PreemptLowerPriority";

/// What a pod gets from a class.
struct Resolved {
    priority: i64,
    policy: String,
}

impl Resolved {
    fn of(class: &Value) -> Self {
        let policy = match class.str_at("/preemptionPolicy") {
            "" => DEFAULT_POLICY,
            policy => policy,
        };
        Resolved {
            priority: class.int_at("/value").unwrap_or(0),
            policy: policy.to_string(),
        }
    }

    fn without_class(priority: i64) -> Self {
        Resolved {
            priority,
            policy: DEFAULT_POLICY.to_string(),
        }
    }
}

/// `spec.priority` and `spec.preemptionPolicy` follow from the class, which is the default one
/// when the pod names none.
pub(super) async fn resolve_priority(backend: &Backend, pod: &mut Value) -> Result<(), ApiError> {
    let found = resolve(backend, pod).await?;
    let refuse =
        |pod: &Value, why: &str| Err(ApiError::forbidden(kinds::PODS.resource(), pod.name(), why));
    if let Some(given) = pod.int_at("/spec/priority")
        && given != found.priority
    {
        return refuse(
            pod,
            &format!(
                "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {} from the given PriorityClass name",
                found.priority
            ),
        );
    }
    let given = pod.str_at("/spec/preemptionPolicy");
    if !given.is_empty() && given != found.policy {
        return refuse(
            pod,
            &format!(
                "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {} from the given PriorityClass name",
                found.policy
            ),
        );
    }
    pod.set_at(&["spec", "priority"], Value::from(found.priority));
    pod.set_at(&["spec", "preemptionPolicy"], Value::from(found.policy));
    Ok(())
}

async fn resolve(backend: &Backend, pod: &mut Value) -> Result<Resolved, ApiError> {
    let name = pod.str_at("/spec/priorityClassName").to_string();
    if name.is_empty() {
        let Some(class) = default_class(backend) else {
            return Ok(Resolved::without_class(0));
        };
        let name = Value::from(class.name());
        pod.set_at(&["spec", "priorityClassName"], name);
        return Ok(Resolved::of(class.kept()));
    }
    // A pod of the system starts also when somebody deleted its class.
    if let Some((_, value)) = SYSTEM_CLASSES.iter().find(|(class, _)| *class == name) {
        return Ok(Resolved::without_class(*value));
    }
    let found = backend.storage.get(&PRIORITY_CLASSES, "", &name).await?;
    match found {
        Some(class) => Ok(Resolved::of(&class.object)),
        None => Err(ApiError::forbidden(
            kinds::PODS.resource(),
            pod.name(),
            &format!("no PriorityClass with name {name} was found"),
        )),
    }
}

/// The class of pods that name none; should there be several, the one of least priority.
fn default_class(backend: &Backend) -> Option<Arc<CachedObject>> {
    cached_in_namespace(backend, &PRIORITY_CLASSES, "")
        .into_iter()
        .filter(|class| class.kept().bool_at("/globalDefault"))
        .min_by_key(|class| class.kept().int_at("/value").unwrap_or(0))
}

/// Only one class is the default.
pub(super) fn check_default(context: &Context<'_>, class: &Value) -> Result<(), ApiError> {
    let kind = context.kind;
    if kind.storage != PRIORITY_CLASSES.storage || !class.bool_at("/globalDefault") {
        return Ok(());
    }
    match default_class(context.backend) {
        Some(other) if other.name() != class.name() => Err(ApiError::forbidden(
            kind.resource(),
            class.name(),
            &format!(
                "PriorityClass {} is already marked as default. Only one default can exist",
                other.name()
            ),
        )),
        _ => Ok(()),
    }
}
