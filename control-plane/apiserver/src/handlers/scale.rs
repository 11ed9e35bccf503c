//! The `scale` subresource: replicas of a ReplicaSet, Deployment or custom resource as
//! `autoscaling/v1` Scale.

use http::StatusCode;
use hull_api::{
    ApiError, ObjectExt,
    custom::ScalePaths,
    decode::Decoded,
    field::{Errors, Path},
    selector::LabelSelector,
};
use serde_json::{Value, json};

use super::{
    Context, HandlerResult,
    owners::Owner,
    patch::apply_patch,
    read_body::{Expected, FieldValidation, conform, read_as},
    server_side_apply::{apply_config, read_config},
    update::{Ownership, apply},
};
use crate::{
    admission::dynamic::{self, Operation},
    http::{Output, PatchType, decode_patch_body},
    limits,
    storage::Stored,
};

const KIND: &str = "Scale";
const API_VERSION: &str = "autoscaling/v1";
const SCHEMA: &str = "autoscaling.Scale";
pub(super) const EXPECTED: Expected<'static> = Expected::built_in(KIND, API_VERSION, SCHEMA);

pub(super) async fn scale(verb: &str, context: &Context<'_>) -> HandlerResult {
    let scale = match verb {
        "get" => {
            let stored = context
                .backend
                .storage
                .must_get(context.kind, context.namespace, context.name)
                .await?;
            let served = context.backend.to_served(context.kind, stored.object);
            scale_of(context, &served.await?)?
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

/// The Scale of an object as served.
fn scale_of(context: &Context<'_>, object: &Value) -> Result<Value, ApiError> {
    let (wanted, found, selector) = match paths(context)? {
        None => (
            object.int_at("/spec/replicas").unwrap_or(0),
            object.int_at("/status/replicas").unwrap_or(0),
            selector_of(object),
        ),
        Some(paths) => (
            paths.spec_replicas(object).ok_or_else(|| {
                ApiError::internal(format!(
                    "the spec replicas field {:?} does not exist",
                    format!(".{}", paths.spec_replicas_path())
                ))
            })?,
            paths.status_replicas(object).unwrap_or(0),
            paths.selector(object).to_string(),
        ),
    };
    Ok(json!({
        "kind": KIND,
        "apiVersion": API_VERSION,
        "metadata": {
            "name": object.name(),
            "namespace": object.namespace(),
            "uid": object.uid(),
            "resourceVersion": object.resource_version(),
            "creationTimestamp": object.str_at("/metadata/creationTimestamp"),
        },
        "spec": {"replicas": wanted},
        "status": {"replicas": found, "selector": selector},
    }))
}

/// Where a custom resource has its replicas; `None`: the kind is built in.
fn paths<'a>(context: &'a Context<'_>) -> Result<Option<&'a ScalePaths>, ApiError> {
    match &context.custom {
        None => Ok(None),
        // The definition changed since the request was read.
        Some(custom) => match &custom.scale {
            Some(paths) => Ok(Some(paths)),
            None => Err(ApiError::no_such_resource()),
        },
    }
}

fn set_replicas(context: &Context<'_>, object: &mut Value, replicas: i64) -> Result<(), ApiError> {
    match paths(context)? {
        None => object.set_at(&["spec", "replicas"], Value::from(replicas)),
        Some(paths) => paths.set_spec_replicas(object, replicas),
    }
    Ok(())
}

fn selector_of(object: &Value) -> String {
    object
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
        .unwrap_or_default()
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
        let backend = context.backend;
        let served = backend.to_served(kind, existing.object.clone()).await?;
        let current = scale_of(context, &served)?;
        let mut wanted = match verb {
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
            _ => read_as(context, &EXPECTED)?.object,
        };
        admit(context, &mut wanted, &current, dry_run).await?;
        let given = wanted.resource_version();
        let versioned =
            !given.is_empty() && (verb != "patch" || given != current.resource_version());
        if versioned && given != current.resource_version() {
            return Err(ApiError::modified(kind.resource(), context.name));
        }
        let replicas = wanted.int_at("/spec/replicas").unwrap_or(0);
        check_replicas(context, replicas)?;
        let mut object = served;
        set_replicas(context, &mut object, replicas)?;
        let inner = context.of_parent();
        if let Some(updated) = apply(&inner, &existing, object, Ownership::Track, dry_run).await? {
            return scale_of(context, &updated);
        }
        if versioned {
            break;
        }
    }
    Err(ApiError::modified(kind.resource(), context.name))
}

/// Lets policies and webhooks change and judge a Scale; about the object that it is of they are
/// not asked.
async fn admit(
    context: &Context<'_>,
    wanted: &mut Value,
    current: &Value,
    dry_run: bool,
) -> Result<(), ApiError> {
    let update = Operation::Update;
    if dynamic::mutate(context, update, wanted, Some(current), dry_run).await? {
        EXPECTED.conform_changed(wanted)?;
    }
    dynamic::validate(context, update, Some(wanted), Some(current), dry_run).await
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
    let config = read_config(decoded, &EXPECTED)?;
    let mut partial = json!({});
    if let Some(replicas) = config.int_at("/spec/replicas") {
        check_replicas(context, replicas)?;
        set_replicas(context, &mut partial, replicas)?;
    }
    let version = config.resource_version();
    if !version.is_empty() {
        partial.set_at(&["metadata", "resourceVersion"], Value::from(version));
    }
    let inner = context.of_parent();
    let live = existing.object.clone();
    let live = context.backend.to_served(context.kind, live).await?;
    let mut merged = apply_config(&inner, &live, &partial, &owner)?;
    let asked = scale_of(context, &merged)?;
    let mut wanted = asked.clone();
    admit(context, &mut wanted, &scale_of(context, &live)?, dry_run).await?;
    if wanted != asked {
        let replicas = wanted.int_at("/spec/replicas").unwrap_or(0);
        check_replicas(context, replicas)?;
        set_replicas(context, &mut merged, replicas)?;
    }
    let updated = apply(&inner, existing, merged, Ownership::Applied, dry_run).await?;
    updated.map(|object| scale_of(context, &object)).transpose()
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
        &EXPECTED,
        FieldValidation::of(context, "PatchOptions")?,
    )
    .map(|input| input.object)
}
