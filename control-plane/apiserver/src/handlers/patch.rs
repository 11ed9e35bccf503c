//! PATCH: JSON, merge and strategic merge; server-side apply has its own file.

use std::error::Error as _;

use http::StatusCode;
use hull_api::{
    ApiError, ObjectExt,
    decode::Decoded,
    field::{Errors, Path},
    patch,
    patch::PatchError,
    status::{Cause, Reason},
};
use serde_json::Value;

use super::{
    Context, HandlerResult,
    owners::invalid_options,
    read_body::{Expected, FieldValidation, check_namespace, conform},
    server_side_apply::server_side_apply,
    update::{Ownership, apply},
};
use crate::{
    http::{Output, PatchType, decode_patch_body},
    limits,
};

pub(super) async fn patch(context: &Context<'_>) -> HandlerResult {
    let kind = context.kind;
    if context.name.is_empty() {
        return Err(ApiError::method_not_allowed(Some(kind.resource())));
    }
    let (patch_type, decoded) = decode_patch_body(context.headers, &context.body)?;
    if patch_type == PatchType::Apply {
        return server_side_apply(context, decoded).await;
    }
    if context.query.flag("force") {
        let mut errors = Errors::default();
        errors.forbidden(
            &Path::new("force"),
            "may not be specified for non-apply patch",
        );
        return Err(invalid_options("PatchOptions", errors));
    }
    if patch_type == PatchType::Strategic && context.custom.is_some() {
        return Err(unsupported_patch());
    }
    let validation = FieldValidation::of(context, "PatchOptions")?;
    let dry_run = context.query.dry_run("PatchOptions", context.name)?;
    for _ in 0..limits::UPDATE_RETRIES {
        let existing = context
            .backend
            .storage
            .must_get(kind, context.namespace, context.name)
            .await?;
        let current = context
            .backend
            .to_served(kind, existing.object.clone())
            .await?;
        let patched = apply_patch(
            context.kind.schema,
            patch_type,
            current.clone(),
            &decoded.value,
        )?;
        let versioned = patched.resource_version() != current.resource_version();
        if patched.name() != context.name {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({}) does not match the name on the URL ({})",
                patched.name(),
                context.name
            )));
        }
        let input = conform(
            Decoded {
                value: patched,
                duplicates: decoded.duplicates.clone(),
            },
            &Expected::own(context, &kind.group_version()),
            validation,
        )?;
        let mut object = input.object;
        check_namespace(kind, context.namespace, &mut object)?;
        if let Some(updated) = apply(context, &existing, object, Ownership::Track, dry_run).await? {
            return Ok(Output {
                kind,
                accept: context.accept,
                status: StatusCode::OK,
                object: &updated,
                warnings: &input.warnings,
            }
            .into_response());
        }
        if versioned {
            break;
        }
    }
    Err(ApiError::modified(kind.resource(), context.name))
}

/// Custom resources have no merge keys that such a patch could go by.
fn unsupported_patch() -> ApiError {
    ApiError::new(
        Reason::UnsupportedMediaType,
        "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
    )
}

/// Applies a patch to an object of the type named `type_name`.
pub(super) fn apply_patch(
    type_name: &str,
    patch_type: PatchType,
    mut object: Value,
    body: &Value,
) -> Result<Value, ApiError> {
    let result = match patch_type {
        PatchType::Json => patch::json_patch(&mut object, body),
        PatchType::Merge => patch::merge_patch(&mut object, body),
        PatchType::Strategic => patch::strategic_merge(type_name, &mut object, body),
        PatchType::Apply => Err(PatchError::Malformed(
            "a configuration to apply is not a patch".to_string(),
        )),
    };
    match result {
        Ok(()) if object.is_object() => Ok(object),
        Ok(()) => Err(ApiError::bad_request("the patch does not leave an object")),
        Err(PatchError::Malformed(words)) => Err(ApiError::bad_request(words)),
        Err(PatchError::TooLarge(words)) => Err(ApiError::new(
            Reason::RequestEntityTooLarge,
            format!("Request entity too large: {words}"),
        )),
        Err(error @ PatchError::DoesNotApply(_)) => {
            let mut refused = ApiError::new(Reason::Invalid, error.to_string());
            // Kubernetes does not say why; a client of its own would say it here.
            refused.details.causes.push(Cause {
                reason: "UnexpectedServerResponse".to_string(),
                message: error.source().map_or_else(String::new, ToString::to_string),
                field: String::new(),
            });
            Err(refused)
        }
    }
}
