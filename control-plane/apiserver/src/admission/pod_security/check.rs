//! Whom the standards concern: pods are refused or warned of, templates of pods warned of, and
//! namespaces whose labels change are told of the pods in them.

use std::collections::BTreeMap;

use hull_api::{
    ApiError, ObjectExt, kinds,
    registry::{Kind, Subresource},
};
use serde_json::Value;

use super::{
    super::resources::cached_in_namespace,
    Violation,
    policy::{Level, Policy, Standard},
};
use crate::handlers::Context;

/// Pods of a namespace that are looked at when it becomes stricter.
const MAX_PODS_CHECKED: usize = 3000;

/// Refuses, or warns of, a new object.
pub(in super::super) async fn check_create(
    context: &Context<'_>,
    object: &Value,
) -> Result<(), ApiError> {
    let kind = context.kind;
    if kind.schema == kinds::PODS.schema {
        return check_pod(context, object).await;
    }
    if kind.storage == kinds::NAMESPACES.storage {
        let (_, errors) = Policy::of(object);
        return refuse_labels(kind, object, errors.into_vec());
    }
    warn_of_template(context, object).await
}

/// Refuses, or warns of, a change. Of a pod only what a change can make worse is looked at: one
/// that was there before its namespace became strict can still be labelled.
pub(in super::super) async fn check_update(
    context: &Context<'_>,
    new: &Value,
    old: &Value,
) -> Result<(), ApiError> {
    let kind = context.kind;
    if kind.schema == kinds::PODS.schema {
        let concerned = context.subresource != Some(Subresource::Status);
        if concerned && is_significant(new, old) {
            return check_pod(context, new).await;
        }
        return Ok(());
    }
    if context.subresource.is_some() {
        return Ok(());
    }
    if kind.storage == kinds::NAMESPACES.storage {
        return check_namespace(context, new, old);
    }
    warn_of_template(context, new).await
}

/// There is a container that was not there before, or one with another image.
fn is_significant(new: &Value, old: &Value) -> bool {
    ["/initContainers", "/containers", "/ephemeralContainers"]
        .into_iter()
        .any(|list| {
            let pointer = format!("/spec{list}");
            let before = old.list_at(&pointer);
            new.list_at(&pointer).iter().any(|container| {
                let same = |one: &&Value| one.str_at("/name") == container.str_at("/name");
                before
                    .iter()
                    .find(same)
                    .is_none_or(|one| one.str_at("/image") != container.str_at("/image"))
            })
        })
}

/// What the object's namespace asks for; `None`: it is not there.
async fn policy_of(context: &Context<'_>, object: &Value) -> Result<Option<Policy>, ApiError> {
    let storage = &context.backend.storage;
    let namespace = storage
        .get(&kinds::NAMESPACES, "", object.namespace())
        .await?;
    Ok(namespace.map(|namespace| Policy::of(&namespace.object).0))
}

async fn check_pod(context: &Context<'_>, pod: &Value) -> Result<(), ApiError> {
    let (Some(policy), Some(spec)) = (policy_of(context, pod).await?, pod.get("spec")) else {
        return Ok(());
    };
    let violations = policy.enforce.violations(spec);
    if !violations.is_empty() {
        return Err(ApiError::forbidden(
            kinds::PODS.resource(),
            pod.name(),
            &format!("violates {}", sentence(policy.enforce, &violations)),
        ));
    }
    if policy.warn != policy.enforce {
        warn(context, policy.warn, spec);
    }
    Ok(())
}

fn sentence(standard: Standard, violations: &[Violation]) -> String {
    let list: Vec<String> = violations.iter().map(ToString::to_string).collect();
    format!("PodSecurity \"{standard}\": {}", list.join(", "))
}

fn warn(context: &Context<'_>, standard: Standard, spec: &Value) {
    let violations = standard.violations(spec);
    if !violations.is_empty() {
        context.warn(format!("would violate {}", sentence(standard, &violations)));
    }
}

/// The spec of the pods that an object makes.
fn template<'a>(kind: &Kind, object: &'a Value) -> Option<&'a Value> {
    let pointer = match (kind.group, kind.kind) {
        ("", "PodTemplate") => "/template/spec",
        ("", "ReplicationController")
        | ("apps", "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet")
        | ("batch", "Job") => "/spec/template/spec",
        ("batch", "CronJob") => "/spec/jobTemplate/spec/template/spec",
        _ => return None,
    };
    object.pointer(pointer)
}

async fn warn_of_template(context: &Context<'_>, object: &Value) -> Result<(), ApiError> {
    let Some(spec) = template(context.kind, object) else {
        return Ok(());
    };
    if let Some(policy) = policy_of(context, object).await? {
        warn(context, policy.warn, spec);
    }
    Ok(())
}

fn refuse_labels(
    kind: &Kind,
    namespace: &Value,
    errors: Vec<hull_api::field::FieldError>,
) -> Result<(), ApiError> {
    if errors.is_empty() {
        return Ok(());
    }
    let name = namespace.name();
    Err(ApiError::invalid(kind.group, kind.kind, name, errors))
}

/// Labels that are wrong may stay but not come; a stricter level warns of the pods that break it.
fn check_namespace(context: &Context<'_>, new: &Value, old: &Value) -> Result<(), ApiError> {
    let (policy, errors) = Policy::of(new);
    let (before, old_errors) = Policy::of(old);
    let (errors, old_errors) = (errors.into_vec(), old_errors.into_vec());
    if errors != old_errors {
        refuse_labels(context.kind, new, errors)?;
    }
    let (enforce, before) = (policy.enforce, before.enforce);
    let relaxed = enforce.version == before.version && enforce.level <= before.level;
    if enforce == before || enforce.level == Level::Privileged || relaxed {
        return Ok(());
    }
    for warning in violating_pods(context, new.name(), enforce) {
        context.warn(warning);
    }
    Ok(())
}

/// Which pods break a standard, those with the same rules broken together.
fn violating_pods(context: &Context<'_>, namespace: &str, enforce: Standard) -> Vec<String> {
    let pods = cached_in_namespace(context.backend, &kinds::PODS, namespace);
    let mut warnings = Vec::new();
    if pods.len() > MAX_PODS_CHECKED {
        warnings.push(format!(
            "new PodSecurity enforce level only checked against the first {MAX_PODS_CHECKED} of {} existing pods",
            pods.len()
        ));
    }
    // The names of the pods, by the rules that they break.
    let mut found: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for pod in pods.iter().take(MAX_PODS_CHECKED) {
        let parts = pod.parts(&["spec"]);
        let Some(spec) = parts.get("spec") else {
            continue;
        };
        let broken = enforce.violations(spec);
        if !broken.is_empty() {
            let rules: Vec<&str> = broken.iter().map(|violation| violation.rule).collect();
            let names = found.entry(rules.join(", ")).or_default();
            names.push(pod.name());
        }
    }
    if !found.is_empty() {
        warnings.push(format!(
            "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level \"{enforce}\""
        ));
    }
    let mut lines: Vec<String> = found
        .iter()
        .map(|(rules, names)| {
            let first = names.iter().min().copied().unwrap_or_default();
            match names.len() {
                1 => format!("{first}: {rules}"),
                2 => format!("{first} (and 1 other pod): {rules}"),
                many => format!("{first} (and {} other pods): {rules}", many - 1),
            }
        })
        .collect();
    lines.sort();
    warnings.extend(lines);
    warnings
}
