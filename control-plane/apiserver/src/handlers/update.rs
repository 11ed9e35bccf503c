//! PUT, and the part that PATCH shares with it: how an object changes.

use http::StatusCode;
use hull_api::{ApiError, Kind, ObjectExt, field::Errors, managed, meta, registry::Subresource};
use hull_store::Revision;
use serde_json::Value;

use super::{
    Context, HandlerResult,
    create::create_object,
    owners::Owner,
    read_body::{check_namespace, read_object},
};
use crate::{
    admission::{
        self,
        dynamic::{self, Operation},
        resource_quota,
    },
    authorization::check_grant,
    http::Output,
    limits, service_network,
    storage::{Beside, Outcome, Stored},
};

pub(super) async fn update(context: &Context<'_>) -> HandlerResult {
    let kind = context.kind;
    if context.name.is_empty() {
        return Err(ApiError::method_not_allowed(Some(kind.resource())));
    }
    let input = read_object(context)?;
    let mut object = input.object;
    check_namespace(kind, context.namespace, &mut object)?;
    if object.name().is_empty() {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({} based on URL) was undeterminable: name must be provided",
            context.name
        )));
    }
    if object.name() != context.name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({}) does not match the name on the URL ({})",
            object.name(),
            context.name
        )));
    }
    let dry_run = context.query.dry_run("UpdateOptions", object.name())?;
    let (object, status) = put(context, object, dry_run).await?;
    Ok(Output {
        kind,
        accept: context.accept,
        status,
        object: &object,
        warnings: &input.warnings,
    }
    .into_response())
}

async fn put(
    context: &Context<'_>,
    object: Value,
    dry_run: bool,
) -> Result<(Value, StatusCode), ApiError> {
    let kind = context.kind;
    for _ in 0..limits::UPDATE_RETRIES {
        let found = context
            .backend
            .storage
            .get(kind, context.namespace, context.name)
            .await?;
        let Some(existing) = found else {
            if kind.strategy.create_on_update() && context.subresource.is_none() {
                let created = create_object(context, object, Ownership::Track, dry_run).await?;
                return Ok((created, StatusCode::CREATED));
            }
            return Err(ApiError::not_found(kind.resource(), context.name));
        };
        if let Some(updated) = apply(
            context,
            &existing,
            object.clone(),
            Ownership::Track,
            dry_run,
        )
        .await?
        {
            return Ok((updated, StatusCode::OK));
        }
        // Without a resourceVersion the client does not care who was first.
        if !object.resource_version().is_empty() {
            break;
        }
    }
    Err(ApiError::modified(kind.resource(), context.name))
}

/// Who finds out which fields the writer owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ownership {
    /// This write: it takes what it changes.
    Track,
    /// Server-side apply did; the object carries the owners.
    Applied,
}

/// Makes `new` (in the served version) the successor of `existing` and writes it. `None`:
/// somebody else wrote in between.
pub(super) async fn apply(
    context: &Context<'_>,
    existing: &Stored,
    mut new: Value,
    ownership: Ownership,
    dry_run: bool,
) -> Result<Option<Value>, ApiError> {
    let kind = context.kind;
    let backend = context.backend;
    let old = backend.to_served(kind, existing.object.clone()).await?;
    check_preconditions(kind, &new, &old)?;
    let given = new.remove_at(&["metadata", "managedFields"]);
    prepare(kind, context.subresource, &mut new, &old);
    let update = Operation::Update;
    // About a Scale they were asked as such.
    let asked = context.through != Subresource::Scale.info().name;
    if asked && dynamic::mutate(context, update, &mut new, Some(&old), dry_run).await? {
        context.complete(&mut new)?;
        prepare(kind, context.subresource, &mut new, &old);
    }
    validate(kind, context.subresource, &new, &old)?;
    if context.subresource.is_none() {
        context.warn_of(&new, Some(&old));
    }
    check_grant(
        &context.backend.authorizer,
        context.user,
        kind,
        &new,
        Some(&old),
    )?;
    admission::admit_update(context, &new, &old).await?;
    if asked {
        dynamic::validate(context, update, Some(&new), Some(&old), dry_run).await?;
    }
    match (ownership, given) {
        (Ownership::Track, given) => {
            let owner = Owner::of(context, "UpdateOptions")?;
            managed::update(
                Some(&old),
                &mut new,
                given.as_ref(),
                context.type_ref(),
                &owner.write(),
            );
        }
        (Ownership::Applied, Some(owners)) => {
            new.set_at(&["metadata", "managedFields"], owners);
        }
        (Ownership::Applied, None) => {
            new.remove_at(&["metadata", "managedFields"]);
        }
    }
    // What the server allocates is nobody's.
    if context.subresource.is_none() {
        let network = &backend.service_network;
        service_network::allocate(&backend.storage, network, kind, &mut new, Some(&old)).await?;
    }
    new.set_at(
        &["metadata", "resourceVersion"],
        Value::from(old.resource_version()),
    );
    // Writing an object unchanged brings it into the storage version.
    let custom = context.custom.as_ref();
    let is_current =
        custom.is_none_or(|custom| custom.stored_as == existing.object.str_at("/apiVersion"));
    if (new == old && is_current) || dry_run {
        return Ok(Some(new));
    }
    for _ in 0..limits::UPDATE_RETRIES {
        let reservation = resource_quota::reserve(context, &new, Some(&old)).await?;
        let beside = resource_quota::beside(reservation.as_ref())?;
        let stored = backend.to_storage(kind, new.clone()).await?;
        let written = write(context, stored, existing.revision, beside).await?;
        if written.is_some() || reservation.is_none() || is_changed(context, existing).await? {
            return match written {
                Some(object) => backend.to_served(kind, object).await.map(Some),
                None => Ok(None),
            };
        }
        // Only the quota changed, by another server: count again.
    }
    Ok(None)
}

