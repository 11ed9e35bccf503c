//! POST: a new object.

use http::StatusCode;
use hull_api::{
    ApiError, Kind, ObjectExt,
    field::Errors,
    kinds::{self, certificate_signing_request::set_requestor},
    managed, meta,
};
use serde_json::Value;

use super::{
    Context, HandlerResult,
    owners::Owner,
    read_body::{check_namespace, read_object},
    update::Ownership,
};
use crate::{
    admission::{
        self,
        dynamic::{self, Operation},
        resource_quota,
    },
    authorization::check_grant,
    http::Output,
    limits,
    names::{SUFFIX_LENGTH, random_suffix},
    service_network,
    storage::Outcome,
};

/// So that prefix and suffix together fit into a label.
const MAX_PREFIX: usize = 63 - SUFFIX_LENGTH;

pub(super) async fn create(context: &Context<'_>) -> HandlerResult {
    let kind = context.kind;
    if !context.name.is_empty() {
        return Err(ApiError::method_not_allowed(Some(kind.resource())));
    }
    if kind.namespaced && context.namespace.is_empty() {
        return Err(ApiError::method_not_allowed(Some(kind.resource())));
    }
    let input = read_object(context)?;
    let mut object = input.object;
    check_namespace(kind, context.namespace, &mut object)?;
    if !object.resource_version().is_empty() {
        return Err(ApiError::bad_request(
            "resourceVersion should not be set on objects to be created",
        ));
    }
    let dry_run = context.query.dry_run("CreateOptions", object.name())?;
    let created = create_object(context, object, Ownership::Track, dry_run).await?;
    Ok(Output {
        kind,
        accept: context.accept,
        status: StatusCode::CREATED,
        object: &created,
        warnings: &input.warnings,
    }
    .into_response())
}

/// Nothing new of a kind whose definition is being deleted.
fn refuse_terminating(context: &Context<'_>) -> Result<(), ApiError> {
    if context
        .custom
        .as_ref()
        .is_none_or(|custom| !custom.terminating)
    {
        return Ok(());
    }
    let mut error = ApiError::method_not_allowed(Some(context.kind.resource()));
    error.message =
        "create not allowed while custom resource definition is terminating".to_string();
    Err(error)
}

/// Defaults, admits, validates and writes a new object; returns it as served.
pub(super) async fn create_object(
    context: &Context<'_>,
    object: Value,
    ownership: Ownership,
    dry_run: bool,
) -> Result<Value, ApiError> {
    refuse_terminating(context)?;
    let kind = context.kind;
    let storage = &context.backend.storage;
    let generate = object.name().is_empty() && !object.str_at("/metadata/generateName").is_empty();
    for _ in 0..limits::CREATE_RETRIES {
        let mut attempt = object.clone();
        if generate {
            let name = generate_name(object.str_at("/metadata/generateName"));
            attempt.set_at(&["metadata", "name"], Value::from(name));
        }
        prepare(context, &mut attempt, ownership, dry_run).await?;
        validate(kind, &attempt)?;
        context.warn_of(&attempt, None);
        check_grant(
            &context.backend.authorizer,
            context.user,
            kind,
            &attempt,
            None,
        )?;
        let create = Operation::Create;
        dynamic::validate(context, create, Some(&attempt), None, dry_run).await?;
        // The turn of the namespace is kept until the object is stored.
        let reservation = resource_quota::reserve(context, &attempt, None).await?;
        let network = &context.backend.service_network;
        service_network::allocate(storage, network, kind, &mut attempt, None).await?;
        let mut stored = context.backend.to_storage(kind, attempt).await?;
        if dry_run {
            if storage
                .get(kind, stored.namespace(), stored.name())
                .await?
                .is_some()
            {
                return Err(ApiError::already_exists(kind.resource(), stored.name()));
            }
            return context.backend.to_served(kind, stored).await;
        }
        let beside = resource_quota::beside(reservation.as_ref())?;
        match storage.create_beside(kind, &mut stored, beside).await? {
            Outcome::Done(_) => return context.backend.to_served(kind, stored).await,
            Outcome::Conflict if generate => {}
            Outcome::Conflict => {
                let (namespace, name) = (stored.namespace(), stored.name());
                if storage.get(kind, namespace, name).await?.is_some() {
                    return Err(ApiError::already_exists(kind.resource(), name));
                }
                // Another service was faster with an address or port: choose again. Or another
                // server charged the same quota: count again.
            }
        }
    }
    if generate {
        let prefix = object.str_at("/metadata/generateName");
        return Err(ApiError::already_exists(kind.resource(), prefix));
    }
    Err(ApiError::modified(kind.resource(), object.name()))
}

async fn prepare(
    context: &Context<'_>,
    object: &mut Value,
    ownership: Ownership,
    dry_run: bool,
) -> Result<(), ApiError> {
    let kind = context.kind;
    kind.strategy.apply_defaults(object);
    // Before admission: what the cluster adds belongs to nobody.
    if ownership == Ownership::Track {
        let given = object.remove_at(&["metadata", "managedFields"]);
        let owner = Owner::of(context, "CreateOptions")?;
        managed::update(
            None,
            object,
            given.as_ref(),
            context.type_ref(),
            &owner.write(),
        );
    }
    admission::admit_create(context, object, dry_run).await?;
    meta::fill_on_create(
        object,
        jiff::Timestamp::now(),
        uuid::Uuid::new_v4().to_string(),
    );
    kind.strategy.prepare_create(object);
    if kind.storage == kinds::CERTIFICATE_SIGNING_REQUESTS.storage {
        let user = context.user;
        let extra = serde_json::json!(user.extra);
        set_requestor(object, &user.name, &user.uid, &user.groups, extra);
    }
    Ok(())
}

fn validate(kind: &Kind, object: &Value) -> Result<(), ApiError> {
    let mut errors = Errors::default();
    meta::validate(kind, object, &mut errors);
    kind.strategy.validate(object, &mut errors);
    if errors.is_empty() {
        return Ok(());
    }
    Err(ApiError::invalid(
        kind.group,
        kind.kind,
        object.name(),
        errors.into_vec(),
    ))
}

fn generate_name(prefix: &str) -> String {
    let mut end = prefix.len().min(MAX_PREFIX);
    while !prefix.is_char_boundary(end) {
        end -= 1;
    }
    let mut name = prefix[..end].to_string();
    name.push_str(&random_suffix());
    name
}
