//! DELETE of one object or of a collection: grace periods, finalizers, preconditions.

use http::StatusCode;
use hull_api::{ApiError, Kind, ObjectExt, status::ResourceName, time};
use serde_json::{Map, Value, json};

use super::{Context, HandlerResult, list, read_body::read_delete_options, selection::Selection};
use crate::{
    admission::{self, dynamic},
    http::{Output, json_response},
    limits,
    storage::{Outcome, Storage, Stored},
};

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// How a delete is to be done.
#[derive(Debug, Default)]
pub(crate) struct DeleteOptions {
    grace_seconds: Option<i64>,
    uid: Option<String>,
    resource_version: Option<String>,
    propagation: Option<Propagation>,
    pub(super) dry_run: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Propagation {
    Orphan,
    Background,
    Foreground,
}

impl DeleteOptions {
    /// From the body, and where that says nothing from the parameters.
    pub(super) fn read(context: &Context<'_>) -> Result<Self, ApiError> {
        Self::from_map(context, read_delete_options(context)?)
    }

    pub(super) fn from_map(
        context: &Context<'_>,
        map: Map<String, Value>,
    ) -> Result<Self, ApiError> {
        let body = Value::Object(map);
        let grace_seconds = match body.int_at("/gracePeriodSeconds") {
            Some(seconds) => Some(seconds),
            None => match context.query.get("gracePeriodSeconds") {
                "" => None,
                text => Some(text.parse().map_err(|_| {
                    ApiError::bad_request(format!(
                        "strconv.ParseInt: parsing {text:?}: invalid syntax"
                    ))
                })?),
            },
        };
        if grace_seconds.is_some_and(|seconds| seconds < 0) {
            return Err(ApiError::bad_request(
                "gracePeriodSeconds must not be negative",
            ));
        }
        let text = |pointer: &str| match body.str_at(pointer) {
            "" => None,
            text => Some(text.to_string()),
        };
        let policy = match body.str_at("/propagationPolicy") {
            "" => context.query.get("propagationPolicy"),
            policy => policy,
        };
        let propagation = match (
            policy,
            body.get("orphanDependents").and_then(Value::as_bool),
        ) {
            ("", None) => None,
            ("", Some(true)) | ("Orphan", None) => Some(Propagation::Orphan),
            ("", Some(false)) | ("Background", None) => Some(Propagation::Background),
            ("Foreground", None) => Some(Propagation::Foreground),
            (_, Some(_)) => {
                return Err(ApiError::bad_request(
                    "orphanDependents and deletionPropagation cannot be both set",
                ));
            }
            (other, None) => {
                let mut errors = hull_api::field::Errors::default();
                errors.not_supported(
                    &hull_api::field::Path::new("propagationPolicy"),
                    other,
                    &["Background", "Foreground", "Orphan"],
                );
                return Err(ApiError::invalid(
                    "meta.k8s.io",
                    "DeleteOptions",
                    "",
                    errors.into_vec(),
                ));
            }
        };
        let dry_run = match body.list_at("/dryRun") {
            [] => context.query.dry_run("DeleteOptions", context.name)?,
            [value] if value == "All" => true,
            _ => return Err(ApiError::bad_request("dryRun: supported values: \"All\"")),
        };
        Ok(DeleteOptions {
            grace_seconds,
            uid: text("/preconditions/uid"),
            resource_version: text("/preconditions/resourceVersion"),
            propagation,
            dry_run,
        })
    }
}

/// What a delete led to.
pub(crate) enum Deletion {
    /// It is gone; this is its last state.
    Removed(Value),
    /// It is marked, and will go.
    Marked(Value),
}

pub(super) async fn delete(context: &Context<'_>) -> HandlerResult {
    let options = DeleteOptions::read(context)?;
    let kind = context.kind;
    let deletion = delete_object(context, context.namespace, context.name, &options).await?;
    let object = match deletion {
        Deletion::Removed(object) if !kind.strategy.returns_deleted() => success(kind, &object),
        Deletion::Removed(object) | Deletion::Marked(object) => {
            context.backend.to_served(kind, object).await?
        }
    };
    Ok(Output {
        kind,
        accept: context.accept,
        status: StatusCode::OK,
        object: &object,
        warnings: &[],
    }
    .into_response())
}

fn success(kind: &Kind, object: &Value) -> Value {
    let mut details = json!({
        "name": object.name(),
        "kind": kind.plural,
        "uid": object.uid(),
    });
    if !kind.group.is_empty() {
        details["group"] = Value::from(kind.group);
    }
    json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": details,
    })
}

