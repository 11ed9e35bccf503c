//! `pods/eviction`: a delete that asks the disruption budgets first
//! (Kubernetes: registry/core/pod/storage/eviction.go).

use hull_api::{
    ApiError, ObjectExt, kinds,
    selector::LabelSelector,
    status::{Cause, Reason},
    time,
};
use hull_store::prefix_range;
use serde_json::{Value, json};

use super::{
    Context, HandlerResult,
    delete::{DeleteOptions, delete_unasked},
    list::wait_for_newest,
    read_body::{check_namespace, read_as},
    subresources::{EVICTION, admit_part, created},
};
use crate::{
    admission, limits,
    storage::{Outcome, Stored},
};

/// Evictions that a budget may wait for at once.
const MAX_DISRUPTED_PODS: usize = 2000;
/// When to come back while a budget is not counted yet, in seconds.
const RETRY_SECONDS: u32 = 10;

/// Deletes a pod if its disruption budget allows it.
pub(super) async fn evict(context: &Context<'_>) -> HandlerResult {
    let mut eviction = read_as(context, &EVICTION)?.object;
    check_namespace(context.kind, context.namespace, &mut eviction)?;
    if !eviction.name().is_empty() && eviction.name() != context.name {
        return Err(ApiError::bad_request(format!(
            "name in URL does not match name in Eviction object: {:?} is not {:?}",
            context.name,
            eviction.name()
        )));
    }
    let read_options = |eviction: &Value| {
        let options = eviction.map_at("/deleteOptions").cloned();
        DeleteOptions::from_map(context, options.unwrap_or_default())
    };
    let dry_run = context.query.dry_run("CreateOptions", context.name)?;
    let dry_run = dry_run || read_options(&eviction)?.dry_run;
    admit_part(context, &EVICTION, &mut eviction, dry_run).await?;
    let options = read_options(&eviction)?;
    let pod = context
        .backend
        .storage
        .must_get(context.kind, context.namespace, context.name)
        .await?;
    admission::admit_delete(context, &pod.object)?;
    if !ignores_budget(&pod.object) {
        ask_budgets(context, &pod.object, dry_run).await?;
    }
    if !dry_run {
        mark_disrupted(context, pod).await?;
    }
    // Policies and webhooks were asked about the eviction: it is no delete to them.
    delete_unasked(context, context.namespace, context.name, &options).await?;
    Ok(created(context))
}

/// It does not run: nothing is disrupted.
fn ignores_budget(pod: &Value) -> bool {
    pod.is_deleting()
        || matches!(
            pod.str_at("/status/phase"),
            "Pending" | "Succeeded" | "Failed"
        )
}

fn has_condition(pod: &Value, wanted: &str) -> bool {
    pod.list_at("/status/conditions").iter().any(|condition| {
        condition.str_at("/type") == wanted && condition.str_at("/status") == "True"
    })
}

/// Names of the budgets that count the pod.
async fn budgets_of(context: &Context<'_>, pod: &Value) -> Result<Vec<String>, ApiError> {
    wait_for_newest(context).await?;
    let kind = &kinds::POD_DISRUPTION_BUDGETS;
    let range = prefix_range(&kind.prefix(context.namespace));
    let snapshot = context.backend.cache.snapshot(kind.storage, range);
    Ok(snapshot
        .objects
        .iter()
        .filter(|budget| {
            budget
                .kept()
                .pointer("/spec/selector")
                .and_then(|selector| LabelSelector::from_object(selector).ok())
                .is_some_and(|selector| selector.matches(pod.labels()))
        })
        .map(|budget| budget.name().to_string())
        .collect())
}

