//! Server-side apply: PATCH with `application/apply-patch+yaml`.

use http::StatusCode;
use hull_api::{
    ApiError, ObjectExt,
    decode::Decoded,
    managed::{self, Apply, ApplyError},
    status::{Cause, Reason},
};
use serde_json::{Value, json};

use super::{
    Context, HandlerResult,
    create::create_object,
    owners::Owner,
    read_body::{Expected, check_namespace},
    update::{Ownership, apply},
};
use crate::{http::Output, limits};

pub(super) async fn server_side_apply(context: &Context<'_>, body: Decoded) -> HandlerResult {
    let kind = context.kind;
    let owner = Owner::of_apply(context)?;
    let dry_run = context.query.dry_run("PatchOptions", context.name)?;
    let api_version = kind.group_version();
    let mut config = read_config(body, &Expected::own(context, &api_version))?;
    check_namespace(kind, context.namespace, &mut config)?;
    if config.name().is_empty() {
        config.set_at(&["metadata", "name"], Value::from(context.name));
    }
    if config.name() != context.name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({}) does not match the name on the URL ({})",
            config.name(),
            context.name
        )));
    }
    for _ in 0..limits::UPDATE_RETRIES {
        let found = context
            .backend
            .storage
            .get(kind, context.namespace, context.name)
            .await?;
        let (object, status) = match found {
            None => match create(context, &config, &owner, dry_run).await {
                // Somebody else created it meanwhile: apply to that.
                Err(error) if error.reason == Reason::AlreadyExists && !dry_run => continue,
                created => (Some(created?), StatusCode::CREATED),
            },
            Some(existing) => {
                let backend = context.backend;
                let live = backend.to_served(kind, existing.object.clone()).await?;
                let merged = apply_config(context, &live, &config, &owner)?;
                let written =
                    apply(context, &existing, merged, Ownership::Applied, dry_run).await?;
                (written, StatusCode::OK)
            }
        };
        if let Some(object) = object {
            return Ok(Output {
                kind,
                accept: context.accept,
                status,
                object: &object,
                warnings: &[],
            }
            .into_response());
        }
        if !config.resource_version().is_empty() {
            break;
        }
    }
    Err(ApiError::modified(kind.resource(), context.name))
}

async fn create(
    context: &Context<'_>,
    config: &Value,
    owner: &Owner,
    dry_run: bool,
) -> Result<Value, ApiError> {
    let kind = context.kind;
    if context.subresource.is_some() || !config.resource_version().is_empty() {
        return Err(ApiError::not_found(kind.resource(), context.name));
    }
    if !config.uid().is_empty() {
        return Err(ApiError::conflict(
            kind.resource(),
            context.name,
            &format!(
                "uid mismatch: the provided object specified uid {}, and no existing object was found",
                config.uid()
            ),
        ));
    }
    let object = apply_config(context, &json!({}), config, owner)?;
    create_object(context, object, Ownership::Applied, dry_run).await
}

/// The live object with the configuration in it, and the new owners.
pub(super) fn apply_config(
    context: &Context<'_>,
    live: &Value,
    config: &Value,
    owner: &Owner,
) -> Result<Value, ApiError> {
    let request = Apply {
        live,
        config,
        force: context.query.flag("force"),
    };
    managed::apply(request, context.type_ref(), &owner.write()).map_err(|error| match error {
        ApplyError::Conflicts(ref conflicts) => {
            let causes = conflicts
                .iter()
                .map(|conflict| Cause {
                    reason: "FieldManagerConflict".to_string(),
                    message: format!("conflict with {}", conflict.owner),
                    field: conflict.path.clone(),
                })
                .collect();
            let mut refusal = ApiError::new(Reason::Conflict, error.to_string());
            refusal.details.causes = causes;
            refusal
        }
        ApplyError::Duplicate(what) => cannot_type(config, &what),
    })
}

fn cannot_type(config: &Value, why: &str) -> ApiError {
    let (api_version, kind) = (config.str_at("/apiVersion"), config.str_at("/kind"));
    let name = match config.namespace() {
        "" => format!("/{}", config.name()),
        namespace => format!("{namespace}/{}", config.name()),
    };
    ApiError::bad_request(format!(
        "failed to create typed patch object ({name}; {api_version}, Kind={kind}): {why}"
    ))
}

/// Reads an applied configuration: it names its type, and knows no field that the type does
/// not.
pub(super) fn read_config(body: Decoded, expected: &Expected<'_>) -> Result<Value, ApiError> {
    let (kind, api_version) = (expected.kind, expected.api_version);
    let mut config = body.value;
    if !config.is_object() {
        return Err(ApiError::bad_request(
            "error decoding YAML: the configuration is not an object",
        ));
    }
    if let Some(duplicate) = body.duplicates.first() {
        return Err(ApiError::bad_request(format!(
            "error decoding YAML: {duplicate}"
        )));
    }
    let (given_version, given_kind) = (config.str_at("/apiVersion"), config.str_at("/kind"));
    if given_version.is_empty() || given_kind.is_empty() {
        return Err(ApiError::bad_request(format!(
            "invalid object type: {given_version}, Kind={given_kind}"
        )));
    }
    if given_version != api_version || given_kind != kind {
        return Err(ApiError::bad_request(format!(
            "incorrect version specified in apply patch. Specified patch version: {given_version}, Kind={given_kind}, expected: {api_version}, Kind={kind}"
        )));
    }
    if !config.list_at("/metadata/managedFields").is_empty() {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    let report = expected
        .conform(&mut config)
        .map_err(|error| cannot_type(&config, &error.0))?;
    if let Some(path) = report.unknown.first() {
        return Err(cannot_type(
            &config,
            &format!(".{path}: field not declared in schema"),
        ));
    }
    config.remove_at(&["metadata", "managedFields"]);
    config.map_mut(&["metadata"]);
    Ok(config)
}
