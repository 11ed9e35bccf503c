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
    patch::apply_patch,
    read_body::{FieldValidation, conform, read_as},
    update::apply,
};
use crate::{
    http::{Output, decode_patch_body},
    limits,
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
        .and_then(|selector| LabelSelector::from_object(selector).ok())
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
            "patch" => patched(context, current.clone())?,
            _ => read_as(context, KIND, API_VERSION, SCHEMA)?.object,
        };
        let given = wanted.resource_version();
        let versioned =
            !given.is_empty() && (verb != "patch" || given != current.resource_version());
        if versioned && given != current.resource_version() {
            return Err(ApiError::modified(kind.resource(), context.name));
        }
        let replicas = wanted.int_at("/spec/replicas").unwrap_or(0);
        let mut errors = Errors::default();
        errors.check_non_negative(&Path::new("spec.replicas"), Some(replicas));
        if !errors.is_empty() {
            return Err(ApiError::invalid(
                "autoscaling",
                KIND,
                context.name,
                errors.into_vec(),
            ));
        }
        let mut object = existing.object.clone();
        object.set_at(&["spec", "replicas"], Value::from(replicas));
        let inner = Context {
            subresource: None,
            backend: context.backend,
            kind,
            namespace: context.namespace,
            name: context.name,
            query: context.query,
            headers: context.headers,
            body: context.body.clone(),
            accept: context.accept,
        };
        if let Some(updated) = apply(&inner, &existing, object, dry_run).await? {
            return Ok(scale_of(&updated));
        }
        if versioned {
            break;
        }
    }
    Err(ApiError::modified(kind.resource(), context.name))
}

fn patched(context: &Context<'_>, current: Value) -> Result<Value, ApiError> {
    let (patch_type, decoded) = decode_patch_body(context.headers, &context.body)?;
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