/// Deletes every selected object, one after the other.
pub(super) async fn delete_collection(context: &Context<'_>) -> HandlerResult {
    let options = DeleteOptions::read(context)?;
    let selection = Selection::read(context)?;
    let found = list::everything(context, &selection).await?;
    let mut deleted = Vec::with_capacity(found.objects.len());
    for object in found.objects {
        let (namespace, name) = (object.namespace(), object.name());
        match delete_object(context, namespace, name, &options).await {
            Ok(Deletion::Removed(object) | Deletion::Marked(object)) => {
                deleted.push(context.backend.to_served(context.kind, object).await?);
            }
            // Somebody else deleted it meanwhile.
            Err(error) if error.reason == hull_api::status::Reason::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    let list = json!({
        "kind": context.kind.list_kind(),
        "apiVersion": context.kind.group_version(),
        "metadata": {"resourceVersion": found.revision.to_string()},
        "items": deleted,
    });
    Ok(json_response(StatusCode::OK, list.to_string()))
}

pub(super) async fn delete_object(
    context: &Context<'_>,
    namespace: &str,
    name: &str,
    options: &DeleteOptions,
) -> Result<Deletion, ApiError> {
    let storage = &context.backend.storage;
    if dynamic::is_asked(context) {
        let stored = storage.must_get(context.kind, namespace, name).await?;
        let old = context.backend.to_served(context.kind, stored.object);
        let old = old.await?;
        dynamic::check_delete(context, &old, options.dry_run).await?;
    }
    delete_unasked(context, namespace, name, options).await
}

/// Deletes an object whose deletion policies and webhooks have nothing to say about.
pub(super) async fn delete_unasked(
    context: &Context<'_>,
    namespace: &str,
    name: &str,
    options: &DeleteOptions,
) -> Result<Deletion, ApiError> {
    let admit = |object: &Value| admission::admit_delete(context, object);
    let storage = &context.backend.storage;
    delete_admitted(storage, context.kind, (namespace, name), options, admit).await
}

/// Deletes an object of a namespace and name, once `admit` agrees.
pub(crate) async fn delete_admitted(
    storage: &Storage,
    kind: &Kind,
    (namespace, name): (&str, &str),
    options: &DeleteOptions,
    admit: impl Fn(&Value) -> Result<(), ApiError>,
) -> Result<Deletion, ApiError> {
    for _ in 0..limits::UPDATE_RETRIES {
        let Stored { object, revision } = storage.must_get(kind, namespace, name).await?;
        admit(&object)?;
        check_preconditions(kind, &object, options)?;
        let before = object.clone();
        match plan(kind, object, options) {
            Plan::Remove(object) => {
                if options.dry_run {
                    return Ok(Deletion::Removed(object));
                }
                if let Outcome::Done(_) = storage.remove(kind, namespace, name, revision).await? {
                    return Ok(Deletion::Removed(object));
                }
            }
            Plan::Mark(mut object) => {
                if options.dry_run || object == before {
                    return Ok(Deletion::Marked(object));
                }
                if let Outcome::Done(_) = storage.replace(kind, &mut object, revision).await? {
                    return Ok(Deletion::Marked(object));
                }
            }
        }
    }
    Err(ApiError::modified(kind.resource(), name))
}

fn check_preconditions(
    kind: &Kind,
    object: &Value,
    options: &DeleteOptions,
) -> Result<(), ApiError> {
    let failed = |what: &str, wanted: &str, found: &str, fate: &str| {
        // Kubernetes names the kind here, not the resource.
        let about = ResourceName {
            group: kind.group,
            resource: kind.kind,
        };
        let why = format!(
            "the {what} in the precondition ({wanted}) does not match the {what} in record ({found}). The object might have been {fate}"
        );
        Err(ApiError::conflict(about, object.name(), &why))
    };
    if let Some(uid) = &options.uid
        && uid != object.uid()
    {
        return failed("UID", uid, object.uid(), "deleted and then recreated");
    }
    if let Some(version) = &options.resource_version
        && version != object.resource_version()
    {
        let found = object.resource_version();
        return failed("ResourceVersion", version, found, "modified");
    }
    Ok(())
}

enum Plan {
    Remove(Value),
    Mark(Value),
}

/// Decides between removing and marking (Kubernetes: registry/rest/delete.go, `BeforeDelete`).
fn plan(kind: &Kind, mut object: Value, options: &DeleteOptions) -> Plan {
    set_propagation(&mut object, options.propagation);
    kind.strategy.on_deletion_asked(&mut object);
    let held = !object.finalizers().is_empty() || kind.strategy.held_by_spec(&object);
    if object.is_deleting() {
        let left = object
            .int_at("/metadata/deletionGracePeriodSeconds")
            .unwrap_or(0);
        // The time that was left can only become shorter.
        let shorter = options
            .grace_seconds
            .filter(|seconds| *seconds < left)
            .map(|seconds| kind.strategy.grace_period(&object, Some(seconds)).min(left));
        let Some(seconds) = shorter else {
            return if left == 0 && !held {
                Plan::Remove(object)
            } else {
                Plan::Mark(object)
            };
        };
        let ends = time::parse(object.str_at("/metadata/deletionTimestamp"))
            .map(|at| at.as_second() - left + seconds)
            .and_then(|second| jiff::Timestamp::from_second(second).ok())
            .unwrap_or_else(jiff::Timestamp::now);
        set_deletion(&mut object, ends, seconds);
        return if seconds == 0 && !held {
            Plan::Remove(object)
        } else {
            Plan::Mark(object)
        };
    }
    let seconds = kind.strategy.grace_period(&object, options.grace_seconds);
    if seconds == 0 && !held {
        return Plan::Remove(object);
    }
    let now = jiff::Timestamp::now();
    let ends = now
        .checked_add(jiff::SignedDuration::from_secs(seconds))
        .unwrap_or(now);
    set_deletion(&mut object, ends, seconds);
    if let Some(generation) = object.int_at("/metadata/generation") {
        object.set_at(&["metadata", "generation"], Value::from(generation + 1));
    }
    kind.strategy.on_deletion_marked(&mut object);
    Plan::Mark(object)
}

fn set_deletion(object: &mut Value, ends: jiff::Timestamp, seconds: i64) {
    object.set_at(
        &["metadata", "deletionTimestamp"],
        Value::from(time::to_seconds(ends)),
    );
    object.set_at(
        &["metadata", "deletionGracePeriodSeconds"],
        Value::from(seconds),
    );
}

/// The garbage collector finds the client's wish as a finalizer.
fn set_propagation(object: &mut Value, propagation: Option<Propagation>) {
    let Some(propagation) = propagation else {
        return;
    };
    let mut finalizers: Vec<Value> = object
        .finalizers()
        .iter()
        .filter(|finalizer| *finalizer != ORPHAN && *finalizer != FOREGROUND)
        .cloned()
        .collect();
    match propagation {
        Propagation::Orphan => finalizers.push(Value::from(ORPHAN)),
        Propagation::Foreground => finalizers.push(Value::from(FOREGROUND)),
        Propagation::Background => {}
    }
    if finalizers.is_empty() {
        object.remove_at(&["metadata", "finalizers"]);
    } else {
        object.set_at(&["metadata", "finalizers"], Value::Array(finalizers));
    }
}