async fn is_changed(context: &Context<'_>, existing: &Stored) -> Result<bool, ApiError> {
    let storage = &context.backend.storage;
    let (namespace, name) = (existing.object.namespace(), existing.object.name());
    let found = storage.get(context.kind, namespace, name).await?;
    Ok(found.is_none_or(|found| found.revision != existing.revision))
}

/// An update with the uid of another object, in the words of Kubernetes' storage.
pub(super) fn failed_precondition(key: &str, asked: &str, found: &str) -> String {
    format!(
        "StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {asked}, UID in object meta: {found}"
    )
}

fn check_preconditions(kind: &Kind, new: &Value, old: &Value) -> Result<(), ApiError> {
    let name = old.name();
    if !new.uid().is_empty() && new.uid() != old.uid() {
        return Err(ApiError::conflict(
            kind.resource(),
            name,
            &failed_precondition(&kind.key(old.namespace(), name), new.uid(), old.uid()),
        ));
    }
    let given = new.resource_version();
    if !given.is_empty() && given != "0" && given != old.resource_version() {
        if given.parse::<u64>().is_err() {
            let mut errors = Errors::default();
            errors.invalid(
                &hull_api::field::Path::new("metadata.resourceVersion"),
                given,
                format!("strconv.ParseUint: parsing {given:?}: invalid syntax"),
            );
            return Err(ApiError::invalid(
                kind.group,
                kind.kind,
                name,
                errors.into_vec(),
            ));
        }
        return Err(ApiError::modified(kind.resource(), name));
    }
    Ok(())
}

fn prepare(kind: &Kind, subresource: Option<Subresource>, new: &mut Value, old: &Value) {
    match subresource {
        Some(Subresource::Status) => {
            kind.strategy.prepare_status_update(new, old);
            // Who owns it is not observed.
            keep_metadata(new, old, "ownerReferences");
            meta::keep_on_update(new, old);
        }
        Some(Subresource::Finalize) => {
            let finalizers = new.list_at("/spec/finalizers").to_vec();
            *new = old.clone();
            new.set_at(&["spec", "finalizers"], Value::Array(finalizers));
        }
        Some(part) => kind.strategy.prepare_part_update(part, new, old),
        None => {
            // Defaults first: what is only written out is no change of the spec.
            kind.strategy.apply_defaults(new);
            meta::keep_on_update(new, old);
            kind.strategy.prepare_update(new, old);
        }
    }
}

fn keep_metadata(new: &mut Value, old: &Value, field: &str) {
    match old.pointer(&format!("/metadata/{field}")) {
        Some(value) => {
            let value = value.clone();
            new.set_at(&["metadata", field], value);
        }
        None => {
            new.remove_at(&["metadata", field]);
        }
    }
}

fn validate(
    kind: &Kind,
    subresource: Option<Subresource>,
    new: &Value,
    old: &Value,
) -> Result<(), ApiError> {
    let mut errors = Errors::default();
    meta::validate(kind, new, &mut errors);
    meta::validate_update(new, old, &mut errors);
    match subresource {
        Some(Subresource::Status) => kind.strategy.validate_status_update(new, old, &mut errors),
        Some(Subresource::Finalize) => kind.strategy.validate(new, &mut errors),
        Some(part) => {
            kind.strategy
                .validate_part_update(part, new, old, &mut errors);
        }
        None => {
            kind.strategy.validate_change(new, old, &mut errors);
        }
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(ApiError::invalid(
        kind.group,
        kind.kind,
        old.name(),
        errors.into_vec(),
    ))
}

/// Writes the new state, or removes the object when the last thing that held it is gone.
pub(super) async fn write(
    context: &Context<'_>,
    mut object: Value,
    expected: Revision,
    beside: Beside,
) -> Result<Option<Value>, ApiError> {
    let kind = context.kind;
    let storage = &context.backend.storage;
    let held = !object.finalizers().is_empty() || kind.strategy.held_by_spec(&object);
    let grace = object
        .int_at("/metadata/deletionGracePeriodSeconds")
        .unwrap_or(0);
    let outcome = if object.is_deleting() && grace == 0 && !held {
        storage
            .remove(kind, object.namespace(), object.name(), expected)
            .await?
    } else {
        storage
            .replace_beside(kind, &mut object, expected, beside)
            .await?
    };
    Ok(match outcome {
        Outcome::Done(_) => Some(object),
        Outcome::Conflict => None,
    })
}