/// Takes one disruption from the pod's budget, or says why not.
async fn ask_budgets(context: &Context<'_>, pod: &Value, dry_run: bool) -> Result<(), ApiError> {
    let names = budgets_of(context, pod).await?;
    let name = match names.as_slice() {
        [] => return Ok(()),
        [name] => name,
        _ => {
            return Err(ApiError::internal(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            ));
        }
    };
    let kind = &kinds::POD_DISRUPTION_BUDGETS;
    let storage = &context.backend.storage;
    for _ in 0..limits::UPDATE_RETRIES {
        let Some(stored) = storage.get(kind, context.namespace, name).await? else {
            return Ok(());
        };
        let mut budget = stored.object;
        if !has_condition(pod, "Ready") && unhealthy_may_go(&budget) {
            return Ok(());
        }
        decrement(&mut budget, pod.name())?;
        if dry_run {
            return Ok(());
        }
        if let Outcome::Done(_) = storage.replace(kind, &mut budget, stored.revision).await? {
            return Ok(());
        }
    }
    Err(refused(
        "couldn't update PodDisruptionBudget due to conflicts",
        name,
        "Too Many Requests: please try again",
    ))
}

/// A pod that is not ready is missing anyway.
fn unhealthy_may_go(budget: &Value) -> bool {
    let number = |field: &str| budget.int_at(&format!("/status/{field}")).unwrap_or(0);
    budget.str_at("/spec/unhealthyPodEvictionPolicy") == "AlwaysAllow"
        || (number("currentHealthy") >= number("desiredHealthy") && number("desiredHealthy") > 0)
}

fn refused(message: &str, budget: &str, cause: &str) -> ApiError {
    let mut error = ApiError::new(Reason::TooManyRequests, message);
    error.details.causes.push(Cause {
        reason: "DisruptionBudget".to_string(),
        message: format!("The disruption budget {budget} {cause}"),
        field: String::new(),
    });
    error
}

fn decrement(budget: &mut Value, pod: &str) -> Result<(), ApiError> {
    const VIOLATION: &str = "Cannot evict pod as it would violate the pod's disruption budget.";
    let name = budget.name().to_string();
    let number = |field: &str| budget.int_at(&format!("/status/{field}")).unwrap_or(0);
    let generation = budget.int_at("/metadata/generation").unwrap_or(0);
    if number("observedGeneration") < generation {
        let mut error = refused(VIOLATION, &name, "is still being processed by the server.");
        error.details.retry_after_seconds = RETRY_SECONDS;
        return Err(error);
    }
    let allowed = number("disruptionsAllowed");
    let disrupted = budget
        .map_at("/status/disruptedPods")
        .map_or(0, serde_json::Map::len);
    let forbid = |why: &str| {
        Err(ApiError::forbidden(
            kinds::POD_DISRUPTION_BUDGETS.resource(),
            &name,
            why,
        ))
    };
    if allowed < 0 {
        return forbid("pdb disruptions allowed is negative");
    }
    if disrupted > MAX_DISRUPTED_PODS {
        return forbid(
            "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
        );
    }
    if allowed == 0 {
        let words = format!(
            "needs {} healthy pods and has {} currently",
            number("desiredHealthy"),
            number("currentHealthy")
        );
        return Err(refused(VIOLATION, &name, &words));
    }
    budget.set_at(&["status", "disruptionsAllowed"], Value::from(allowed - 1));
    budget.set_at(
        &["status", "disruptedPods", pod],
        Value::from(time::to_seconds(jiff::Timestamp::now())),
    );
    Ok(())
}

/// Says in the pod why it goes. A pod that changed meanwhile is deleted all the same.
async fn mark_disrupted(context: &Context<'_>, stored: Stored) -> Result<(), ApiError> {
    let mut pod = stored.object;
    let mut conditions: Vec<Value> = pod
        .list_at("/status/conditions")
        .iter()
        .filter(|condition| condition.str_at("/type") != "DisruptionTarget")
        .cloned()
        .collect();
    conditions.push(json!({
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting",
        "lastProbeTime": null,
        "lastTransitionTime": time::to_seconds(jiff::Timestamp::now()),
    }));
    pod.set_at(&["status", "conditions"], Value::Array(conditions));
    let storage = &context.backend.storage;
    storage
        .replace(context.kind, &mut pod, stored.revision)
        .await
        .map(drop)
}
