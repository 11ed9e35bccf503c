//! The `scale` subresource: replicas of a ReplicaSet or Deployment as `autoscaling/v1` Scale.

use http::StatusCode;
use hull_api::{
    ApiError, ObjectExt,
    decode::Decoded,
    field::{Errors, Path},
    selector::LabelSelector,
};
use serde_json::{Value, json};

use super::{
    Context, HandlerResult,
    owners::Owner,
    patch::apply_patch,
    read_body::{FieldValidation, conform, read_as},
    server_side_apply::{apply_config, read_config},
    update::{Ownership, apply},
};
use crate::{
    http::{Output, PatchType, decode_patch_body},
    limits,
    storage::Stored,
};

const KIND: &str = "Scale";
const API_VERSION: &str = "autoscaling/v1";
const SCHEMA: &str = "autoscaling.Scale";

pub(super) async fn scale(verb: &str, context: &Context<'_>) -> HandlerResult {
    let scale = match verb {
        "get" => {
            let stored = context
                .backend
                .storage
                .must_get(context.kind, context.namespace, context.name)
                .await?;
            scale_of(&stored.object)
        }
        _ => change(verb, context).await?,
    };
    Ok(Output {
        kind: context.kind,
        accept: context.accept,
        status: StatusCode::OK,
        object: &scale,
        warnings: &[],
    }
    .into_response())
}

fn scale_of(object: &Value) -> Value {
    let selector = object
        .pointer("/spec/selector")
        .and_then(|selector| {
            let by_expression = ["matchLabels", "matchExpressions"];
            match selector.as_object() {
                // ReplicationControllers have plain labels.
                Some(labels) if !by_expression.iter().any(|key| labels.contains_key(*key)) => {
                    LabelSelector::from_object(&json!({"matchLabels": labels})).ok()
                }
                _ => LabelSelector::from_object(selector).ok(),
            }
        })
        .map(|selector| selector.to_string())
        .unwrap_or_default();
    json!({
        "kind": KIND,
        "apiVersion": API_VERSION,
        "metadata": {
            "name": object.name(),
            "namespace": object.namespace(),
            "uid": object.uid(),
            "resourceVersion": object.resource_version(),
            "creationTimestamp": object.str_at("/metadata/creationTimestamp"),
        },
        "spec": {"replicas": object.int_at("/spec/replicas").unwrap_or(0)},
        "status": {
            "replicas": object.int_at("/status/replicas").unwrap_or(0),
            "selector": selector,
        },
    })
}

async fn change(verb: &str, context: &Context<'_>) -> Result<Value, ApiError> {
    let kind = context.kind;
    let dry_run = context.query.dry_run("UpdateOptions", context.name)?;
    for _ in 0..limits::UPDATE_RETRIES {
        let existing = context
            .backend
            .storage
            .must_get(kind, context.namespace, context.name)
            .await?;
        let current = scale_of(&existing.object);
        let wanted = match verb {
            "patch" => match decode_patch_body(context.headers, &context.body)? {
                (PatchType::Apply, decoded) => {
                    let scale = applied_scale(context, &existing, decoded, dry_run).await?;
                    match scale {
                        Some(scale) => return Ok(scale),
                        None => continue,
                    }
                }
                (patch_type, decoded) => patched(context, current.clone(), patch_type, decoded)?,
            },
            _ => read_as(context, KIND, API_VERSION, SCHEMA)?.object,
        };
        let given = wanted.resource_version();
        let versioned =
            !given.is_empty() && (verb != "patch" || given != current.resource_version());
        if versioned && given != current.resource_version() {
            return Err(ApiError::modified(kind.resource(), context.name));
        }
        let replicas = wanted.int_at("/spec/replicas").unwrap_or(0);
        check_replicas(context, replicas)?;
        let mut object = existing.object.clone();
        object.set_at(&["spec", "replicas"], Value::from(replicas));
        let inner = context.of_parent();
        if let Some(updated) = apply(&inner, &existing, object, Ownership::Track, dry_run).await? {
            return Ok(scale_of(&updated));
        }
        if versioned {
            break;
        }
    }
    Err(ApiError::modified(kind.resource(), context.name))
}

fn check_replicas(context: &Context<'_>, replicas: i64) -> Result<(), ApiError> {
    let mut errors = Errors::default();
    errors.check_non_negative(&Path::new("spec.replicas"), Some(replicas));
    if errors.is_empty() {
        return Ok(());
    }
    Err(ApiError::invalid(
        "autoscaling",
        KIND,
        context.name,
        errors.into_vec(),
    ))
}

/// Server-side apply of a Scale: of the one field that it stands for. `None`: somebody else
/// wrote in between.
async fn applied_scale(
    context: &Context<'_>,
    existing: &Stored,
    decoded: Decoded,
    dry_run: bool,
) -> Result<Option<Value>, ApiError> {
    let owner = Owner::of_apply(context)?;
    let config = read_config(decoded, KIND, API_VERSION, SCHEMA)?;
    let mut partial = json!({});
    if let Some(replicas) = config.int_at("/spec/replicas") {
        check_replicas(context, replicas)?;
        partial.set_at(&["spec", "replicas"], Value::from(replicas));
    }
    let version = config.resource_version();
    if !version.is_empty() {
        partial.set_at(&["metadata", "resourceVersion"], Value::from(version));
    }
    let inner = context.of_parent();
    let merged = apply_config(&inner, &existing.object, &partial, &owner)?;
    let updated = apply(&inner, existing, merged, Ownership::Applied, dry_run).await?;
    Ok(updated.map(|object| scale_of(&object)))
}

fn patched(
    context: &Context<'_>,
    current: Value,
    patch_type: PatchType,
    decoded: Decoded,
) -> Result<Value, ApiError> {
    let value = apply_patch(SCHEMA, patch_type, current, &decoded.value)?;
    let decoded = Decoded {
        value,
        duplicates: decoded.duplicates,
    };
    conform(
        decoded,
        KIND,
        API_VERSION,
        SCHEMA,
        FieldValidation::of(context)?,
    )
    .map(|input| input.object)
}
